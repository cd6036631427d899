"""Two gloo processes against one: sums, gradients, evaluation, checkpoints, signals. One start serves all tests."""

from dataclasses import astuple

import distributed_worker
import pytest
import torch

from gpt_core.checkpoint import find_checkpoint, list_checkpoints
from gpt_core.checkpoint.training_state import load_checkpoint
from gpt_core.distributed import Distributed, distributed
from gpt_core.training import Evaluation, Hook, ModelWithLoss, autoregressive, evaluate
from gpt_core.training.config import ParallelConfig
from gpt_core.training.parallel import parallelize, resolve_strategy


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fork_ranks):
    """Where two ranks have written what they saw."""
    folder = tmp_path_factory.mktemp("ranks")
    ended = fork_ranks(folder, 2, distributed_worker.main, folder)
    assert not any(rank.code for rank in ended), ended
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    # our own file of two lines above; Evaluation is the one class in it
    with torch.serialization.safe_globals([Evaluation]):
        return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]


class Losses(Hook):
    def __init__(self):
        self.losses, self.gradients = [], []

    def on_gradients(self, state):
        self.gradients.append([p.grad.clone() for p in state.model.parameters()])

    def on_step(self, state):
        self.losses.append((float(state.last.loss_sum) / state.last.count, state.last.grad_norm, state.last.count))


@pytest.fixture
def single(toys):
    """The same four steps in one process: the micro-steps of both ranks, one after the other."""
    seen, state = Losses(), toys.state(data=toys.Loader(shares=toys.Loader.FEW))
    toys.train(state, 4, micro_steps=4, hooks=[seen])
    return state, seen


def test_collectives(ranks):
    for rank, seen in enumerate(ranks):
        assert (seen["rank"], seen["backend"], seen["broadcast"]) == (rank, "gloo", "from 0")
        assert seen["sum"] == [3.0, 2.0**53], "sums are in float64"


def test_two_ranks_take_the_steps_of_one_process(ranks, single):
    """From all targets of a micro-step to none of them, and a rank with none in a whole step: the mean is over all."""
    state, alone = single
    assert len({count for *_, count in alone.losses}) > 1
    for seen in ranks:
        for got, wanted in zip(seen["gradients"], alone.gradients, strict=True):
            assert max((a - b).abs().max() for a, b in zip(got, wanted, strict=True)) <= 1e-6
        for (loss, norm, count), (wanted_loss, wanted_norm, wanted_count) in zip(
            seen["losses"], alone.losses, strict=True
        ):
            assert count == wanted_count
            assert loss == pytest.approx(wanted_loss, abs=1e-6)
            assert norm == pytest.approx(wanted_norm, rel=1e-5)
        for name, parameter in state.model.named_parameters():
            assert (seen["trained"]["weights"][name] - parameter).abs().max() <= 1e-6, name
        assert seen["trained"]["tokens"] == state.tokens


def test_the_ranks_stay_bitwise_equal(ranks):
    first, second = (seen["trained"]["weights"] for seen in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert ranks[0]["losses"] == ranks[1]["losses"]


def test_evaluation_is_over_the_data_of_all_ranks(ranks, toys, single):
    state, _ = single
    loss = autoregressive()
    loss.use_tokenizer(toys.Spelled(*range(toys.VOCAB)))
    alone = evaluate(
        ModelWithLoss(state.model, loss),
        toys.Loader(seed=5),
        loss=autoregressive(),
        iterations=6,
        distributed=Distributed(),
        autocast=lambda: torch.autocast("cpu", enabled=False),
    )
    for seen in ranks:
        assert astuple(seen["evaluation"]) == pytest.approx(astuple(alone), abs=1e-6)


def test_two_ranks_resume_on_one(ranks, folder, toys):
    checkpoint = find_checkpoint(folder / "run")
    state = toys.state(seed=4)
    meta = load_checkpoint(
        checkpoint, model=state.model, optimizer=state.optimizer, data=state.data, distributed=Distributed()
    )
    assert meta["step"] == 4
    saved = ranks[0]["trained"]
    for name, p in state.model.named_parameters():
        assert torch.equal(p, saved["weights"][name])
        for key, value in state.optimizer.state[p].items():
            assert torch.equal(value, saved["optimizer"][f"{name}/{key}"])


def test_two_ranks_resume_on_two_each_with_its_own_random_state(ranks):
    for seen in ranks:
        assert seen["rng_is_back"]
        for part in ("weights", "optimizer"):
            saved, resumed = seen["trained"][part], seen["resumed"][part]
            assert saved.keys() == resumed.keys()
            assert all(torch.equal(saved[name], resumed[name]) for name in saved)


def test_one_rank_that_cannot_save_is_an_error_on_all_and_leaves_nothing(ranks, folder):
    assert "another rank failed" in ranks[0]["failed_save"]
    assert "not JSON serializable" in ranks[1]["failed_save"]
    assert [p.name for p in list_checkpoints(folder / "run")] == ["step_000004"]
    assert not list((folder / "run" / "checkpoints").glob(".*"))


def test_a_signal_to_one_rank_stops_both_at_the_same_step(ranks):
    assert ranks[0]["stopped"] == ranks[1]["stopped"]
    assert ranks[0]["stopped"] in [(3, "interrupted"), (4, "interrupted")]


# --- one process -------------------------------------------------------------------------------------------------


def test_one_process_needs_no_group():
    alone = Distributed()
    assert alone.is_main and alone.sum([1, 2.5]) == [1, 2.5] and alone.broadcast({"a": 1}) == {"a": 1}


def test_the_launcher_is_read_from_the_environment(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with distributed("cpu") as ranks:
        assert ranks == Distributed()
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed("cpu") as ranks:
        assert ranks.world_size == 1 and not torch.distributed.is_initialized()


@pytest.mark.parametrize("device", ["tpu0", "gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_said(device):
    with pytest.raises(ValueError, match=device), distributed(device):
        pass


def test_a_strategy_that_cannot_work_is_refused():
    pair = Distributed(rank=0, world_size=2, backend="gloo")
    assert resolve_strategy(ParallelConfig(), Distributed()) == "single"
    assert resolve_strategy(ParallelConfig(), pair) == "ddp"
    with pytest.raises(ValueError, match=r"single, but 2 processes"):
        resolve_strategy(ParallelConfig(strategy="single"), pair)
    with pytest.raises(ValueError, match=r"ddp, but there is one process"):
        resolve_strategy(ParallelConfig(strategy="ddp"), Distributed())


def test_one_process_is_not_wrapped(toys):
    forward = ModelWithLoss(toys.gpt(), autoregressive())
    assert parallelize(forward, "single", Distributed()) is forward
