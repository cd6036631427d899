"""Schedules of momentum and weight decay from a configuration: Muon as it was published, stopped and resumed."""

import pytest
import torch
from safetensors.torch import load_file

from gpt_core.checkpoint import find_checkpoint
from gpt_core.checkpoint.model_file import read_meta
from gpt_optim import schedules

MUON = ["--optimizer.module=gpt_optim.muon", "--optimizer.module_kwargs.weight_decay=0.3"]
YAML = """
__include__: tiny.yaml
momentum_scheduler:
  module: gpt_optim.schedules.momentum
  module_kwargs: {warmup_iters: 4, cooldown_iters: 2}
weight_decay_scheduler: {module: gpt_optim.schedules.weight_decay_linear}
"""


@pytest.fixture(scope="module")
def scheduled(shared_workbench):
    """The workbench with scheduled.yaml, and out/whole: its six steps."""
    config = shared_workbench.folder / "scheduled.yaml"
    config.write_text(YAML)
    shared_workbench.scheduled = lambda *arguments: shared_workbench.pretrain(*MUON, *arguments, config=config)
    assert shared_workbench.scheduled("--run_name=whole", "--save_every=3") is None
    return shared_workbench


def groups(run_dir, which="latest"):
    return read_meta(find_checkpoint(run_dir, which))["optimizer"]["groups"]


def test_the_last_step_has_what_the_schedules_say(scheduled):
    momentum = schedules.momentum(warmup_iters=4, max_steps=6, cooldown_iters=2)(5)
    decays = [group["weight_decay"] for group in groups(scheduled.out / "whole")]
    assert {group["momentum"] for group in groups(scheduled.out / "whole")} == {momentum}
    assert momentum not in (0.85, 0.95), "between its ends"
    assert max(decays) == pytest.approx(0.3 * (1 - 5 / 6)) and min(decays) == 0.0
    report = " ".join((scheduled.out / "whole" / "log.txt").read_text().split())
    assert "Momentum scheduler: momentum Weight decay scheduler: weight_decay_linear" in report


def test_a_resumed_run_is_the_run_not_stopped(scheduled):
    stopped = scheduled.out / "stopped"
    stopped.joinpath("checkpoints").mkdir(parents=True)
    for name in ("step_000003", "latest"):
        (stopped / "checkpoints" / name).symlink_to(scheduled.out / "whole" / "checkpoints" / "step_000003")
    assert scheduled.scheduled("--run_name=stopped", "--init_from=resume") is None
    whole, again = (load_file(find_checkpoint(scheduled.out / name) / "model.safetensors") for name in
                    ("whole", "stopped"))  # fmt: skip
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)
    assert groups(stopped) == groups(scheduled.out / "whole")


def test_they_come_from_the_command_line_and_go_again(scheduled):
    chosen = "--momentum_scheduler.module=gpt_optim.schedules.momentum"
    warm = "--momentum_scheduler.module_kwargs.warmup_iters=2"
    assert scheduled.pretrain(*MUON, chosen, warm, "--run_name=line", "--max_steps=2") is None
    assert all(group["momentum"] == pytest.approx(0.9) for group in groups(scheduled.out / "line"))
    off = ["--momentum_scheduler=null", "--weight_decay_scheduler=null", "--run_name=off", "--max_steps=2"]
    assert scheduled.scheduled(*off) is None
    assert {group["momentum"] for group in groups(scheduled.out / "off")} == {0.95}
    assert {group["weight_decay"] for group in groups(scheduled.out / "off")} == {0.0, 0.3}


def test_adamw_has_no_momentum_to_schedule(scheduled):
    chosen = "--momentum_scheduler.module=gpt_optim.schedules.momentum"
    warm = "--momentum_scheduler.module_kwargs.warmup_iters=2"
    told = scheduled.pretrain(chosen, warm, "--run_name=adamw")
    assert "no group of AdamW has a momentum" in told
    assert not (scheduled.out / "adamw").exists()
