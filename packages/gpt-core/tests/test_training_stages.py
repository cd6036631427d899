"""Stages: what holds when, who is told, and a warm-up that leaves no trace."""

import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toys import ToyLoader, make_state, run_loop

from gpt_core.checkpoint import list_checkpoints
from gpt_core.distributed import Distributed
from gpt_core.monitor import Sinks
from gpt_core.training.config import CheckpointConfig
from gpt_core.training.hooks import FollowStages, Save
from gpt_core.training.stages import Stages, StagesConfig
from gpt_core.training.state import Hook

RECORD_68 = StagesConfig(
    durations=(1, 1, 1),
    extension_steps=40,
    device_batch_size=(8, 16, 24),
    max_document=(2048,),
    windows=((1, 3), (3, 7), (5, 11)),
    extension_windows=(6, 13),
    final_windows=(6, 20),
    token_weights=((1, 0.5, 0.25), (1, 0.5), (1,)),
    token_weights_end=((1, 0.5, 0), (1, 0), (1,)),
    lr=(1.0, 1.52, 1.73),
)


@pytest.fixture
def record():
    return Stages(RECORD_68, 1555)


def test_the_stages_of_a_record_begin_where_they_should(record):
    assert record.scheduled == 1515 and record.ends == [505, 1010, 1515] and record.boundaries == [505, 1010]
    assert record.around_boundaries() == [0, 1, 2, 504, 505, 506, 1009, 1010, 1011, 1514, 1515, 1516]
    assert record.around_boundaries(1200) == [1200, 1201, 1202, 1514, 1515, 1516]
    assert record.around_boundaries(1520) == [1520, 1521, 1522] and record.around_boundaries(1554) == [1554]
    assert record.schedule_arguments() == {"max_steps": 1515, "factors": [1.0, 1.52, 1.73], "boundaries": [505, 1010]}


def test_tokens_of_a_record(record):
    of_step = [8 * 2048 * record.at(step).device_batch_size for step in range(1555)]
    parts = [sum(of_step[a:b]) for a, b in ((0, 505), (505, 1010), (1010, 1515), (1515, 1555))]
    assert parts == [66_191_360, 132_382_720, 198_574_080, 15_728_640] and sum(parts) == 412_876_800


@pytest.mark.parametrize(
    ("step", "windows", "yarn"),
    [
        (0, (128, 384), True),
        (504, (128, 384), True),
        (505, (384, 896), True),
        (1010, (640, 1408), True),
        (1514, (640, 1408), True),
        (1515, (768, 1664), True),
        (1554, (768, 1664), True),
        (1555, (768, 2560), False),
    ],
)
def test_windows_of_a_record(record, step, windows, yarn):
    now = record.at(step)
    assert (now.windows, now.yarn) == (windows, yarn)


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        (0, [1, 0.5, 0.25]),
        (250, [1, 0.5, 0.126238]),
        (504, [1, 0.5, 0.000495]),
        (505, [1, 0.5]),
        (680, [1, 0.326733]),
        (1009, [1, 0.000990]),
        (1010, [1]),
        (1554, [1]),
    ],
)
def test_token_weights_of_a_record(record, step, weights):
    assert record.at(step).token_weights == pytest.approx(weights, abs=5e-7)


def test_no_stages_is_no_change():
    none = Stages(StagesConfig(), 100)
    assert not none and none.at(3).windows is None and none.schedule_arguments() == {"max_steps": 100}


def test_one_value_serves_all_stages():
    stages = Stages(StagesConfig(durations=(1, 3), device_batch_size=(4,), token_weights=((1, 0.5),)), 40)
    assert [stages.at(step).device_batch_size for step in (0, 39)] == [4, 4] and stages.ends == [10, 40]
    assert stages.at(39).token_weights == (1, 0.5)


def test_the_optimizer_learns_when_to_untie():
    assert Stages(StagesConfig(durations=(1, 1, 1), untie_last=True), 31).optimizer_arguments() == {"untie_at": 21}
    assert Stages(StagesConfig(durations=(1, 1, 1)), 31).optimizer_arguments() == {}


def test_weights_stay_where_they_are_in_the_extension():
    stages = Stages(
        StagesConfig(durations=(1,), extension_steps=2, token_weights=((1, 0.5),), token_weights_end=((1, 0),)), 10
    )
    assert [stages.at(step).token_weights for step in (4, 8, 9)] == [(1, 0.25), (1, 0), (1, 0)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": ((1, 2),)}, "durations is empty, but stages.windows"),
        ({"extension_steps": 4}, "durations is empty, but stages.extension_steps"),
        ({"untie_last": True}, "durations is empty, but stages.untie_last"),
        ({"durations": (1, 0)}, "positive durations"),
        ({"durations": (1, 1), "lr": (1, 2, 3)}, "stages.lr has 3 values for 2 stages"),
        ({"durations": (1,), "lr": (0,)}, "lr must be positive"),
        ({"durations": (1,), "windows": ((4, 2),)}, "short <= long"),
        ({"durations": (1,), "final_windows": (4, 8)}, "go with stages.windows"),
        ({"durations": (1,), "device_batch_size": (0,)}, "at least 1"),
        ({"durations": (1,), "token_weights": ((1, -1),)}, "none negative"),
        ({"durations": (1,), "token_weights_end": ((1,),)}, "goes with stages.token_weights"),
        ({"durations": (1,), "token_weights": ((1, 1),), "token_weights_end": ((1,),)}, "differ in length"),
    ],
)
def test_stages_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        StagesConfig(**fields)


def test_a_stage_without_a_step_is_refused():
    with pytest.raises(ValueError, match="a stage would have none"):
        Stages(StagesConfig(durations=(1, 1, 1), extension_steps=8), 10)


class Told:
    """A model, a loss and a loader that write down what they are told."""

    def __init__(self):
        self.heard = []

    def set_windows(self, short, long, *, yarn):
        self.heard.append(("windows", short, long, yarn))

    def set_weights(self, weights):
        self.heard.append(("weights", *weights))

    def resize(self, device_batch_size, max_document, max_documents):
        self.heard.append(("sizes", device_batch_size, max_document))


def test_every_part_is_told_before_the_step_and_sizes_only_when_they_change(record):
    told = Told()
    hook = FollowStages(record, told, told, told)
    hook.on_start(SimpleNamespace(step=503))
    hook.on_step(SimpleNamespace(step=504))
    hook.on_step(SimpleNamespace(step=505))
    assert [what for what in told.heard if what[0] == "sizes"] == [("sizes", 8, 2048), ("sizes", 16, 2048)]
    assert [what[1:] for what in told.heard if what[0] == "windows"] == [(128, 384, True)] * 2 + [(384, 896, True)]
    assert told.heard[-2:] == [("weights", 1, 0.5), ("sizes", 16, 2048)]


def test_after_the_last_step_only_the_final_windows_are_new(record):
    told = Told()
    hook = FollowStages(record, told, told, told)
    hook.on_step(SimpleNamespace(step=1555))
    assert told.heard == [("windows", 768, 2560, False), ("weights", 1)]


def test_parts_that_cannot_change_are_refused(record):
    told = Told()
    for parts, message in [
        ((object(), told, told), "object has no set_windows"),
        ((told, object(), told), "object has no set_weights"),
        ((told, told, object()), "object has no resize"),
    ]:
        with pytest.raises(ValueError, match=message):
            FollowStages(record, *parts)


def test_a_model_that_starts_from_another_window_is_refused(record):
    told = Told()
    told.config = SimpleNamespace(window_long=896)
    with pytest.raises(ValueError, match=r"long window of 384 .* one of 896"):
        FollowStages(record, told, told, told)


class Weights(Hook):
    """The tokens of each step."""

    def __init__(self):
        self.tokens = []

    def on_step(self, state):
        self.tokens.append(state.last.tokens)


class GrowingLoader(ToyLoader):
    """Rows of another size after `resize`."""

    rows = 2

    def resize(self, device_batch_size, max_document, max_documents):
        self.rows = device_batch_size

    def __next__(self):
        batch = super().__next__()
        return replace(batch, inputs=batch.inputs[: self.rows], targets=batch.targets[: self.rows])


def test_the_tokens_of_a_step_are_those_of_its_stage():
    stages = Stages(StagesConfig(durations=(1, 1), device_batch_size=(1, 2)), 4)
    loader, seen = GrowingLoader(masked=False), Weights()
    state = make_state(data=loader)
    run_loop(state, 4, hooks=[FollowStages(stages, state.model, None, loader), seen], micro_steps=3)
    length = ToyLoader(masked=False).__next__().inputs.shape[1]
    assert seen.tokens == [3 * length, 3 * length, 6 * length, 6 * length]
    assert state.tokens == sum(seen.tokens)


class Summed:
    """A loss whose gradient is a sum over tokens, one part for each micro-batch."""

    def __init__(self, loss):
        self.loss, self.count = loss, loss.count

    def divisor(self, targets):
        return torch.ones((), dtype=torch.long)

    def __call__(self, *args, **kwargs):
        return self.loss(*args, **kwargs)


class Gradients(Hook):
    def on_gradients(self, state):
        self.found = [p.grad.clone() for p in state.model.parameters()]


def test_a_loss_says_by_what_its_gradient_is_divided():
    from gpt_core.training import autoregressive

    found, losses = {}, {}
    for name, loss in (("mean", autoregressive()), ("sum", Summed(autoregressive()))):
        state, hook = make_state(data=ToyLoader(masked=True)), Gradients()
        run_loop(state, 1, hooks=[hook], micro_steps=4, loss=loss)
        found[name], losses[name] = hook.found, float(state.last.loss_sum) / state.last.count
        count = state.last.count
    assert losses["mean"] == losses["sum"], "what is reported stays a mean per token"
    for mean, total in zip(found["mean"], found["sum"], strict=True):
        torch.testing.assert_close(total, mean * count / 4, rtol=1e-5, atol=1e-6)


class EveryOther(torch.optim.SGD):
    """An optimizer whose second group has its turn at every second step."""

    def __init__(self, model):
        first, *rest = model.parameters()
        super().__init__([{"params": [first]}, {"params": rest, "every": 2}], lr=1e-2)


class StopAfter(Hook):
    def __init__(self, step):
        self.step = step

    def on_step(self, state):
        if state.step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("asked", "stopped"), [(1, 2), (2, 4), (3, 4)])
def test_a_signal_ends_training_where_no_gradients_are_kept(asked, stopped):
    """A request is seen in the step after it."""
    state = make_state(optimizer=EveryOther)
    run_loop(state, 10, hooks=[StopAfter(asked)])
    assert (state.status, state.step) == ("interrupted", stopped)


def test_only_steps_after_which_no_gradients_are_kept_are_saved(tmp_path):
    saved = lambda: sorted(path.name for path in list_checkpoints(tmp_path))
    save = lambda **fields: Save(CheckpointConfig(keep_last=0, **fields), tmp_path, Sinks([]), Distributed(), {})
    state = make_state(optimizer=EveryOther)
    with pytest.raises(ValueError, match=r"save_every is 3, .* use a multiple of 2"):
        run_loop(state, 5, hooks=[save(save_every=3)])
    run_loop(state, 5, hooks=[save(save_every=2)])
    assert saved() == ["step_000002", "step_000004", "step_000005"], "the last one ends the run"
