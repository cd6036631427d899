"""apps/pretrain from beginning to end, on a tiny model and a tiny text."""

import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gpt_core.checkpoint import find_checkpoint, list_checkpoints, load_model, read_meta
from gpt_core.training import hooks


def weights(run_dir, name="latest"):
    return load_file(find_checkpoint(run_dir, name) / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def strict(path):
    """Every JSON value of a file, with NaN and Infinity refused."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{path} has {name}")) for line in lines]


def metrics(run_dir, name):
    """{step: value} of one metric."""
    return {r["step"]: r[name] for r in strict(run_dir / "metrics.jsonl") if r.get(name) is not None}


@pytest.fixture(scope="module")
def first(shared_workbench):
    """A finished run; the other tests read it, repeat it, continue copies of it."""
    assert shared_workbench.pretrain("--run_name=first", "--logging.gradient_log_interval=2", picture=True) is None
    return shared_workbench.out / "first"


def copy_of(run_dir, name):
    return shutil.copytree(run_dir, run_dir.parent / name, symlinks=True)


def test_a_run_leaves_every_file(first):
    for name in ("config.yaml", "command.sh", "manifest.json", "log.txt", "metrics.jsonl", "run.json"):
        assert (first / name).stat().st_size, name
    for name in ("summaries.json", "report/loss.png", "checkpoint_log.yaml", "tokenizer"):
        assert (first / name).exists(), name
    assert (first / "report" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in list_checkpoints(first)] == ["step_000003", "step_000006"]
    assert os.readlink(first / "checkpoints" / "latest") == "step_000006"
    assert not list(first.rglob(".*")), "nothing half written stays"
    for path in [*first.rglob("*.json"), first / "metrics.jsonl"]:
        assert strict(path)
    for path in first.rglob("*"):
        assert path.suffix not in (".pt", ".pth", ".pkl", ".pickle"), f"{path} would be unpickled"


def test_the_numbers_of_a_run(first):
    train, val = metrics(first, "train/loss"), metrics(first, "val/loss")
    assert sorted(train) == [2, 4, 6] and sorted(val) == [0, 3, 6]
    assert abs(val[0] - 2.833) < 0.1, "ln 17 before training"
    assert metrics(first, "train/tokens")[6] == 6 * 8 * 16
    assert metrics(first, "grad/global_norm") == pytest.approx(metrics(first, "train/grad_norm"), rel=1e-5)
    log = yaml.safe_load((first / "checkpoint_log.yaml").read_text())
    assert {e["step"]: e["val_loss"] for e in log} == {step: val[step] for step in (3, 6)}
    best = read_meta(find_checkpoint(first, "best"))
    assert best["val_loss"] == min(val[3], val[6]) == best["best_val_loss"]
    summary = strict(first / "run.json")[0]
    assert summary["status"] == "completed"


def test_the_checkpoint_of_a_run_is_a_model(first):
    model = load_model(find_checkpoint(first))
    with torch.no_grad():
        assert model(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 16, 17)


def test_a_run_is_repeated_from_its_folder_bit_for_bit(shared_workbench, first):
    assert shared_workbench.pretrain("--run_name=again", config=first / "config.yaml") is None
    assert_equal(weights(first), weights(shared_workbench.out / "again"))
    again = metrics(shared_workbench.out / "again", "train/loss")
    assert again == metrics(first, "train/loss")


def test_logging_sampling_and_evaluating_otherwise_changes_nothing(shared_workbench, first):
    arguments = ["--eval_every=2", "--sample_every=1", "--log_every=1", "--save_every=1", "--eval.at_start=false"]
    assert shared_workbench.pretrain("--run_name=chatty", *arguments) is None
    assert_equal(weights(first), weights(shared_workbench.out / "chatty"))


def test_recomputing_activations_changes_nothing(shared_workbench, first):
    assert shared_workbench.pretrain("--run_name=recomputed", "--activation_checkpointing=true") is None
    assert_equal(weights(first), weights(shared_workbench.out / "recomputed"))


def test_a_loss_fused_with_the_head_says_so_and_learns_the_same(shared_workbench, first):
    assert "loss: from all logits: those of " in (first / "log.txt").read_text()
    assert shared_workbench.pretrain("--run_name=fused", "--fused_loss=true") is None
    fused = shared_workbench.out / "fused"
    assert (fused / "log.txt").read_text().count("loss: fused with the head, as configured") == 1
    assert metrics(fused, "val/loss") == pytest.approx(metrics(first, "val/loss"), rel=1e-4)
    assert metrics(fused, "train/loss") == pytest.approx(metrics(first, "train/loss"), rel=1e-4)


def test_float8_changes_nothing_where_there_are_no_units_for_it(shared_workbench, first):
    assert shared_workbench.pretrain("--run_name=fp8", "--training.fp8=true") is None
    assert_equal(weights(first), weights(shared_workbench.out / "fp8"))


@pytest.mark.parametrize("init_from", ["resume", "latest", "best"])
def test_a_stopped_run_continues_to_the_same_weights(shared_workbench, first, init_from):
    """From step 3, with the schedule of the whole run, to the weights of the run that did not stop."""
    run_dir = copy_of(first, f"continued-{init_from}")
    shutil.rmtree(run_dir / "checkpoints" / "step_000006")
    for name in ("latest", "best"):
        (run_dir / "checkpoints" / name).unlink()
        (run_dir / "checkpoints" / name).symlink_to("step_000003")
    assert shared_workbench.pretrain(f"--run_name={run_dir.name}", f"--init_from={init_from}") is None
    assert_equal(weights(first), weights(run_dir))
    log = yaml.safe_load((run_dir / "checkpoint_log.yaml").read_text())
    assert [entry["step"] for entry in log] == [3, 6]
    assert metrics(run_dir, "train/loss")[6] == pytest.approx(metrics(first, "train/loss")[6], rel=0.02)


def test_a_run_that_was_resumed_is_repeated_as_a_whole(shared_workbench, first):
    run_dir = copy_of(first, "resumed")
    assert shared_workbench.pretrain("--run_name=resumed", "--init_from=resume", "--logging.log_every=3") is None
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (config["general"]["init_from"], config["logging"]["log_every"]) == ("scratch", 3)
    assert shared_workbench.pretrain("--run_name=as-a-whole", config=run_dir / "config.yaml") is None
    assert_equal(weights(first), weights(shared_workbench.out / "as-a-whole"))


def test_evaluating_only_leaves_the_checkpoints_as_they_are(shared_workbench, first):
    run_dir = copy_of(first, "evaluated")
    before = find_checkpoint(run_dir).stat().st_mtime_ns
    assert shared_workbench.pretrain("--run_name=evaluated", "--init_from=resume", "--eval_only=true") is None
    assert find_checkpoint(run_dir).stat().st_mtime_ns == before
    assert metrics(run_dir, "val/loss")[6] == metrics(first, "val/loss")[6]


def test_evaluating_an_earlier_checkpoint_takes_nothing_from_the_record(shared_workbench, first):
    run_dir = copy_of(first, "looked-at")
    (run_dir / "checkpoints" / "best").unlink()
    (run_dir / "checkpoints" / "best").symlink_to("step_000003")
    before = (run_dir / "config.yaml").read_bytes(), (run_dir / "command.sh").read_bytes()
    assert shared_workbench.pretrain("--run_name=looked-at", "--init_from=best", "--eval_only=true") is None
    assert metrics(run_dir, "train/loss") == metrics(first, "train/loss")
    assert metrics(run_dir, "val/loss") == metrics(first, "val/loss")
    assert ((run_dir / "config.yaml").read_bytes(), (run_dir / "command.sh").read_bytes()) == before


def test_folders_may_name_variables_of_the_environment(workbench, tmp_path):
    config = tmp_path / "env.yaml"
    config.write_text(f"__include__: {workbench.config}\n_env: {{WHERE: {tmp_path}/there}}\n")
    arguments = ["--out_dir=$WHERE/out", "--run_name=run", "--max_steps=1", "--warmup_iters=0"]
    assert workbench.pretrain(*arguments, config=config) is None
    assert find_checkpoint(tmp_path / "there" / "out" / "run").name == "step_000001"
    assert "NOT_SET" in workbench.pretrain("--out_dir=$NOT_SET/out")


def test_a_finished_run_is_extended_without_naming_it(workbench):
    assert workbench.pretrain("--project_name=other", "--max_iters=2") is None
    assert workbench.pretrain("--project_name=other", "--max_iters=4", "--init_from=resume") is None
    (run_dir,) = workbench.out.iterdir()
    assert run_dir.name.startswith("other-") and read_meta(find_checkpoint(run_dir))["step"] == 4


def test_another_run_starts_from_the_weights_of_a_run(shared_workbench, first):
    for source in (first, first.name, find_checkpoint(first, "best")):
        name = f"from-{str(source).replace('/', '-')}"
        arguments = ["--learning_rate=1e-30", "--weight_decay=0", "--max_iters=1", "--warmup_iters=0"]
        assert shared_workbench.pretrain(f"--run_name={name}", f"--init_from={source}", *arguments) is None
        meta = read_meta(find_checkpoint(shared_workbench.out / name))
        assert meta["step"] == 1 and meta["tokens"] == 8 * 16, "a new run, not a resumed one"
        assert_equal(weights(first, "latest"), weights(shared_workbench.out / name))


def test_nanogpt_flags(workbench):
    flags = "--max_iters=2 --batch_size=2 --block_size=8 --gradient_accumulation_steps=3 --global_batch_size=null"
    flags += " --n_layer=2 --eval_interval=1 --eval_iters=1 --learning_rate=1e-2 --always_save_checkpoint=True"
    assert workbench.pretrain("--run_name=nano", *flags.split()) is None
    run_dir = workbench.out / "nano"
    assert metrics(run_dir, "train/tokens")[2] == 2 * 3 * 2 * 8
    assert read_meta(find_checkpoint(run_dir))["model"]["module_kwargs"]["n_layer"] == 2
    assert [p.name for p in list_checkpoints(run_dir)] == ["step_000001", "step_000002"]


class Stop(hooks.Save):
    """Saves as ever, and sends a signal after step 2."""

    def on_step(self, state):
        super().on_step(state)
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_saves_and_the_run_continues_bit_for_bit(shared_workbench, first, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(hooks, "Save", Stop)
        shared_workbench.pretrain("--run_name=stopped")
    run_dir = shared_workbench.out / "stopped"
    assert read_meta(find_checkpoint(run_dir))["step"] == 3
    assert strict(run_dir / "run.json")[0]["status"] == "interrupted"
    assert shared_workbench.pretrain("--run_name=stopped", "--init_from=resume") is None
    assert_equal(weights(first), weights(run_dir))
    assert strict(run_dir / "run.json")[0]["status"] == "completed"


def test_a_global_batch_that_does_not_divide_is_rounded_and_said(workbench):
    arguments = ["--max_steps=1", "--warmup_iters=0", "--global_batch_size=11", "--batch_size=2"]
    assert workbench.pretrain("--run_name=rounded", *arguments) is None
    assert "takes 12 sequences, not 11" in (workbench.out / "rounded" / "log.txt").read_text()


def test_no_steps_at_all_still_ends_well(workbench):
    assert workbench.pretrain("--run_name=none", "--max_steps=0", "--warmup_iters=0") is None
    assert (workbench.out / "none" / "summaries.json").exists()
    assert workbench.pretrain("--run_name=nothing", "--max_steps=0", "--warmup_iters=0", "--no-evals") is None
    assert "no step was taken and nothing evaluated" in (workbench.out / "nothing" / "log.txt").read_text()


@pytest.mark.slow
def test_two_processes_train_one_model(shared_workbench):
    """As a user starts it. Dropout is off, since every rank draws its own; the parity of gradients is tested in
    gpt-core."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = shared_workbench.process("--run_name=two", "--dropout=0", launcher=launcher)
    assert done.returncode == 0, done.stderr
    run_dir = shared_workbench.out / "two"
    assert sorted(metrics(run_dir, "val/loss")) == [0, 3, 6]
    assert metrics(run_dir, "train/tokens")[6] == 6 * 8 * 16, "the global batch does not depend on the processes"
    states = sorted(p.name for p in (find_checkpoint(run_dir) / "state").glob("rank_*.json"))
    assert states == ["rank_0.json", "rank_1.json"]
    assert "torchrun --nproc-per-node=2" in (run_dir / "command.sh").read_text()
    assert done.stdout.count("sample at step 6") == done.stdout.count("loss.png") == 1, "one process speaks"
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    # One process continues: the same rows in the same steps, so the losses of both meet again.
    assert shared_workbench.pretrain("--run_name=two", "--init_from=resume", "--dropout=0", "--max_steps=9") is None
    assert shared_workbench.pretrain("--run_name=one", "--dropout=0") is None
    assert metrics(run_dir, "val/loss")[6] == pytest.approx(
        metrics(shared_workbench.out / "one", "val/loss")[6], abs=1e-5
    )
    assert metrics(run_dir, "train/tokens")[9] == 9 * 8 * 16
