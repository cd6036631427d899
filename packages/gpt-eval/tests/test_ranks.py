"""Sharing among ranks, with threads for processes: nobody waits for a rank that has stopped."""

import threading

import pytest

from gpt_eval.errors import EvaluationError
from gpt_eval.ranks import OneProcess, TorchRanks, from_first, together


class ThreadRanks:
    """Ranks in one process: values meet at a barrier."""

    def __init__(self, rank, world_size, barrier, values):
        self.rank, self.world_size, self._barrier, self._values = rank, world_size, barrier, values

    def gather(self, value):
        self._values[self.rank] = value
        self._barrier.wait(timeout=10)
        found = list(self._values)
        self._barrier.wait(timeout=10)
        return found


@pytest.fixture
def on_ranks():
    def run(world_size, action):
        """action(ranks) on each of them; what it returned or raised, by rank."""
        barrier, values, outcomes = threading.Barrier(world_size), [None] * world_size, [None] * world_size

        def one(rank):
            try:
                outcomes[rank] = action(ThreadRanks(rank, world_size, barrier, values))
            except Exception as error:
                outcomes[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    return run


def test_every_rank_gets_its_own_result(on_ranks):
    assert on_ranks(3, lambda ranks: together(ranks, lambda: ranks.rank * 10)) == [0, 10, 20]


def test_an_error_on_one_rank_is_an_error_on_all_of_them(on_ranks):
    def action(ranks):
        return together(ranks, lambda: 1 / 1 if ranks.rank != 1 else open("/nowhere/at/all"))

    found = on_ranks(3, action)
    assert isinstance(found[1], FileNotFoundError)
    assert all(isinstance(error, EvaluationError) and "/nowhere/at/all" in str(error) for error in (found[0], found[2]))


def test_only_the_first_rank_acts_and_all_learn_what_it_found(on_ranks):
    acted = []

    def action(ranks):
        return from_first(ranks, lambda: acted.append(ranks.rank) or "found")

    assert on_ranks(4, action) == ["found"] * 4
    assert acted == [0]


def test_one_process_needs_nobody():
    assert from_first(OneProcess(), lambda: 5) == 5
    with pytest.raises(ValueError, match="mine"):
        together(OneProcess(), lambda: (_ for _ in ()).throw(ValueError("mine")))


def test_torch_ranks_say_what_they_need():
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="init_process_group"):
        TorchRanks()
