"""apps/pretrain gpt-dag from beginning to end: a DAG in a run, its checkpoints, weights from elsewhere."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from gpt_core.checkpoint import find_checkpoint, list_checkpoints, load_model, read_meta, save_model, training_state
from gpt_dag import DagGPT, load_predictor
from gpt_dag.predictor.model import predictor
from gpt_dag.tokens import WordTokenizer
from workspace import ROOT

CONFIG = ROOT / "apps/pretrain/configs/gpt-dag.yaml"
TINY = (
    *("--n_layer=1", "--n_head=2", "--n_embd=16", "--context_length=48", "--batch_size=4", "--warmup_iters=0"),
    *("--data.module_kwargs.held_out=8", "--data.module_kwargs.max_ops=1", "--max_iters=4", "--max_new_tokens=4"),
    *("--eval_interval=2", "--log_interval=2", "--logging.style=quiet"),
)


@pytest.fixture(scope="module")
def bench(shared_workbench):
    """bench("--run_name=a", ...): the error message of a run, or None."""

    def pretrain(*arguments):
        return shared_workbench.pretrain(*TINY, *arguments, config=CONFIG)

    pretrain.out = shared_workbench.out
    return pretrain


@pytest.fixture(scope="module")
def first(bench):
    assert bench("--run_name=first") is None
    return bench.out / "first"


def weights(run, name="latest"):
    return load_file(find_checkpoint(run, name) / "model.safetensors")


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def log(run):
    return (run / "log.txt").read_text()


def test_a_run_logs_its_dag_and_can_be_loaded(first):
    logged = {r["step"]: r for r in records(first) if "gate/mean" in r}
    assert sorted(logged) == [2, 4]
    assert {"op_grad/add", "norm/dag_sem", "grad/dag_output_norm", "gpu/available"} <= logged[4].keys()
    model = load_model(find_checkpoint(first))
    assert isinstance(model, DagGPT) and model.gate_mode == "all" and len(model.dag.source.step_embed) == 2
    assert model(torch.ones(1, 5, dtype=torch.int64)).shape == (1, 5, WordTokenizer.vocab_size)


def test_depth_0_is_a_plain_run(bench):
    assert bench("--run_name=plain", "--dag_depth=0") is None
    assert not any("dag" in name for name in weights(bench.out / "plain"))
    assert not any("gate/mean" in record for record in records(bench.out / "plain"))


def test_a_resumed_run_goes_on_bit_for_bit(bench, first):
    short = bench.out / "short"
    assert bench("--run_name=short", "--max_iters=4", "--save_every=2", "--keep_last=0") is None
    (short / "checkpoints/latest").unlink()
    (short / "checkpoints/latest").symlink_to("step_000002")
    shutil.rmtree(find_checkpoint(short, "4"))
    assert bench("--run_name=short", "--init_from=resume") is None
    assert all(torch.equal(weight, weights(short)[name]) for name, weight in weights(first).items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--dag_depth=3", "dag_depth: checkpoint 2, configuration 3"),
        ("--dag_depth=0", "dag_depth: checkpoint 2, configuration 0"),
        ("--gate_mode=last", "gate_mode: checkpoint 'all', configuration 'last'"),
    ],
)
def test_another_dag_cannot_be_resumed(bench, first, change, said):
    error = bench("--run_name=first", "--init_from=resume", change)
    assert error.startswith("error: ") and said in error and "--init_from=PATH" in error


def test_a_name_is_not_the_beginning_of_another(bench, first):
    shutil.copytree(first, bench.out / "run_2", symlinks=True)
    error = bench("--run_name=run", "--init_from=latest")
    assert "no checkpoint 'latest'" in error and "run_2" in error, "it is listed, not taken"
    assert find_checkpoint(bench.out / "run_2") and not (bench.out / "run").exists()


def test_the_best_checkpoint_stays_and_is_found(bench, first):
    best = find_checkpoint(first, "best")
    meta = read_meta(best)
    assert meta["val_loss"] == meta["best_val_loss"]
    shutil.copytree(first, bench.out / "again", symlinks=True)
    assert bench("--run_name=again", "--init_from=best", "--max_iters=8", "--save_every=1", "--keep_last=1") is None
    kept = {path.resolve().name for path in list_checkpoints(bench.out / "again")}
    assert {find_checkpoint(bench.out / "again", "best").name, "step_000008"} == kept | {"step_000008"}


def test_weights_of_a_plain_gpt_get_a_new_dag(bench):
    source = bench.out / "plain"
    assert bench("--run_name=grown", f"--init_from={source}", "--dag_depth=1", "--max_iters=0") is None
    plain, grown = weights(source), weights(bench.out / "grown")
    assert all(torch.equal(grown[name], weight) for name, weight in plain.items())
    assert {name.partition(".")[0] for name in grown.keys() - plain.keys()} == {"dag"}
    assert "the DAG is new" in log(bench.out / "grown") and str(source) in log(bench.out / "grown")
    assert isinstance(load_model(find_checkpoint(bench.out / "grown")), DagGPT)


def test_weights_of_a_gpt_with_a_dag_bring_it_along(bench, first):
    assert bench("--run_name=moved", f"--init_from={first}", "--max_iters=0") is None
    assert all(torch.equal(weight, weights(bench.out / "moved")[name]) for name, weight in weights(first).items())
    assert "dag_depth: it has 2, asked for 3" in bench("--run_name=other", f"--init_from={first}", "--dag_depth=3")
    assert not (bench.out / "other").exists()


def test_a_missing_source_lists_what_there_is(bench, first):
    error = bench("--run_name=x", "--init_from=nowhere")
    assert "init_from='nowhere' is neither" in error and "first" in error


def test_of_many_runs_the_newest_ten_are_listed(bench, tmp_path):
    for number in range(12):
        (tmp_path / f"old-{number}/checkpoints/step_000001").mkdir(parents=True)
    error = bench(f"--out_dir={tmp_path}", "--run_name=z", "--init_from=latest")
    assert error.count("old-") == 10 and error.endswith("and 2 older")


def test_a_save_that_breaks_off_leaves_the_old_checkpoint(bench, first, monkeypatch):
    run = bench.out / "broken"
    shutil.copytree(first, run, symlinks=True)
    before = weights(run)

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(training_state, "write_model", fail)
    error = bench("--run_name=broken", "--init_from=resume", "--max_iters=5", "--eval_interval=0")
    assert "could not save" in error and "No space left" in error
    assert not list((run / "checkpoints").glob(".*")), "nothing half written stays"
    assert all(torch.equal(weight, weights(run)[name]) for name, weight in before.items())


# --- with a predictor


@pytest.fixture(scope="module")
def reader(bench):
    """The run folder of an untrained predictor."""
    torch.manual_seed(1)
    kwargs = {"vocab_size": WordTokenizer.vocab_size, "n_layer": 1, "n_embd": 16, "n_head": 2}
    folder = bench.out / "predictor-run/checkpoints/step_000001"
    folder.mkdir(parents=True)
    model = {"module": "gpt_dag.predictor.model.predictor", "module_kwargs": kwargs}
    save_model(folder, predictor(**kwargs), {"step": 1, "model": model})
    return folder.parent.parent


PREDICTOR = ("--model.module_kwargs.plan_source=predictor",)


def test_a_pretrained_predictor_is_read_kept_frozen_and_saved_with_the_model(bench, reader, tmp_path):
    moved = shutil.copytree(reader, tmp_path / "reader")
    arguments = (*PREDICTOR, f"--model.module_kwargs.predictor={moved}")
    assert bench("--run_name=reading", *arguments) is None
    trained, wanted = weights(bench.out / "reading"), weights(reader)
    mine = {n.removeprefix("dag.source.predictor."): w for n, w in trained.items() if ".predictor." in n}
    assert mine.keys() == wanted.keys() and all(torch.equal(mine[name], weight) for name, weight in wanted.items())
    shutil.rmtree(moved)  # the checkpoint is whole without it
    assert load_model(find_checkpoint(bench.out / "reading")).dag.source.freeze
    assert bench("--run_name=reading", "--init_from=resume", "--max_iters=5", *arguments) is None


def test_a_predictor_that_is_not_there_is_named(bench, first):
    assert "no checkpoint" in bench("--run_name=y", *PREDICTOR, f"--model.module_kwargs.predictor={bench.out / 'no'}")
    assert "trained in phase 1" in bench("--run_name=y", *PREDICTOR)
    with pytest.raises(ValueError, match="is a DagGPT, expected a predictor"):
        load_predictor(first)
