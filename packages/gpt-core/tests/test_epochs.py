"""The length of a run in epochs, and intervals that follow from the length."""

from types import SimpleNamespace

import pytest

from gpt_core.config import Component, load_config
from gpt_core.scaling.horizon import epochs_of, steps_of_epochs
from gpt_core.training.config import EvalConfig, GeneralConfig, TrainingConfig
from gpt_core.training.epochs import said, with_steps_of_epochs
from gpt_core.training.eval_intervals import benchmark_interval, epoch_interval, validation_interval, with_intervals

SCHEMA = {
    "general": GeneralConfig,
    "training": TrainingConfig,
    "eval": EvalConfig,
    "data": Component(runtime=frozenset({"context_length", "device_batch_size", "rank", "world_size", "seed"})),
}


def corpus(context_length, device_batch_size, world_size, rows: int | None = 1000):
    """Splits with an epoch of so many rows, or of no known length."""
    length = {} if rows is None else {"batches_per_epoch": -(-rows // (device_batch_size * world_size))}
    return SimpleNamespace(dataset=SimpleNamespace(vocab_size=9), train=SimpleNamespace(**length))


@pytest.fixture
def load(tmp_path):
    """load(*arguments, written=...): steps of 100 tokens, with that in the file's section `training`."""
    sizes = "context_length: 10, device_batch_size: 5, global_batch_size: 10"

    def read(*arguments, written="max_steps: 7"):
        path = tmp_path / "run.yaml"
        path.write_text(f"data: {{module: {__name__}.corpus}}\ntraining: {{{sizes}, {written}}}\n")
        return load_config([str(path), *arguments], schema=SCHEMA)

    return read


def test_the_mixtures_epoch_is_878_steps():
    assert steps_of_epochs(1, 460_300_000, 2**19) == 878
    assert steps_of_epochs(0.001, 100, 2**19) == 1, "no run of no steps"


def test_auto_is_one_epoch_and_more_of_little_data():
    assert [epochs_of("auto", tokens, 100) for tokens in (50, 2_500, 20_000, 25_000, 10**9)] == [20, 10, 2, 1, 1]
    assert epochs_of(0.5, 50, 100) == 0.5


@pytest.mark.parametrize(
    ("written", "arguments", "steps"),
    [
        ("epochs: 1, max_steps: 0", [], 100),
        ("epochs: 2.5, max_steps: 0", [], 250),
        ("epochs: auto, max_steps: 0", ["--data.module_kwargs.rows=90"], 20 * 900 // 80),
        ("epochs: auto, max_steps: 0", ["--data.module_kwargs.rows=90", "--batch_size=5"], 20 * 9),
        ("epochs: 1, max_steps: 7", [], 7),
        ("max_steps: 0", [], 0),
        ("epochs: 1, max_steps: 0", ["--max_steps=0"], 0),  # the command line has the last word
        ("max_steps: 7", ["--epochs=2"], 200),
        ("epochs: 1, max_steps: 0", ["--epochs=2", "--max_steps=7"], 7),
    ],
)
def test_epochs_are_steps_where_no_steps_are_given(load, written, arguments, steps):
    config = with_steps_of_epochs(load(*arguments, written=written), world_size=2)
    assert config.section("training").max_steps == steps


def test_auto_takes_smaller_steps_over_little_data(load):
    """40 sequences on 2 processes: ten steps of 2 x 2, where 10 are written; and twenty passes."""
    config = with_steps_of_epochs(
        load("--data.module_kwargs.rows=40", written="epochs: auto, max_steps: 0"), world_size=2
    )
    training = config.section("training")
    assert (training.device_batch_size, training.global_batch_size, training.epochs) == (2, 4, 20)
    assert said(config) == "200 steps: training.epochs=auto: 20 passes over 400 tokens, 40 a step"
    few = with_steps_of_epochs(load("--data.module_kwargs.rows=3", written="epochs: auto, max_steps: 0"), world_size=2)
    assert few.section("training").global_batch_size == 2, "one sequence of each process"
    assert said(load()) is None


def test_data_without_a_length_has_no_epochs(load):
    with pytest.raises(ValueError, match=r"corpus has no length; set training.max_steps"):
        with_steps_of_epochs(load("--epochs=1", "--data.module_kwargs.rows=null"), world_size=1)
    with pytest.raises(ValueError, match=r"training.epochs must be positive, got -1"):
        load("--epochs=-1")


def test_intervals_follow_the_length(load):
    assert [validation_interval(steps) for steps in (10, 2_000, 19_531)] == [100, 200, 500]
    assert [benchmark_interval(steps) for steps in (1, 300, 700, 19_531)] == [1, 150, 250, 4882]
    assert [epoch_interval(600, epochs) for epochs in (0.5, 1, 4, 5, 20)] == [1200, 600, 150, 240, 150]
    switches = ["--no-evals", "--run-core-evals", "--run-chatcore-evals", "--eval-interval=auto", "--eval.bundle=x"]
    wanted = with_intervals(load("--max_steps=600", "--epochs=3", *switches)).section("eval")
    assert (wanted.validate, wanted.eval_every, wanted.core_every, wanted.chatcore_every) == (False, 100, 250, 200)
    unsaid = with_intervals(load("--max_steps=600", "--run-chatcore-evals", "--eval.bundle=x", written="epochs: auto"))
    assert unsaid.section("eval").chatcore_every == 250
    untouched = load("--max_steps=600")
    assert with_intervals(untouched) is untouched
