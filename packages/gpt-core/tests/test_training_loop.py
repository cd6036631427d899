"""The loop: schedules, hooks, non-finite steps, signals; evaluation; a run continued is the run not stopped."""

import copy
import math
import os
import random
import re
import signal
import threading

import numpy as np
import pytest
import torch

from gpt_core.checkpoint.training_state import load_checkpoint, save_checkpoint
from gpt_core.distributed import Distributed
from gpt_core.training import (
    Hook,
    ModelWithLoss,
    TrainingDiverged,
    autoregressive,
    batch_id,
    evaluate,
    keller_scaler,
)
from gpt_core.training.nonfinite import allowed_in_a_row
from gpt_core.training.state import StepResult


class Record(Hook):
    """Names of the calls in `calls`, and the last step's figures in `steps`."""

    def __init__(self, name="", calls=None):
        self.name, self.calls = name, calls if calls is not None else []
        self.steps: list[StepResult] = []

    def on_start(self, state):
        self.calls.append(f"{self.name}start")

    def on_gradients(self, state):
        self.calls.append(f"{self.name}gradients")

    def on_step(self, state):
        self.calls.append(f"{self.name}step{state.step}")
        self.steps.append(copy.copy(state.last))

    def on_end(self, state):
        self.calls.append(f"{self.name}end")

    @property
    def losses(self):
        return [float(s.loss_sum) / s.count for s in self.steps]


class At(Hook):
    """Calls `act(state)` after step `step`."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step(self, state):
        if state.step == self.step:
            self.act(state)


class Poisoned:
    """A loss that is NaN on the given calls of the training mode."""

    def __init__(self, calls, value=math.nan):
        self.calls, self.value, self.called = set(calls), value, 0
        self.inner = autoregressive()

    def count(self, targets):
        return self.inner.count(targets)

    def __call__(self, logits, targets, accuracy=False):
        sums = self.inner(logits, targets, accuracy)
        self.called += 1
        return sums._replace(objective=sums.objective * self.value) if self.called in self.calls else sums


def weights(state):
    return [p.detach().clone() for p in state.model.parameters()]


# --- steps -------------------------------------------------------------------------------------------------------


def test_training_learns_and_says_so(toys):
    state, seen = toys.state(), Record()
    data = toys.Loader(masked=False)
    batch = next(data)
    data.__class__ = type("Same", (toys.Loader,), {"__next__": lambda self: batch})
    state.data = data
    toys.train(state, 30, hooks=[seen])
    assert abs(seen.losses[0] - math.log(toys.VOCAB)) < 0.05, "an untrained model is uniform"
    assert seen.losses[-1] < 0.5 * seen.losses[0]
    assert state.status == "completed" and state.step == 30
    assert state.train_seconds == pytest.approx(sum(s.seconds for s in seen.steps))
    assert all(s.data_seconds <= s.seconds for s in seen.steps)


def test_the_rate_of_a_step_is_base_rate_times_schedule_in_every_group(toys):
    model = toys.gpt()
    groups = [{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(model.parameters())]
    state = toys.state(model, optimizer=lambda _: torch.optim.SGD(groups, lr=1.0))
    rates = []
    toys.train(
        state,
        5,
        schedule=lambda step: 1.0 / (step + 1),
        hooks=[At(s, lambda st: rates.append([g["lr"] for g in st.optimizer.param_groups])) for s in range(1, 6)],
    )
    for step, row in enumerate(rates):
        assert row == pytest.approx([0.1 * (i + 1) / (step + 1) for i in range(len(groups))])
    assert state.last.lr == pytest.approx(0.1 / 5)
    # the base rate is not eaten up: a second call continues the schedule from the same base
    toys.train(_running(state), 6, schedule=lambda step: 1.0 / (step + 1))
    assert state.optimizer.param_groups[1]["lr"] == pytest.approx(0.2 / 6)


def _running(state):
    state.status = "running"
    return state


def test_a_rate_of_zero_changes_nothing(toys):
    state = toys.state()
    before = weights(state)
    toys.train(state, 3, schedule=lambda step: 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))


def test_hooks_are_called_in_order(toys):
    calls = []
    toys.train(toys.state(), 2, hooks=[Record("a-", calls), Record("b-", calls)], micro_steps=2)
    names = ["start", "gradients", "step1", "gradients", "step2", "end"]
    assert calls == [f"{hook}-{name}" for name in names for hook in "ab"]


def test_gradients_shown_to_hooks_are_not_yet_clipped(toys):
    norms, seen = [], Record()

    class Norm(Hook):
        def on_gradients(self, state):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in state.model.parameters()]).item())

    state = toys.state()
    state.scaler.grad_clip = 1e-3
    toys.train(state, 3, hooks=[Norm(), seen])
    assert norms == pytest.approx([s.grad_norm for s in seen.steps], rel=1e-5)
    assert min(norms) > 1e-3


def test_zero_steps_still_start_and_end(toys):
    seen, state = Record(), toys.state()
    toys.train(state, 0, hooks=[seen])
    assert seen.calls == ["start", "end"] and state.status == "completed"


def test_a_step_without_a_single_target_is_an_error(toys):
    class Masked(toys.Loader):
        def __next__(self):
            batch = super().__next__()
            return toys.Batch(batch.inputs, torch.full_like(batch.targets, -1))

    with pytest.raises(ValueError, match=r"step 0: none of its 16 targets counts.*masked"):
        toys.train(toys.state(data=Masked()), 1)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(toys):
    seen = []
    state = toys.state()
    state.model.blocks[0].register_forward_hook(lambda m, i, out: seen.append(torch.is_autocast_enabled("cpu")))
    toys.train(state, 1, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert seen == [True]
    assert all(p.dtype == torch.float32 for p in state.model.parameters())
    assert all(v.dtype == torch.float32 for s in state.optimizer.state.values() for v in s.values())


# --- non-finite steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("scaler", [None, keller_scaler(1.0, torch.float32)])
def test_a_nonfinite_step_is_skipped_and_counted(toys, value, scaler):
    state = toys.state(scaler=scaler)
    snapshots = {}
    hooks = [At(s, lambda st, s=s: snapshots.update({s: weights(st)})) for s in range(1, 7)]
    toys.train(state, 6, loss=Poisoned({3, 5}, value), hooks=hooks)
    assert state.nonfinite_steps == 2 and state.step == 6 and state.status == "completed"
    for step in range(2, 7):
        same = all(torch.equal(a, b) for a, b in zip(snapshots[step - 1], snapshots[step], strict=True))
        assert same == (step in (3, 5))
    assert all(p.isfinite().all() for p in state.model.parameters())


def test_one_poisoned_micro_step_poisons_its_step_alone(toys):
    state = toys.state()
    toys.train(state, 4, loss=Poisoned({3}), micro_steps=2)
    assert state.nonfinite_steps == 1


def test_the_run_stops_after_so_many_in_a_row_with_a_diagnosis(toys):
    state = toys.state()
    with pytest.raises(TrainingDiverged) as caught:
        toys.train(state, 50, loss=Poisoned({2, *range(4, 50)}), max_nonfinite_steps=3)
    assert state.step == 6 and state.nonfinite_steps == 4
    message = str(caught.value)
    for part in ("3 steps in a row", "up to step 6", "1.00e-02", "all parameters are still finite", "norm nan"):
        assert part in message
    assert isinstance(caught.value, ValueError) and "\n" not in message
    data, drawn = toys.Loader(), {}
    for step in range(1, 7):
        drawn[step] = batch_id(next(data))
    named = re.findall(r"step (\d+): learning rate \S+ norm nan, batch (\w+) with loss 2\.8", message)
    assert {int(step): name for step, name in named} == {step: drawn[step] for step in (4, 5, 6)}
    assert len(set(drawn.values())) == 6


def test_the_diagnosis_names_the_micro_batch_whose_loss_broke(toys):
    class Broken:
        """The third micro-batch of every step, for all: its loss, not only its gradient."""

        def __init__(self):
            self.called, self.inner = 0, autoregressive()
            self.count = self.inner.count

        def __call__(self, logits, targets, accuracy=False):
            self.called += 1
            return self.inner(logits * (math.inf if self.called % 4 == 3 else 1), targets, accuracy)

    with pytest.raises(TrainingDiverged) as caught:
        toys.train(toys.state(data=toys.Loader(masked=False)), 9, loss=Broken(), micro_steps=4, max_nonfinite_steps=1)
    data = toys.Loader(masked=False)
    names = [batch_id(next(data)) for _ in range(4)]
    assert f"batch {names[2]} with loss nan)" in str(caught.value)
    assert not any(names[i] in str(caught.value) for i in (0, 1, 3))


def test_float16_may_look_for_its_scale_longer():
    assert [allowed_in_a_row(None, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)] == [3, 3, 20]
    assert allowed_in_a_row(7, torch.float16) == 7


def test_the_diagnosis_names_the_broken_parameters(toys):
    state = toys.state()
    name, parameter = list(state.model.named_parameters())[3]
    parameter.data[0] = math.nan
    with pytest.raises(TrainingDiverged, match=f"non-finite values: {name}"):
        toys.train(state, 9, max_nonfinite_steps=2)


# --- signals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_a_step_boundary(toys, number):
    seen, state = Record(), toys.state()
    before = signal.getsignal(number)
    toys.train(state, 100, hooks=[At(3, lambda _: os.kill(os.getpid(), number)), seen])
    assert state.status == "interrupted"
    assert state.step == 4, "the step after the signal is finished"
    assert seen.calls[-2:] == ["step4", "end"], "hooks see the end, so the state is saved"
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_at_once_a_second_sigterm_does_not(toys):
    def twice(number):
        return lambda _: [os.kill(os.getpid(), n) for n in (signal.SIGINT, number)]

    state = toys.state()
    toys.train(state, 100, hooks=[At(3, twice(signal.SIGTERM))])
    assert state.status == "interrupted"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        toys.train(toys.state(), 100, hooks=[At(3, twice(signal.SIGINT))])
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handlers_come_back_after_an_error(toys):
    before = signal.getsignal(signal.SIGINT)

    def fail(_):
        raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"):
        toys.train(toys.state(), 3, hooks=[At(1, fail)])
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_works(toys):
    state = toys.state()
    thread = threading.Thread(target=lambda: toys.train(state, 2))
    thread.start()
    thread.join()
    assert state.status == "completed"


# --- evaluation --------------------------------------------------------------------------------------------------


def measure(toys, state, data, iterations=3):
    return evaluate(
        ModelWithLoss(state.model, autoregressive()),
        data,
        loss=autoregressive(),
        iterations=iterations,
        distributed=Distributed(),
        autocast=lambda: torch.autocast("cpu", enabled=False),
    )


def all_rng():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_evaluation_is_the_mean_over_targets_and_leaves_no_trace(toys):
    state, data = toys.state(dropout=0.3), toys.Loader(seed=5)
    next(data)
    position, rng = data.state_dict(), all_rng()
    state.model.train()
    first = measure(toys, state, data)
    assert (data.state_dict(), all_rng()) == (position, rng)
    assert state.model.training and all(m.training for m in state.model.modules())
    assert measure(toys, state, data) == first
    assert all(p.grad is None for p in state.model.parameters())

    state.model.eval()
    batches = [next(data) for _ in range(3)]
    with torch.no_grad():
        logits = torch.cat([state.model(b.inputs) for b in batches]).double().flatten(0, 1)
    targets = torch.cat([b.targets for b in batches]).flatten()
    kept = targets != -1
    assert first.targets == kept.sum()
    assert first.loss == pytest.approx(-logits.log_softmax(-1)[kept, targets[kept]].mean().item(), rel=1e-6)
    assert first.accuracy == pytest.approx((logits.argmax(-1) == targets)[kept].double().mean().item())


def test_evaluation_of_nothing_but_masked_targets_is_an_error(toys):
    class Masked(toys.Loader):
        def __next__(self):
            batch = super().__next__()
            return toys.Batch(batch.inputs, torch.full_like(batch.targets, -1))

    with pytest.raises(ValueError, match="no targets"):
        measure(toys, toys.state(), Masked())


def test_evaluating_in_between_does_not_change_training(toys):
    ends = []
    for every in (0, 2):
        state = toys.state(dropout=0.2)
        torch.manual_seed(7)
        hooks = [At(s, lambda st: measure(toys, st, toys.Loader(seed=9))) for s in (2, 4)] if every else []
        toys.train(state, 6, hooks=hooks)
        ends.append(weights(state))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


# --- resume ------------------------------------------------------------------------------------------------------


class SaveAt(Hook):
    def __init__(self, step, run_dir):
        self.step, self.run_dir, self.folder = step, run_dir, None

    def on_step(self, state):
        if state.step == self.step:
            self.folder = save_checkpoint(
                self.run_dir,
                state.step,
                model=state.model,
                optimizer=state.optimizer,
                data=state.data,
                meta=state.meta(),
                distributed=Distributed(),
            )


def everything(state):
    optimizer = [
        (f"{name}/{key}", value)
        for name, parameter in state.model.named_parameters()
        for key, value in sorted(state.optimizer.state[parameter].items())
    ]
    return weights(state), optimizer, all_rng(), state.data.state_dict(), state.scaler.state_dict(), state.tokens


def optimizers(toys):
    return {
        "adamw": toys.adamw,
        "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    }


@pytest.mark.parametrize("name", ["adamw", "sgd", "momentum"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(toys, tmp_path, name, checkpointing):
    """Dropout on, two micro-steps, a schedule, poisoned steps on both sides of the save."""
    from gpt_core.training.parallel import checkpoint_activations

    def new_state():
        state = toys.state(dropout=0.2, optimizer=optimizers(toys)[name])
        if checkpointing:
            checkpoint_activations(state.model)
        return state

    options = {"micro_steps": 2, "schedule": lambda step: 1.0 / (1 + step)}
    straight, seen, save = new_state(), Record(), SaveAt(4, tmp_path)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    toys.train(straight, 9, hooks=[seen, save], loss=Poisoned({3, 13}), **options)

    resumed, again = new_state(), Record()
    torch.manual_seed(99), np.random.rand(3), random.random()
    meta = load_checkpoint(
        save.folder, model=resumed.model, optimizer=resumed.optimizer, data=resumed.data, distributed=Distributed()
    )
    resumed.restore(meta)
    assert (resumed.step, resumed.nonfinite_steps) == (4, 1)
    toys.train(resumed, 9, hooks=[again], loss=Poisoned({13 - 8}), **options)

    assert again.losses == seen.losses[4:]
    assert [s.grad_norm for s in again.steps if s.finite] == [s.grad_norm for s in seen.steps[4:] if s.finite]
    for a, b in zip(everything(straight)[0], everything(resumed)[0], strict=True):
        assert torch.equal(a, b)
    for (k, a), (key, b) in zip(everything(straight)[1], everything(resumed)[1], strict=True):
        assert k == key and (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)
    assert everything(straight)[2:] == everything(resumed)[2:]
    assert resumed.nonfinite_steps == straight.nonfinite_steps == 2
