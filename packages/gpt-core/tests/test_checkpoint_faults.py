"""Saving that fails leaves the older checkpoints; reading what is damaged says which file and what to do."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from gpt_core.checkpoint import CheckpointError, atomic, find_checkpoint, list_checkpoints, model_file, training_state
from gpt_core.checkpoint.log import append_log, read_log
from gpt_core.checkpoint.training_state import load_checkpoint, save_checkpoint
from gpt_core.distributed import Distributed

MODEL = {"module": "gpt_core.models.gpt", "module_kwargs": {}}


def save(state, run_dir):
    return save_checkpoint(
        Path(run_dir),
        state.step,
        model=state.model,
        optimizer=state.optimizer,
        data=state.data,
        meta={"model": MODEL, **state.meta()},
        distributed=Distributed(),
    )


def load(folder, state):
    return load_checkpoint(
        folder, model=state.model, optimizer=state.optimizer, data=state.data, distributed=Distributed()
    )


def contents(run_dir):
    """Every file, link and folder, hidden ones too."""
    paths = sorted((run_dir / "checkpoints").rglob("*"))
    return {str(p): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture
def run(toys, tmp_path):
    """A state one step past a good checkpoint."""
    state = toys.state()
    toys.train(state, 2)
    save(state, tmp_path)
    state.status = "running"
    return toys.train(state, 3)


# --- writing -----------------------------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def safetensors_error(*args, **kwargs):
    from safetensors import SafetensorError

    raise SafetensorError("I/O error: No space left on device (os error 28)")


WRITE_POINTS = {
    "folder": (Path, "mkdir", no_space),
    "weights": (model_file, "save_file", safetensors_error),
    "weights-os": (model_file, "save_file", no_space),
    "meta": (Path, "write_text", no_space),
    "optimizer": (training_state, "_write_state", no_space),
    "rank": (training_state.json, "dump", no_space),
    "fsync": (os, "fsync", no_space),
    "rename": (Path, "rename", no_space),
}


@pytest.mark.parametrize("point", WRITE_POINTS)
def test_a_save_that_fails_leaves_what_was_there_and_says_why(run, tmp_path, monkeypatch, point):
    before = contents(tmp_path)
    owner, name, fail = WRITE_POINTS[point]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(CheckpointError, match=r"could not save .*step_000003: .*No space left on device") as caught:
            save(run, tmp_path)
    assert "Earlier checkpoints are intact" in str(caught.value) and "GB are free" in str(caught.value)
    assert contents(tmp_path) == before, "nothing half written may stay, nothing older may go"
    save(run, tmp_path)  # and the next one works
    assert find_checkpoint(tmp_path).name == "step_000003"


@pytest.mark.parametrize("point", ["weights", "fsync", "rename"])
def test_saving_a_step_again_never_loses_the_one_before(run, tmp_path, monkeypatch, point):
    run.step = 2
    before = contents(tmp_path)
    owner, name, fail = WRITE_POINTS[point]
    if point == "rename":  # the first moves the old folder aside, the second is the one that fails
        original, calls = Path.rename, []

        def fail(self, target):
            calls.append(target)
            return no_space() if len(calls) == 2 else original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(CheckpointError, match="No space left"):
            save(run, tmp_path)
    assert contents(tmp_path) == before


def test_the_link_that_fails_leaves_a_whole_checkpoint(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", no_space)
        with pytest.raises(CheckpointError, match="No space left"):
            save(run, tmp_path)
    for folder in list_checkpoints(tmp_path):
        load(folder, run)
    assert find_checkpoint(tmp_path).is_dir()


def test_the_log_is_whole_when_it_cannot_be_rewritten(tmp_path, monkeypatch):
    append_log(tmp_path, tmp_path / "checkpoints" / "step_000001", {"step": 1})
    before = read_log(tmp_path)
    for name in ("fsync", "write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync", no_space) if name == "fsync" else (Path, "write_text", no_space)))
            with pytest.raises(OSError, match="No space"):
                append_log(tmp_path, tmp_path / "checkpoints" / "step_000002", {"step": 2})
    assert read_log(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_log.yaml"]


def test_a_data_position_that_is_no_json_is_an_error_not_a_half_checkpoint(run, tmp_path):
    run.data.state_dict = lambda: {"position": torch.ones(1)}
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="not JSON serializable"):
        save(run, tmp_path)
    assert contents(tmp_path) == before


FULL_DISK = """
import resource, signal
import torch
from gpt_core.checkpoint import CheckpointError, find_checkpoint, load_weights
from gpt_core.checkpoint.training_state import save_checkpoint
from gpt_core.distributed import Distributed

class Data:
    def state_dict(self): return {}

model = torch.nn.Linear(128, 128)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 128)).sum().backward()
optimizer.step()
save = lambda step: save_checkpoint(run_dir, step, model=model, optimizer=optimizer, data=Data(), meta={},
                                    distributed=Distributed())
save(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (10_000, 100_000):  # the weights (66 kB) are cut; they fit, the optimizer's state (132 kB) does not
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(2)
    except CheckpointError as error:
        print("refused:", error)
    assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["latest", "step_000001"]
    load_weights(model, find_checkpoint(run_dir))
"""


def test_a_file_that_the_system_cuts_off_is_not_a_checkpoint(tmp_path, fork):
    """The real thing: the system refuses to write on (a limit on file size stands for a full disk)."""
    done = fork(tmp_path, exec, FULL_DISK, {"run_dir": tmp_path})
    assert done.code == 0, done.stderr
    first, second = done.stdout.splitlines()  # one line each
    assert all("could not save" in line and "File too large" in line for line in (first, second))


# --- reading -----------------------------------------------------------------------------------------------------


def damaged(folder, name, keep):
    """Truncate a file of a checkpoint to a share of its size."""
    path = next(folder.glob(name))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    return path


FILES = ["model.safetensors", "meta.json", "state/*.safetensors", "state/rank_0.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.98])
def test_a_truncated_file_is_named(toys, run, tmp_path, name, keep):
    folder = find_checkpoint(tmp_path)
    path = damaged(folder, name, keep)
    where = path.name if "state/*" not in name else "state"
    with pytest.raises(CheckpointError, match=f"{where}.*(damaged|incomplete).*use another checkpoint of the run"):
        load(folder, toys.state())


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(toys, run, tmp_path, name):
    """Above all the optimizer's: training on without its moments would look like a resume and be none."""
    folder = find_checkpoint(tmp_path)
    path = next(folder.glob(name))
    path.unlink()
    where = path.name if "state/*" not in name else "state"
    with pytest.raises(CheckpointError, match=where):
        load(folder, toys.state())


def test_a_state_folder_that_is_gone_is_named(toys, run, tmp_path):
    folder = find_checkpoint(tmp_path)
    shutil.rmtree(folder / "state")
    with pytest.raises(CheckpointError, match="state"):
        load(folder, toys.state())


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"format": 99}', "\x00" * 40])
def test_a_meta_file_of_another_kind_is_named(toys, run, tmp_path, text):
    folder = find_checkpoint(tmp_path)
    (folder / "meta.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"meta\.json"):
        load(folder, toys.state())


@pytest.mark.parametrize("text", ["{}", '{"data": {}}', "[]"])
def test_a_rank_file_of_another_kind_is_named(toys, run, tmp_path, text):
    folder = find_checkpoint(tmp_path)
    (folder / "state" / "rank_0.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"rank_0\.json is damaged"):
        load(folder, toys.state())


def test_weights_with_flipped_header_bytes_are_named(toys, run, tmp_path):
    folder = find_checkpoint(tmp_path)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[:8] = (2**40).to_bytes(8, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(folder, toys.state())


def test_optimizer_state_of_parameters_that_are_not_there_is_refused(toys, run, tmp_path):
    folder = find_checkpoint(tmp_path)
    other = toys.state(n_layer=1)
    save(toys.train(other, 1), tmp_path / "other")
    shutil.copy(find_checkpoint(tmp_path / "other") / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.1"):
        load(folder, toys.state(n_layer=1))


def test_a_loader_that_refuses_its_position_is_heard(toys, run, tmp_path):
    with pytest.raises(ValueError, match="seed = 0, the loader has 7"):
        load(find_checkpoint(tmp_path), toys.state(data=toys.Loader(seed=7)))


def test_publishing_an_unfinished_write_does_not_replace_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic.writing(path) as new:
        new.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    with atomic.writing(path) as new:
        new.write_text("new")
    assert path.read_text() == "new"
