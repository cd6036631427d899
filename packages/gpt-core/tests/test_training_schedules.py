"""Schedules of momentum and weight decay in the loop: per group, from the base values, and after a resume."""

import pytest
import torch

from gpt_core.checkpoint.training_state import load_checkpoint, save_checkpoint
from gpt_core.distributed import Distributed
from gpt_core.training import Hook
from gpt_core.training.schedules import GroupSchedules


class Options(Hook):
    """Momentum and weight decay of each group, with which each step was taken."""

    def __init__(self):
        self.steps = []

    def on_step(self, state):
        groups = state.optimizer.param_groups
        self.steps.append([(group.get("momentum"), group["weight_decay"]) for group in groups])


def sgd(model):
    matrices, vectors = [[p for p in model.parameters() if (p.dim() >= 2) == big] for big in (True, False)]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.5)


def momentum(step):
    return 0.8 + 0.01 * step


def decay(step):
    return 1 - step / 10


BOTH = {"momentum_schedule": momentum, "weight_decay_schedule": decay}


def running(state):
    state.status = "running"
    return state


def restored(saved, state, run_dir):
    """`state` as a checkpoint of `saved` has it."""
    parts = [{"model": s.model, "optimizer": s.optimizer, "data": s.data} for s in (saved, state)]
    folder = save_checkpoint(run_dir, saved.step, meta=saved.meta(), distributed=Distributed(), **parts[0])
    state.restore(load_checkpoint(folder, distributed=Distributed(), **parts[1]))
    return state


def test_each_step_has_its_momentum_and_its_share_of_the_groups_decay(toys):
    seen, state = Options(), toys.state(optimizer=sgd)
    toys.train(state, 4, hooks=[seen], **BOTH)
    for step, groups in enumerate(seen.steps):
        value = pytest.approx(momentum(step))
        assert groups == [(value, pytest.approx(0.2 * decay(step))), (value, 0.0)]
    toys.train(running(state), 6, hooks=[seen], **BOTH)
    assert seen.steps[5][0] == (pytest.approx(0.85), pytest.approx(0.2 * 0.5)), "the base is not eaten up"


def test_the_steps_are_those_of_an_optimizer_with_these_options(toys):
    """One step of the loop at a time, with the options set by hand."""
    scheduled, by_hand = toys.state(optimizer=sgd), toys.state(optimizer=sgd)
    toys.train(scheduled, 3, **BOTH)
    for step in range(3):
        matrices, vectors = by_hand.optimizer.param_groups
        matrices["momentum"] = vectors["momentum"] = momentum(step)
        matrices["weight_decay"] = 0.2 * decay(step)
        toys.train(running(by_hand), step + 1)
    assert all(map(torch.equal, scheduled.model.parameters(), by_hand.model.parameters()))
    plain = toys.train(toys.state(optimizer=sgd), 3)
    assert not all(map(torch.equal, scheduled.model.parameters(), plain.model.parameters()))


def test_without_schedules_groups_keep_what_they_have(toys):
    seen, state = Options(), toys.state(optimizer=sgd)
    toys.train(state, 2, hooks=[seen])
    assert seen.steps == [[(0.5, 0.2), (0.5, 0.0)]] * 2
    assert "initial_weight_decay" not in state.optimizer.param_groups[0]


def test_a_resumed_run_goes_on_with_the_schedules(toys, tmp_path):
    whole, first = toys.train(toys.state(optimizer=sgd), 6, **BOTH), toys.train(toys.state(optimizer=sgd), 3, **BOTH)
    state = restored(first, toys.state(optimizer=sgd, seed=5), tmp_path)
    seen = Options()
    toys.train(state, 6, hooks=[seen], **BOTH)
    assert seen.steps[0][0] == (pytest.approx(0.83), pytest.approx(0.2 * 0.7))
    assert all(map(torch.equal, whole.model.parameters(), state.model.parameters()))


def test_on_a_resume_the_decay_is_that_of_the_configuration(toys, tmp_path):
    """As other hyper-parameters are: a checkpoint does not bring back the base value of its run."""
    first = toys.train(toys.state(optimizer=sgd), 3, **BOTH)
    state = toys.state(optimizer=sgd)
    state.optimizer.param_groups[0]["weight_decay"] = 0.4
    restored(first, state, tmp_path)
    seen = Options()
    toys.train(state, 4, hooks=[seen], **BOTH)
    assert seen.steps == [[(pytest.approx(0.83), pytest.approx(0.4 * 0.7)), (pytest.approx(0.83), 0.0)]]


def test_groups_without_the_option_are_left_alone(toys):
    optimizer = sgd(toys.gpt())
    del optimizer.param_groups[1]["momentum"], optimizer.param_groups[1]["weight_decay"]
    schedules = GroupSchedules(optimizer, lambda step: 0.5, momentum, decay)
    assert schedules.set(1) == pytest.approx(0.05)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.81)
    assert not {"momentum", "weight_decay", "initial_weight_decay"} & optimizer.param_groups[1].keys()


@pytest.mark.parametrize(
    ("options", "schedules", "message"),
    [
        ({}, {"momentum_schedule": momentum}, "momentum_scheduler.*no group of AdamW has a momentum.*null"),
        ({"weight_decay": 0.0}, {"weight_decay_schedule": decay}, "no group of AdamW decays.*null"),
    ],
)
def test_a_schedule_of_what_no_group_has_is_refused(toys, options, schedules, message):
    state = toys.state(optimizer=lambda model: torch.optim.AdamW(model.parameters(), **options))
    with pytest.raises(ValueError, match=message):
        toys.train(state, 1, **schedules)
    assert state.step == 0
