"""Training without the norm of the gradient: who waits for the device, and how a run that has broken ends."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from toys import make_state, run_loop

from gpt_core.distributed import Distributed
from gpt_core.monitor import MFUMeter, Sinks
from gpt_core.training import TrainingDiverged, amp_grad_scaler, autoregressive, plain_scaler
from gpt_core.training.config import CheckpointConfig, EvalConfig, LoggingConfig, TrainingConfig
from gpt_core.training.hooks import Log
from gpt_core.training.run import our_hooks_read_the_clock
from gpt_core.training.state import Hook


@dataclass(frozen=True)
class Waiting(Distributed):
    waits: tuple = ()

    def wait_for_device(self):
        self.waits[0].append(1)


def trained(steps, **options):
    waited, told = [], []

    class Tell(Hook):
        def on_step(self, state):
            told.append((len(waited), state.last.grad_norm, state.last.finite))

    state = make_state(scaler=plain_scaler(0, torch.float32))
    run_loop(state, steps, hooks=[Tell()], ranks=Waiting(waits=(waited,)), **options)
    return state, told


def test_no_norm_is_measured_and_the_weights_are_those_of_an_unclipped_run():
    state, told = trained(3)
    assert [(norm, finite) for _, norm, finite in told] == [(None, True)] * 3
    other = make_state(scaler=amp_grad_scaler(0, dtype=torch.float32, device_type="cpu"))
    run_loop(other, 3)
    assert all(map(torch.equal, state.model.parameters(), other.model.parameters()))


def test_steps_wait_for_the_device_where_the_clock_is_read():
    assert [waits for waits, *_ in trained(5)[1]] == [1, 2, 3, 4, 5]
    assert [waits for waits, *_ in trained(5, clock_is_read=lambda step: step in (2, 5))[1]] == [0, 1, 1, 1, 2]
    waited = []
    run_loop(make_state(), 3, ranks=Waiting(waits=(waited,)), clock_is_read=lambda step: step == 2)
    assert len(waited) == 1, "the norm is waited for, but the update comes after it"


def test_the_clock_is_read_to_report_to_validate_to_save_and_at_the_end():
    def steps(every, hours=0):
        log, validate, save = every
        sections = {
            "training": TrainingConfig(max_steps=9),
            "logging": LoggingConfig(log_every=log),
            "eval": EvalConfig(eval_every=validate),
            "checkpoint": CheckpointConfig(save_every=save, checkpoint_every_hr=hours),
        }
        config = SimpleNamespace(section=sections.__getitem__)
        return [step for step in range(1, 10) if our_hooks_read_the_clock(config, step)]

    assert steps((4, 0, 0)) == [4, 8, 9]
    assert steps((4, 3, 5)) == [3, 4, 5, 6, 8, 9]
    assert steps((4, 0, 0), hours=1) == list(range(1, 10))


class Broken:
    """From its third batch on the loss is NaN."""

    def __init__(self):
        self.loss, self.count, self.calls = autoregressive(), autoregressive().count, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        sums = self.loss(*args, **kwargs)
        return sums._replace(loss=sums.loss * float("nan")) if self.calls > 2 else sums


def test_a_loss_that_is_not_finite_ends_the_run_at_its_report():
    state = make_state(scaler=plain_scaler(0, torch.float32))
    meter = MFUMeter(state.model.config, tokens_per_step=16, device_name="cpu", precision="float32")
    log = Log(LoggingConfig(log_every=2), Sinks([]), Distributed(), meter, 50)
    with pytest.raises(TrainingDiverged, match=r"not finite after step 4, .* saved up to step 2 is good"):
        run_loop(state, 50, hooks=[log], loss=Broken())


@pytest.mark.parametrize(("clip", "dtype"), [(1.0, torch.float32), (0.0, torch.float16)])
def test_what_it_cannot_do_is_refused(clip, dtype):
    with pytest.raises(ValueError, match=r"plain_scaler neither clips nor scales .* use gpt_core.training.amp_grad"):
        plain_scaler(clip, dtype)


def test_an_optimizer_that_averages_gradients_is_not_asked_for_their_norm():
    asked = SimpleNamespace(clip_grad_norm_=lambda norm: pytest.fail("measured"), reduce_gradients=lambda: None)
    assert plain_scaler(0, torch.bfloat16).clip([], asked) is None
