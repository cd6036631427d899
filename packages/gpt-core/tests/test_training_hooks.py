"""When checkpoints are saved and evaluations made, and what is said of them."""

import errno
import math
import os
import signal

import pytest
import torch

from gpt_core.checkpoint import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    model_file,
    read_meta,
    training_state,
)
from gpt_core.checkpoint.log import read_log
from gpt_core.distributed import Distributed
from gpt_core.monitor import MFUMeter
from gpt_core.training import Evaluation, Hook, autoregressive
from gpt_core.training.config import CheckpointConfig, EvalConfig, LoggingConfig, SampleConfig
from gpt_core.training.hooks import Evaluate, Log, Sample, Save
from gpt_core.training.hooks import save as save_module


class Said:
    """Sinks that remember."""

    def __init__(self):
        self.logged, self.events, self.warnings = [], [], []

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))

    def event(self, kind, data):
        self.events.append((kind, dict(data)))

    def warning(self, message):
        self.warnings.append(message)


class Val:
    batches_per_epoch = 3


class Lab:
    """A run of the toy model with scripted validation losses: {step: loss}."""

    def __init__(self, toys, run_dir, losses=None, **evaluation):
        self.toys, self.run_dir, self.said = toys, run_dir, Said()
        self.losses, self.measured = losses or {}, []
        self.state = toys.state()
        self.evaluation = EvalConfig(**({"eval_every": 1, "at_start": False} | evaluation))

    def measure(self, loader, iterations):
        self.measured.append((self.state.step, loader, iterations))
        return Evaluation(self.losses.get(self.state.step, 9.0), 0.5, 10, bits_per_byte=1.25)

    def run(self, max_steps, hooks=(), test=None, world_size=1, batch_tokens=1, **saving):
        evaluate = Evaluate(self.evaluation, self.said, self.measure, Val, test, world_size, batch_tokens)
        config = CheckpointConfig(**saving)
        save = Save(config, self.run_dir, self.said, Distributed(), {"model": {"module": "m", "module_kwargs": {}}})
        self.state.status = "running"
        return self.toys.train(self.state, max_steps, hooks=[evaluate, save, *hooks])

    @property
    def saved(self):
        return [int(p.name[5:]) for p in list_checkpoints(self.run_dir)]

    def link(self, name):
        return int(os.readlink(self.run_dir / "checkpoints" / name)[5:])


@pytest.fixture
def lab(toys, tmp_path):
    return lambda losses=None, **evaluation: Lab(toys, tmp_path, losses, **evaluation)


# --- saving ------------------------------------------------------------------------------------------------------


def test_every_improvement_is_saved_and_best_points_at_the_last_one(lab):
    made = lab({1: 3.0, 2: 2.0, 3: 2.5, 4: 2.0, 5: 2.4})
    made.run(5, keep_last=0)
    assert made.saved == [1, 2, 5], "two improvements and the end"
    assert (made.link("best"), made.link("latest")) == (2, 5)
    assert [(e["step"], e["val_loss"]) for e in read_log(made.run_dir)] == [(1, 3.0), (2, 2.0), (5, 2.4)]
    assert read_meta(find_checkpoint(made.run_dir))["best_val_loss"] == 2.0


def test_only_so_many_stay_besides_the_best(lab):
    made = lab({2: 1.0})
    made.run(8, save_every=1, keep_last=2)
    assert made.saved == [2, 7, 8]


def test_steps_are_saved_without_evaluation_too(lab):
    made = lab(eval_every=0)
    made.run(7, save_every=3, keep_last=0)
    assert made.saved == [3, 6, 7]
    assert read_meta(find_checkpoint(made.run_dir, "3"))["val_loss"] is None
    assert read_meta(find_checkpoint(made.run_dir, "7"))["val_loss"] == 9.0


def test_best_is_not_kept_where_it_is_not_wanted(lab):
    made = lab({1: 3.0, 2: 2.0})
    made.run(3, checkpoint_keep_best=False, keep_last=0)
    assert made.saved == [3] and not (made.run_dir / "checkpoints" / "best").exists()


@pytest.mark.parametrize(("after", "every", "saved"), [(0.0, 2.0, [2, 4, 6]), (5.0, 2.0, [5, 7]), (0.0, 100.0, [7])])
def test_hours_between_checkpoints(lab, monkeypatch, after, every, saved):
    """A clock that moves one hour per step."""
    made, hours = lab(eval_every=0), iter(range(1000))
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: made.state.step * 3600)})
    monkeypatch.setattr(save_module, "time", clock)
    assert next(hours) == 0
    made.run(7, checkpoint_every_hr=every, checkpoint_after=after, keep_last=0)
    assert made.saved == sorted({*saved, 7})


def test_a_resumed_run_knows_the_best_it_had(lab, toys):
    made = lab({1: 2.0, 2: 3.0, 3: 2.5, 4: 1.5})
    made.run(2, keep_last=0)
    made.run(3, keep_last=0)
    assert made.link("best") == 1
    made.run(4, keep_last=0)
    assert made.link("best") == 4


def test_a_best_that_could_not_be_saved_is_not_another_step_under_its_name(lab, monkeypatch):
    """The disk is full at step 2; step 3 was not evaluated better than what is on disk, step 4 was."""
    made = lab({1: 3.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: 2.0})
    save_file = model_file.save_file

    def full_at_2(*args, **kwargs):
        if made.state.step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_file(*args, **kwargs)

    monkeypatch.setattr(model_file, "save_file", full_at_2)
    made.run(5, keep_last=0)
    assert made.saved == [1, 4, 5] and made.link("best") == 4
    (warning,) = made.said.warnings
    assert "step_000002" in warning and "No space left" in warning and "Training goes on" in warning


def test_the_last_save_must_succeed(lab, monkeypatch):
    made = lab()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_file, "save_file", full)
    with pytest.raises(CheckpointError, match="step_000002"):
        made.run(2)


def test_a_log_that_cannot_be_written_is_a_warning_and_the_next_save_works(lab, monkeypatch):
    made, append = lab(), save_module.append_log

    def full_at_1(*args, **kwargs):
        if made.state.step == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(*args, **kwargs)

    monkeypatch.setattr(save_module, "append_log", full_at_1)
    made.run(3, save_every=1, keep_last=0)
    assert made.saved == [1, 2, 3]
    assert [e["step"] for e in read_log(made.run_dir)] == [2, 3]
    assert len(made.said.warnings) == 1


def test_a_diverged_evaluation_is_never_the_best(lab):
    made = lab({1: math.nan, 2: 3.0, 3: math.inf, 4: math.nan})
    made.run(4, save_every=1, keep_last=0)
    assert made.link("best") == 2 and made.state.best_val_loss == 3.0
    assert read_meta(find_checkpoint(made.run_dir, "4"))["val_loss"] is None


class Interrupt(Hook):
    def on_step(self, state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_saves_and_does_not_evaluate(lab):
    made = lab(eval_every=0)
    made.run(50, hooks=[Interrupt()])
    assert made.state.status == "interrupted" and made.saved == [3] and made.measured == []


def test_best_and_latest_are_set_by_the_save_itself_best_first(lab, monkeypatch):
    """A kill between the two links must not leave a `latest` whose best is never linked."""
    made, links = lab({1: 3.0, 2: 2.0}), []
    point = training_state.atomic.point
    monkeypatch.setattr(training_state.atomic, "point", lambda link, to: (links.append(link.name), point(link, to)))
    made.run(2)
    assert links == ["best", "latest"] * 2


def test_steps_between_the_last_report_and_an_interruption_are_reported(toys):
    said, meter = Said(), MFUMeter(toys.gpt().config, tokens_per_step=16, device_name="cpu", precision="float32")
    log = Log(LoggingConfig(log_every=2), said, Distributed(), meter, 50)
    toys.train(toys.state(), 50, hooks=[log, Interrupt()])
    assert [step for step, _ in said.logged] == [2, 3]


def test_what_is_already_on_disk_is_not_saved_again(lab):
    made = lab()
    made.run(2, save_every=1)
    before = find_checkpoint(made.run_dir).stat().st_ino
    made.run(2, save_every=1)  # a resumed run that has nothing to do
    assert find_checkpoint(made.run_dir).stat().st_ino == before


# --- evaluating --------------------------------------------------------------------------------------------------


def test_evaluations_happen_at_the_start_every_so_often_and_at_the_end(lab):
    made = lab(eval_every=2, at_start=True, eval_iters=5)
    made.run(5)
    assert [step for step, *_ in made.measured] == [0, 2, 4, 5]
    assert {iterations for *_, iterations in made.measured} == {5}


def test_a_resumed_run_does_not_evaluate_its_start(lab):
    made = lab(eval_every=2, at_start=True)
    made.run(3)
    made.measured.clear()
    made.run(4)
    assert [step for step, *_ in made.measured] == [4]


def test_the_whole_split_is_a_number_of_batches_per_rank_times_ranks(lab):
    made = lab(eval_every=0, eval_iters=None)
    made.run(1, world_size=4)
    assert [iterations for *_, iterations in made.measured] == [12]


@pytest.mark.parametrize(
    ("batch_tokens", "world_size", "iterations"),
    [(64, 1, 2), (32, 1, 3), (32, 2, 4), (16, 2, 6), (16, 4, 8), (500, 1, 1)],
)
def test_the_same_tokens_are_evaluated_whatever_the_batch(lab, batch_tokens, world_size, iterations):
    """Of 128 wanted; all of a smaller split (3 batches for each process)."""
    made = lab(eval_every=0, eval_tokens=128)
    made.run(1, world_size=world_size, batch_tokens=batch_tokens)
    assert [iterations for *_, iterations in made.measured] == [iterations]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_test_split_is_seen_once_at_the_end(lab, wanted):
    class Test:
        batches_per_epoch = 7

    made = lab(eval_every=2, test_at_end=wanted)
    made.run(4, test=Test)
    assert [(step, n) for step, loader, n in made.measured if loader is Test] == ([(4, 7)] if wanted else [])


def test_an_untrained_model_is_not_the_best(lab):
    made = lab({0: 0.1, 1: 3.0}, at_start=True)
    made.run(1)
    assert made.state.best_val_loss == 3.0 and made.link("best") == 1


def test_the_units_of_what_is_reported(lab):
    made = lab({1: 2.0})
    made.run(1)
    ((step, metrics),) = made.said.logged
    assert step == 1 and metrics["val/loss"] == 2.0 and metrics["val/acc"] == 0.5
    assert metrics["val/ppl"] == pytest.approx(math.exp(2.0))
    assert metrics["val/bits_per_byte"] == 1.25


def test_a_sample_does_not_touch_the_state_of_training(toys, tmp_path):
    class Letters:
        vocab_size, eot_id, name = toys.VOCAB, None, "letters"

        def encode(self, text):
            return [ord(c) % toys.VOCAB for c in text]

        def decode(self, ids):
            return "".join(chr(97 + i) for i in ids)

    said, state = Said(), toys.state(dropout=0.2)
    said.info = lambda message: None
    sample = Sample(SampleConfig(prompt="ab", max_new_tokens=20, num_samples=2), said, Distributed(), Letters(), 1)
    state.status = "completed"
    state.model.train()
    before = torch.get_rng_state()
    sample.on_end(state)
    sample.on_end(state)
    assert torch.equal(torch.get_rng_state(), before) and state.model.training
    first, again = said.events[:2], said.events[2:]
    assert first == again and len(first) == 2 and first[0] != first[1]


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "generate.prompt is empty"), ("é", r"generate.prompt: no 'é'.*max_new_tokens=0")]
)
def test_a_prompt_that_cannot_be_written_is_said_before_the_first_step(toys, prompt, message):
    class Letters:
        def encode(self, text):
            if "é" in text:
                raise ValueError("no 'é'")
            return [0] * len(text)

    with pytest.raises(ValueError, match=message):
        Sample(SampleConfig(prompt=prompt), Said(), Distributed(), Letters(), 1).on_start(toys.state())
    Sample(SampleConfig(prompt=prompt, max_new_tokens=0), Said(), Distributed(), Letters(), 1).on_start(toys.state())


def test_a_run_killed_between_its_last_save_and_the_clean_up_is_cleaned_up_when_resumed(lab, monkeypatch):
    """The save is on disk and linked, so the resumed run has nothing to save; the log and old folders still lag."""
    made = lab(eval_every=0)
    with monkeypatch.context() as patch:
        patch.setattr(Save, "_keep_books", lambda *_: None)
        made.run(4, save_every=1, keep_last=2)
    assert made.saved == [1, 2, 3, 4] and not read_log(made.run_dir)
    made.run(4, save_every=1, keep_last=2)
    assert made.saved == [3, 4]
    assert [e["step"] for e in read_log(made.run_dir)] == [4]


def test_the_z_loss_is_logged_beside_the_loss_and_only_where_there_is_one(toys):
    lost = {}
    meter = MFUMeter(toys.gpt().config, tokens_per_step=16, device_name="cpu", precision="float32")
    for weight in (0.0, 0.1):
        said = Said()
        log = Log(LoggingConfig(log_every=2), said, Distributed(), meter, max_steps=2)
        state = toys.state()
        toys.train(state, 2, loss=autoregressive(weight), hooks=[log], schedule=lambda step: 0.0, micro_steps=2)
        ((_, lost[weight]),) = said.logged
    assert lost[0.1]["train/loss"] == lost[0.0]["train/loss"], "the reported loss is the cross-entropy"
    assert "train/auxiliary_loss" not in lost[0.0]
    # an untrained model: log Z is ln 17 up to its random logits
    assert lost[0.1]["train/auxiliary_loss"] == pytest.approx(0.1 * math.log(toys.VOCAB) ** 2, rel=0.02)
