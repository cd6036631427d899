"""What a checkpoint holds, how it is found, and that it comes back equal."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from gpt_core.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_model,
    load_weights,
    newest_run,
    read_meta,
    save_model,
)
from gpt_core.checkpoint.log import append_log, read_log
from gpt_core.checkpoint.model_file import weights_of
from gpt_core.checkpoint.optimizer_state import optimizer_options, restore_optimizer
from gpt_core.checkpoint.training_state import load_checkpoint, prune, save_checkpoint
from gpt_core.distributed import Distributed
from gpt_core.training import ModelWithLoss, autoregressive, keller_scaler
from gpt_core.training.parallel import checkpoint_activations

MODEL = {
    "module": "gpt_core.models.gpt",
    "module_kwargs": {
        "vocab_size": 17,
        "context_length": 8,
        "preset": "gpt2_pre",
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
    },
}


def save(state, run_dir, step=None, **meta):
    return save_checkpoint(
        Path(run_dir),
        state.step if step is None else step,
        model=state.model,
        optimizer=state.optimizer,
        data=state.data,
        meta={"model": MODEL, **state.meta(), **meta},
        distributed=Distributed(),
    )


def load(folder, state):
    return load_checkpoint(
        folder, model=state.model, optimizer=state.optimizer, data=state.data, distributed=Distributed()
    )


@pytest.fixture
def trained(toys):
    state = toys.state()
    return toys.train(state, 3)


# --- contents ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_what_its_page_says_and_nothing_that_is_unpickled(trained, tmp_path):
    folder = save(trained, tmp_path, val_loss=2.5)
    assert folder == tmp_path / "checkpoints" / "step_000003"
    assert sorted(p.name for p in folder.iterdir()) == ["meta.json", "model.safetensors", "state"]
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.suffix in (".json", ".safetensors"), f"{path} is neither JSON nor safetensors"
            head = path.read_bytes()[:2]
            assert head not in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK"), f"{path} is a pickle or a zip"
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name, path=path: pytest.fail(f"{path}: {name}"))
    meta = read_meta(folder)
    assert (meta["format"], meta["step"], meta["val_loss"], meta["model"]) == (1, 3, 2.5, MODEL)
    assert meta["tokens"] == trained.tokens and meta["scaler"] == {}
    assert meta["versions"]["torch"] == torch.__version__ and "gpt-core" in meta["versions"]


def test_links_are_relative_so_a_run_folder_can_be_moved(trained, tmp_path):
    save(trained, tmp_path / "run")
    link = tmp_path / "run" / "checkpoints" / "latest"
    assert os.readlink(link) == "step_000003"
    (tmp_path / "run").rename(tmp_path / "moved")
    assert find_checkpoint(tmp_path / "moved") == (tmp_path / "moved" / "checkpoints" / "step_000003").resolve()


def test_load_model_rebuilds_the_model(toys, trained, tmp_path):
    folder = save(trained, tmp_path)
    model = load_model(folder)
    ids = torch.arange(8)[None]
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(ids), trained.model.eval()(ids))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model, other = Tied(), Tied()
    save_model(tmp_path, model, {"model": MODEL})
    assert list(load_file(tmp_path / "model.safetensors")) == ["embed.weight"]
    load_weights(other, tmp_path)
    assert other.head.weight is other.embed.weight
    assert torch.equal(other.head.weight, model.head.weight)


def wrapped(model, kind):
    if kind == "compiled":
        return torch.compile(model, backend="eager")
    if kind == "compiled-blocks":
        for i, block in enumerate(model.blocks):
            model.blocks[i] = torch.compile(block, backend="eager")
        return model
    if kind == "checkpointed":
        checkpoint_activations(model)
        return model
    if kind == "ddp-like":  # what DDP and compile(DDP) do to names, without a process group
        outer = nn.Module()
        outer.module = model
        return torch.compile(outer, backend="eager")
    assert kind == "compile-in-place"
    for block in model.blocks:
        block.compile(backend="eager")
    return model


KINDS = ["compiled", "compiled-blocks", "checkpointed", "ddp-like", "compile-in-place"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrappers_leave_no_trace_in_names(toys, tmp_path, kind):
    plain = toys.gpt()
    names, expected = sorted(weights_of(plain)), {k: v.clone() for k, v in plain.state_dict().items()}
    model = wrapped(plain, kind)
    save_model(tmp_path, model, {"model": MODEL})
    stored = load_file(tmp_path / "model.safetensors")
    assert sorted(stored) == names
    assert all(torch.equal(stored[name], expected[name]) for name in stored)
    load_model(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_can_be_loaded_into_a_wrapped_model(toys, tmp_path, kind):
    source = toys.gpt(seed=1)
    save_model(tmp_path, source, {"model": MODEL})
    target = toys.gpt(seed=2)
    load_weights(wrapped(target, kind), tmp_path)
    for (name, a), (_, b) in zip(source.named_parameters(), target.named_parameters(), strict=True):
        assert torch.equal(a, b), f"{name} was not loaded"


@pytest.mark.parametrize("before", [False, True])
def test_optimizer_state_survives_wrapping_with_activation_checkpointing(toys, tmp_path, before):
    """Saved with the wrapper and read without, and the other way round."""
    first, second = toys.state(), toys.state(seed=3)
    checkpoint_activations((first if before else second).model)
    toys.train(first, 2)
    load(save(first, tmp_path), second)
    for p, q in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)
        for key, value in first.optimizer.state[p].items():
            assert torch.equal(value, second.optimizer.state[q][key])


def test_scaler_state_is_part_of_it(toys, tmp_path):
    from gpt_core.training import amp_grad_scaler

    def new():
        return toys.state(scaler=amp_grad_scaler(1.0, dtype=torch.float16, device_type="cpu"))

    state = new()
    state.scaler.scale(torch.ones(()))
    state.scaler.scaler.update(1024.0)
    resumed = new()
    resumed.restore(load(save(state, tmp_path), resumed))
    assert resumed.scaler.scale(torch.ones(())) == 1024.0


def test_a_loss_that_is_not_a_number_can_be_recorded(trained, tmp_path):
    """A diverged run must still be able to save; JSON has no NaN."""
    trained.best_val_loss, trained.val_loss, trained.val_step = 2.0, math.nan, trained.step
    meta = read_meta(save(trained, tmp_path))
    assert meta["val_loss"] is None and meta["best_val_loss"] == 2.0


# --- optimizer ---------------------------------------------------------------------------------------------------


def test_rates_and_decay_may_change_on_resume_counters_do_not(toys, trained, tmp_path):
    trained.optimizer.param_groups[0]["counter"] = 7
    folder = save(trained, tmp_path)
    resumed = toys.state(optimizer=lambda m: toys.adamw(m, lr=0.5, betas=(0.1, 0.2)))
    load(folder, resumed)
    group = resumed.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["counter"]) == (0.5, (0.1, 0.2), 7)


@pytest.mark.parametrize(
    ("regroup", "message"),
    [
        (lambda m: torch.optim.AdamW(m.parameters()), "2 parameter groups, the optimizer 1"),
        (
            lambda m: torch.optim.AdamW(
                [{"params": [p for p in m.parameters() if p.dim() < 2]}, {"params": [m.embed.weight]}]
            ),
            "groups the parameters differently",
        ),
    ],
)
def test_another_grouping_is_refused(toys, trained, tmp_path, regroup, message):
    folder = save(trained, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load(folder, toys.state(optimizer=regroup))


def test_an_optimizer_of_another_model_is_a_plain_error(toys, trained, tmp_path):
    trained.optimizer = toys.adamw(toys.gpt())
    with pytest.raises(ValueError, match="not the model's"):
        save(trained, tmp_path)


def test_step_counters_of_fused_optimizers_live_with_their_parameters(toys):
    """Fused kernels on a GPU read the counter on the device; meta stands for it here."""
    model = toys.gpt().to("meta")
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.param_groups[0]["fused"] = True
    tensors = {f"{name}/step": torch.ones(()) for name, _ in model.named_parameters()}
    restore_optimizer(model, optimizer, tensors, optimizer_options(model, optimizer))
    assert {state["step"].device.type for state in optimizer.state.values()} == {"meta"}
    optimizer.param_groups[0]["fused"] = False
    restore_optimizer(model, optimizer, tensors, optimizer_options(model, optimizer))
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cpu"}


def test_a_state_that_is_no_tensor_survives(toys, tmp_path):
    state = toys.state(scaler=keller_scaler(1.0, torch.float32))
    parameter = state.model.embed.weight
    state.optimizer.state[parameter] = {"count": 3, "moment": torch.ones(2, 3), "nothing": None}
    resumed = toys.state()
    load(save(state, tmp_path), resumed)
    restored = resumed.optimizer.state[resumed.model.embed.weight]
    assert restored["count"] == 3 and restored["nothing"] is None
    assert torch.equal(restored["moment"], torch.ones(2, 3))


# --- finding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "found"), [("latest", 12), ("best", 3), ("step_000007", 7), ("7", 7), ("000012", 12)])
def test_a_checkpoint_is_found_by_any_of_its_names(tmp_path, name, found):
    fake_run(tmp_path, [3, 7, 12], latest=12, best=3)
    assert find_checkpoint(tmp_path, name).name == f"step_{found:06d}"


def fake_run(run_dir, steps, latest=None, best=None):
    for step in steps:
        (run_dir / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    for name, step in (("latest", latest), ("best", best)):
        if step is not None:
            (run_dir / "checkpoints" / name).symlink_to(f"step_{step:06d}")
    return run_dir


def test_what_is_missing_is_said_with_what_exists(tmp_path):
    fake_run(tmp_path / "a", [3, 7], latest=7)
    fake_run(tmp_path / "b", [1])
    with pytest.raises(CheckpointError, match=r"no checkpoint 'best'.*step_000003, step_000007"):
        find_checkpoint(tmp_path / "a", "best")
    with pytest.raises(CheckpointError, match=r"no checkpoint '5'"):
        find_checkpoint(tmp_path / "a", "5")
    with pytest.raises(CheckpointError, match=r"checkpoints there: none; runs with checkpoints in .*: (a, b|b, a)"):
        find_checkpoint(tmp_path / "typo")
    with pytest.raises(CheckpointError, match=r"whose name starts with 'x-'.*there are: "):
        newest_run(tmp_path, prefix="x-")
    with pytest.raises(CheckpointError, match="train one first"):
        newest_run(tmp_path / "nothing")


def test_half_written_folders_are_never_seen(tmp_path):
    fake_run(tmp_path, [3], latest=3)
    for name in (".step_000009.partial", ".step_000008.old", "step_9x"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000003"]


@pytest.mark.parametrize("link", [None, 99])
def test_latest_works_when_the_run_was_killed_before_the_link_was_set(tmp_path, link):
    fake_run(tmp_path, [3, 20], latest=link)
    assert find_checkpoint(tmp_path).name == "step_000020"


def test_more_steps_than_six_digits_are_sorted_by_number(tmp_path):
    fake_run(tmp_path, [999_999, 1_000_000, 5])
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000005", "step_999999", "step_1000000"]


def test_newest_run_is_the_one_that_saved_last(tmp_path):
    for i, name in enumerate(("gpt-b", "gpt-a", "other-c")):
        fake_run(tmp_path / name, [1])
        os.utime(tmp_path / name / "checkpoints", (i, i))
    assert newest_run(tmp_path, prefix="gpt-").name == "gpt-a"
    assert newest_run(tmp_path).name == "other-c"


# --- pruning and the log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3, 4, 5]), (1, [2, 5]), (2, [2, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_pruning_keeps_the_newest_and_both_links(tmp_path, keep, left):
    fake_run(tmp_path, range(1, 6), latest=5, best=2)
    gone = prune(tmp_path, keep)
    assert [int(p.name[5:]) for p in list_checkpoints(tmp_path)] == left
    assert len(gone) == 5 - len(left) and not any(p.exists() for p in gone)


def test_after_a_resume_from_an_earlier_step_the_later_ones_go_first(tmp_path):
    """Steps 2 to 8 were there, the run was resumed from the best, 4, and has just saved 5."""
    fake_run(tmp_path, [2, 4, 5, 6, 8], latest=5, best=4)
    assert [p.name for p in prune(tmp_path, 2)] == ["step_000006", "step_000008", "step_000002"]
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000004", "step_000005"]


def test_pruning_clears_what_a_kill_left_behind(tmp_path):
    fake_run(tmp_path, [1, 2], latest=2)
    for name in (".step_000001.old", ".step_000003.partial"):
        (tmp_path / "checkpoints" / name / "state").mkdir(parents=True)
    prune(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["latest", "step_000001", "step_000002"]


def test_the_log_has_one_entry_per_save_and_forgets_what_a_resume_undid(tmp_path):
    def note(step, val_loss):
        append_log(tmp_path, tmp_path / "checkpoints" / f"step_{step:06d}", {"step": step, "val_loss": val_loss})

    for step, loss in ((2, 3.5), (4, 3.0), (6, None)):
        note(step, loss)
    note(4, 2.5)  # resumed from step 2
    entries = yaml.safe_load((tmp_path / "checkpoint_log.yaml").read_text())
    assert entries == read_log(tmp_path)
    assert [(e["step"], e["val_loss"]) for e in entries] == [(2, 3.5), (4, 2.5)]
    assert entries[1]["path"] == "checkpoints/step_000004"
    assert entries[1]["checkpoint_filepath"] == "checkpoints/step_000004/model.safetensors"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_log.yaml"]


# --- trust -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["os.system", "builtins.eval", "gpt_core.distributed.os.system", "gpt_coreevil.x"])
def test_a_checkpoint_cannot_call_what_is_not_trusted(toys, tmp_path, factory):
    kwargs = {"command": f"touch '{tmp_path}/called'"}
    save_model(tmp_path, toys.gpt(), {"model": {"module": factory, "module_kwargs": kwargs}})
    with pytest.raises(CheckpointError, match=r"outside the trusted packages|is not here"):
        load_model(tmp_path)
    assert not (tmp_path / "called").exists()


def test_what_a_trusted_module_merely_imports_is_not_trusted(toys, tmp_path):
    factory = "gpt_core.checkpoint.model_file.save_file"  # safetensors' function, seen through our module
    save_model(tmp_path, toys.gpt(), {"model": {"module": factory, "module_kwargs": {}}})
    with pytest.raises(CheckpointError, match="outside the trusted packages"):
        load_model(tmp_path)


def test_a_factory_that_is_gone_is_named(toys, tmp_path):
    save_model(tmp_path, toys.gpt(), {"model": {"module": "gpt_core.models.gone", "module_kwargs": {}}})
    with pytest.raises(CheckpointError, match=r"gpt_core\.models\.gone, which is not here"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_name_the_difference(toys, tmp_path):
    save_model(tmp_path, toys.gpt(), {"model": MODEL})
    with pytest.raises(CheckpointError, match=r"unexpected blocks\.1\."):
        load_weights(toys.gpt(n_layer=1), tmp_path)
    with pytest.raises(CheckpointError, match=r"missing blocks\.2\."):
        load_weights(toys.gpt(n_layer=3), tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_weights(toys.gpt(n_embd=32), tmp_path)


def test_the_forward_wrapper_is_not_part_of_the_weights(toys, tmp_path):
    model = toys.gpt()
    ModelWithLoss(model, autoregressive())
    assert sorted(weights_of(model)) == sorted(name for name, _ in model.named_parameters())
