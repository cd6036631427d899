"""float16 under ZeRO-2: an overflow on one rank alone lowers the loss scale of all, which stay equal."""

import json

import scale_worker


def test_an_overflow_on_one_rank_lowers_the_scale_of_all(tmp_path, fork_ranks):
    ended = fork_ranks(tmp_path, 2, scale_worker.main, tmp_path)
    assert not any(rank.code for rank in ended), ended
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2))
    assert first == second
    scales = [(scale, growth, finite) for scale, growth, finite, _ in first]
    assert scales == [(2**15, 0, False), (2**15, 1, True), (2**15, 2, True), (2**14, 0, False), (2**14, 1, True)]
    weights = [weights for *_, weights in first]
    assert weights[0] == [1.0, 1.0] and weights[3] == weights[2] != weights[1] != weights[0]
