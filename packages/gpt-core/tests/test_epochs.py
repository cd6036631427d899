"""The length of a run in epochs, and intervals that follow from the length."""

from types import SimpleNamespace

import pytest

from gpt_core.config import Component, load_config
from gpt_core.training.config import EvalConfig, GeneralConfig, TrainingConfig
from gpt_core.training.epochs import steps_of_epochs, with_steps_of_epochs
from gpt_core.training.eval_intervals import benchmark_interval, validation_interval, with_intervals

SCHEMA = {
    "general": GeneralConfig,
    "training": TrainingConfig,
    "eval": EvalConfig,
    "data": Component(runtime=frozenset({"context_length", "device_batch_size", "rank", "world_size", "seed"})),
}


def corpus(context_length, device_batch_size, world_size, counted: bool = True, batches: int | None = 25):
    """Splits of a dataset of 10,000 tokens, or of 25 batches for each rank, or of no known length."""
    dataset = SimpleNamespace(name="endless", **({"tokens": {"train": 10_000}.get} if counted else {}))
    train = SimpleNamespace(
        context_length=context_length, **({} if batches is None else {"batches_per_epoch": batches})
    )
    return SimpleNamespace(dataset=dataset, train=train)


def load(*arguments):
    sizes = ["--training.context_length=10", "--training.device_batch_size=5", "--training.global_batch_size=10"]
    return load_config([f"--data.module={__name__}.corpus", *sizes, *arguments], schema=SCHEMA)


def test_the_mixtures_epoch_is_878_steps():
    assert steps_of_epochs(1, 460_300_000, 2**19) == 878
    assert steps_of_epochs(0.001, 100, 2**19) == 1, "no run of no steps"


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (["--training.epochs=1", "--max_steps=0"], 100),
        (["--training.epochs=2.5", "--max_steps=0"], 250),
        (["--training.epochs=1", "--max_steps=7"], 7),
        (["--max_steps=0"], 0),
        (["--epochs=1", "--max_steps=0", "--data.module_kwargs.counted=false"], 25 * 5 * 2 * 10 // 100),
    ],
)
def test_epochs_are_steps_where_no_steps_are_given(arguments, steps):
    config = with_steps_of_epochs(load(*arguments), world_size=2)
    assert config.section("training").max_steps == steps
    if "--training.epochs=2.5" in arguments:
        assert config.origin("training.max_steps") == "training.epochs = 2.5"


def test_data_without_a_length_has_no_epochs():
    endless = ["--data.module_kwargs.counted=false", "--data.module_kwargs.batches=null"]
    with pytest.raises(ValueError, match=r"endless has no length; set training.max_steps"):
        with_steps_of_epochs(load("--epochs=1", "--max_steps=0", *endless), world_size=1)
    with pytest.raises(ValueError, match=r"training.epochs must be positive, got -1"):
        load("--epochs=-1")


def test_intervals_follow_the_length():
    assert [validation_interval(steps) for steps in (10, 2_000, 19_531)] == [100, 200, 500]
    assert [benchmark_interval(steps) for steps in (1, 300, 700, 19_531)] == [1, 150, 250, 4882]
    switches = ["--no-evals", "--run-core-evals", "--run-chatcore-evals", "--eval-interval=auto", "--eval.bundle=x"]
    wanted = with_intervals(load("--max_steps=600", "--epochs=3", *switches)).section("eval")
    assert (wanted.validate, wanted.eval_every, wanted.core_every, wanted.chatcore_every) == (False, 100, 250, 200)
    untouched = load("--max_steps=600")
    assert with_intervals(untouched) is untouched
