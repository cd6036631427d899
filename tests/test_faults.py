"""What goes wrong outside the program: kills, full disks, damaged files, typing errors. Nothing is lost, and the
message is one line that says what to do."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpt_core.checkpoint import find_checkpoint, list_checkpoints, load_weights, model_file
from gpt_core.checkpoint.model_file import load_model
from workspace import ROOT

SHARD = "shard-00001-model-00001-of-00001.safetensors"


def told(message, *parts):
    """The error of a run: one line with every part in it."""
    assert message is not None, "the run should have failed"
    assert isinstance(message, str) and message.startswith("error: "), message
    assert "\n" not in message.strip() and "Traceback" not in message
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"


# --- kill -9 -----------------------------------------------------------------------------------------------------

# One process imports everything and forks a child for each attempt, so that 20 of them cost seconds, not minutes.
# The child is killed a random moment after a random number of checkpoints.
KILLER = """
import contextlib, os, random, runpy, signal, sys, time
from pathlib import Path

run_dir = Path(out) / "killed"
draw = random.Random(0)

def latest(run_dir):
    try:
        return os.readlink(run_dir / "checkpoints" / "latest")
    except OSError:
        return None

def run(name):
    resume = any((Path(out) / name / "checkpoints").glob("step_*"))
    sys.argv = ["apps/pretrain", config, f"--out_dir={out}", f"--run_name={name}", "--save_every=1", "--keep_last=2",
                "--max_steps=60", "--eval_every=5", f"--init_from={'resume' if resume else 'scratch'}"]
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        try:
            runpy.run_path(app, run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

def start(name):
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        run(name)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)

def kill_somewhere(child):
    wait, seen, since = draw.choice([0, 1, 1, 2, 3]), latest(run_dir), time.monotonic()
    if wait == 0:
        time.sleep(draw.uniform(0, 0.4))
    while wait:
        now = latest(run_dir)
        if now != seen:
            wait, seen = wait - 1, now
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
        assert time.monotonic() - since < 60
    time.sleep(draw.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

run("straight")  # here, so that every later attempt finds all modules loaded
for _ in range(20):
    assert kill_somewhere(start("killed")), "ended before it was killed"
assert os.waitpid(start("killed"), 0)[1] == 0
"""


@pytest.mark.slow
def test_twenty_kills_do_not_change_the_result(workbench, fork):
    places = {"app": str(ROOT / "apps/pretrain"), "config": str(workbench.config), "out": str(workbench.out)}
    environment = {"DATA_ROOT": str(workbench.folder / "data"), "MPLBACKEND": "agg"}
    done = fork(workbench.folder, exec, KILLER, places, environment=environment, timeout=200)
    assert done.code == 0, done.stderr[-3000:]

    straight, killed = workbench.out / "straight", workbench.out / "killed"
    first, second = find_checkpoint(straight), find_checkpoint(killed)
    assert first.name == second.name == "step_000060"
    for name in ("model.safetensors", f"state/{SHARD}"):
        a, b = load_file(first / name), load_file(second / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    read = lambda folder, name: json.loads((folder / name).read_text())
    assert read(first, "state/rank_0.json") == read(second, "state/rank_0.json"), "random state and data position"
    metas = [read(folder, "meta.json") | {"train_seconds": None, "cpu_seconds": None} for folder in (first, second)]
    assert metas[0] == metas[1]
    assert [p.name for p in list_checkpoints(killed)] == [p.name for p in list_checkpoints(straight)]
    assert not list((killed / "checkpoints").glob(".*")), "what the kills left half written is gone"
    assert json.loads((killed / "run.json").read_text())["status"] == "completed"
    assert (killed / "report" / "loss.png").exists()


# --- disk full ---------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_not_the_run(workbench, monkeypatch, capsys):
    calls, save_file = [], model_file.save_file

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_file(*args, **kwargs)

    monkeypatch.setattr(model_file, "save_file", sometimes)
    assert workbench.pretrain("--run_name=full", "--save_every=2", "--keep_last=0", "--eval_every=0") is None
    run_dir = workbench.out / "full"
    assert [p.name for p in list_checkpoints(run_dir)] == ["step_000002", "step_000006"]
    said = (run_dir / "log.txt").read_text()
    assert "could not save" in said and "No space left on device" in said and "Training goes on" in said


def test_a_disk_that_stays_full_is_an_error_at_the_end_and_older_checkpoints_stay(workbench, monkeypatch):
    assert workbench.pretrain("--run_name=full", "--max_steps=3") is None
    kept = find_checkpoint(workbench.out / "full")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(model_file, "save_file", full)
        message = workbench.pretrain("--run_name=full", "--init_from=resume")
    told(message, "could not save", "step_000006", "No space left on device", "free some space")
    load_model(kept)
    assert workbench.pretrain("--run_name=full", "--init_from=resume") is None
    assert find_checkpoint(workbench.out / "full").name == "step_000006"


def test_a_log_that_cannot_be_written_is_an_error_in_one_line(workbench, monkeypatch):
    """The metrics file is on the same full disk."""
    from gpt_core.monitor import jsonl

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jsonl.JsonlSink, "log", full)
    told(workbench.pretrain("--run_name=full"), "No space left on device")


# --- data --------------------------------------------------------------------------------------------------------


def shard(workbench, split="train"):
    return workbench.data / f"{split}_000000.bin"


def describe(workbench, **changes):
    path = workbench.data / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(workbench):
    data = shard(workbench).read_bytes()
    shard(workbench).write_bytes(data[: len(data) // 2])


def cut_a_byte(workbench):
    shard(workbench).write_bytes(shard(workbench).read_bytes()[:-1])


def empty(workbench):
    shard(workbench).write_bytes(b"")


def remove(workbench):
    shard(workbench, "val").unlink()


def too_large_ids(workbench):
    """Same length, but ids the tokenizer does not have: as from another tokenizer, or a flipped disk block."""
    ids = np.frombuffer(shard(workbench).read_bytes(), dtype="<u2").copy()
    ids[:] = 999
    shard(workbench).write_bytes(ids.tobytes())


DATA_FAULTS = {
    "truncated": (truncate, ["train_000000.bin"]),
    "cut": (cut_a_byte, ["train_000000.bin"]),
    "empty": (empty, ["train_000000.bin"]),
    "missing": (remove, ["val_000000.bin"]),
    "ids": (too_large_ids, ["999", "17"]),
    "dtype": (lambda w: describe(w, dtype="uint32"), ["train_000000.bin"]),
    "unknown-dtype": (lambda w: describe(w, dtype="int7"), ["int7"]),
    "no-json": (lambda w: (w.data / "dataset.json").write_text("{"), ["dataset.json"]),
    "empty-json": (lambda w: (w.data / "dataset.json").write_text(""), ["dataset.json"]),
    "no-tokenizer": (lambda w: shutil.rmtree(w.data / "tokenizer"), ["tokenizer"]),
    "gone": (lambda w: shutil.rmtree(w.data), ["tiny"]),
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_damaged_data_is_named(workbench, fault):
    damage, parts = DATA_FAULTS[fault]
    damage(workbench)
    told(workbench.pretrain("--run_name=x"), *parts)


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(shared_workbench):
    assert shared_workbench.pretrain("--run_name=finished") is None
    return shared_workbench.out / "finished"


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "meta.json", "state/shard-00001-model-00001-of-00001.safetensors", "state/rank_0.json"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_still_works(shared_workbench, finished, name):
    run_dir = shared_workbench.out / f"damaged-{name.replace('/', '-')}"
    shutil.copytree(finished, run_dir, symlinks=True)
    path = run_dir / "checkpoints" / "step_000006" / name
    resume = [f"--run_name={run_dir.name}", "--init_from=resume", "--max_steps=8"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told(shared_workbench.pretrain(*resume), "step_000006", "checkpoint")
    path.unlink()
    told(shared_workbench.pretrain(*resume), "step_000006", "checkpoint")
    (run_dir / "checkpoints" / "latest").unlink()
    (run_dir / "checkpoints" / "latest").symlink_to("step_000003")
    assert shared_workbench.pretrain(*resume) is None


def test_what_does_not_exist_is_told_with_what_does(shared_workbench, finished):
    run = shared_workbench.pretrain
    told(run("--run_name=typo", "--init_from=resume"), "typo", "none", "finished")
    told(run("--init_from=latest", "--project_name=nobody"), "nobody-", "finished")
    told(run("--run_name=finished"), "already holds", "--init_from=resume", "--general.run_name")
    told(run("--run_name=y", "--init_from=nowhere/at/all"), "nowhere/at/all", "finished")
    told(run("--run_name=y", "--init_from=resum"), "resum", "resume")
    told(run("--run_name=y", f"--init_from={shared_workbench.folder}"), str(shared_workbench.folder))


def test_a_run_does_not_continue_as_something_else(shared_workbench, finished):
    run_dir = shutil.copytree(finished, shared_workbench.out / "other", symlinks=True)
    resume = ["--run_name=other", "--init_from=resume", "--max_steps=9"]
    told(shared_workbench.pretrain(*resume, "--batch_size=5", "--global_batch_size=5"), "after 48 rows", "divides it")
    told(shared_workbench.pretrain(*resume, "--seed=4"), "seed")
    assert shared_workbench.pretrain(*resume, "--n_embd=32") is None, "the architecture is the checkpoint's"
    assert "n_embd stays 16" in (run_dir / "log.txt").read_text()
    another = ["--model.module=gpt_core.models.plugins.nanogpt", "--model.module_kwargs._inherit=false"]
    told(shared_workbench.pretrain(*resume, *another), "plugins.nanogpt", "gpt_core.models.gpt", "config.yaml")
    begin = ["--run_name=begun", "--init_from=finished", *another]  # it could never be resumed
    told(shared_workbench.pretrain(*begin), "plugins.nanogpt", "set model.module to gpt_core.models.gpt")


# --- typing errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--max_itrs=3"], ["max_itrs", "max_iters"]),
        (["--training.max_stps=3"], ["max_stps", "max_steps"]),
        (["--training.max_steps=many"], ["max_steps", "many"]),
        (["--general.compile=blocks"], ["compile", "blocks", "block"]),
        (["--general.device=gpu"], ["gpu"]),
        (["--general.dtype=fp8"], ["fp8", "bfloat16"]),
        (["--parallel.strategy=ddp"], ["ddp", "one process"]),
        (["--optimizer.module=gpt_optim.adamv"], ["adamv", "adamw"]),
        (["--n_head=3"], ["3", "16"]),
        (["--training.global_batch_size=8", "--gradient_accumulation_steps=2"], ["twice"]),
        (["--training.context_length=4000"], ["4000"]),
        (["--log_every=0"], ["log_every"]),
        (["--eval_iters=0"], ["eval_iters"]),
        (["--keep_last=-1"], ["keep_last"]),
        (["--device_batch_size=0"], ["device_batch_size"]),
        (["--threads=0"], ["threads"]),
        (["--temperature=-1"], ["generate.temperature"]),
        (["--init_from=out/nothing", "--data.module_kwargs.dataset=neither"], ["out/nothing"]),
        (["--max_steps=-1", "--warmup_iters=0"], ["max_steps"]),
        (["--dtype=float16", "--scaler.module=gpt_core.training.keller_scaler"], ["float16"]),
    ],
)
def test_a_typing_error_is_one_line_before_anything_is_written(shared_workbench, arguments, parts):
    message = shared_workbench.pretrain("--run_name=typing", *arguments)
    told_on_lines(message, *parts)
    assert not (shared_workbench.out / "typing").exists()


def told_on_lines(message, *parts):
    """Several mistakes may take several lines."""
    assert isinstance(message, str) and message.startswith("error: ") and "Traceback" not in message, message
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"


def test_a_diverging_run_ends_with_a_diagnosis_and_its_checkpoints(workbench):
    message = workbench.pretrain(
        "--run_name=x", "--learning_rate=1e30", "--grad_clip=0", "--warmup_iters=0", "--max_steps=60",
        "--max_nonfinite_steps=4", "--save_every=1", "--beta2=0.1",
    )  # fmt: skip
    told(message, "4 steps in a row", "learning rate")
    run_dir = workbench.out / "x"
    assert json.loads((run_dir / "run.json").read_text())["status"] == "failed"
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"metrics.jsonl has {name}"))
    model = load_model(list_checkpoints(run_dir)[0])
    load_weights(model, list_checkpoints(run_dir)[0])


RUN = "import runpy, sys; sys.argv = argv; runpy.run_path(argv[0], run_name='__main__')"


def test_an_error_ends_the_process_with_one_and_no_traceback(workbench, fork):
    argv = [str(ROOT / "apps/pretrain"), *workbench.arguments("--max_itrs=3")]
    done = fork(workbench.folder, exec, RUN, {"argv": argv})
    assert done.code == 1
    assert "max_iters" in done.stderr and "Traceback" not in done.stderr and not done.stdout
