"""Two ranks with gradients of their own: float16's loss scale under ZeRO-2, and what clipping is by."""

import json

import pytest
import scale_worker


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, fork_ranks):
    folder = tmp_path_factory.mktemp("ranks")
    ended = fork_ranks(folder, 2, scale_worker.main, folder)
    assert not any(rank.code for rank in ended), ended
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]


def test_an_overflow_on_one_rank_lowers_the_scale_of_all(ranks):
    (first, _), (second, _) = ranks
    assert first == second
    scales = [(scale, growth, finite) for scale, growth, finite, _ in first]
    assert scales == [(2**15, 0, False), (2**15, 1, True), (2**15, 2, True), (2**14, 0, False), (2**14, 1, True)]
    weights = [weights for *_, weights in first]
    assert weights[0] == [1.0, 1.0] and weights[3] == weights[2] != weights[1] != weights[0]


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp"])
def test_clipping_is_by_the_norm_of_the_averaged_gradient(ranks, strategy):
    """Gradients g and -g cancel: nothing is left to clip, where each rank alone would see the norm 50."""
    for _, clipped in ranks:
        (norm, weights), (second_norm, second_weights) = clipped[strategy]
        assert norm == 0.0 and weights == [0.0, 0.0]
        assert second_norm == pytest.approx(5.0)
        assert second_weights == pytest.approx([-0.6, -0.8], abs=1e-5)
