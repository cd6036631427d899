"""Who is shown before a question, against the samplers' descriptions."""

import random

import pytest

from gpt_eval import EvaluationError, Task
from gpt_eval.fewshot import core_order, foundry_samples, sampler

ROWS = [{"query": f"q{i}", "choices": ["a", "b"], "gold": 0, "category": "ab"[i % 2]} for i in range(30)]


def task(shots, **settings):
    return Task(name="t", type="multiple_choice", file="t.jsonl", num_fewshot=shots, **settings)


@pytest.mark.parametrize("protocol", ["foundry", "core", "harness"])
@pytest.mark.parametrize("shots", [1, 5, 20])
def test_shots_are_distinct_other_rows_and_repeatable(protocol, shots):
    draw, again = sampler(task(shots), ROWS, protocol), sampler(task(shots), ROWS, protocol)
    for row in reversed(range(30)):
        found = draw(row)
        assert len(set(found)) == shots and row not in found and found == again(row)


def test_none_are_drawn_for_zero_shots():
    assert all(sampler(task(0), ROWS, protocol)(3) == [] for protocol in ("foundry", "core", "harness"))


def test_core_draws_with_the_place_in_the_shuffled_file():
    order = list(range(30))
    random.Random(1337).shuffle(order)
    assert core_order(30) == order
    place = 4
    others = [j for j in range(30) if j != place]
    expected = [order[j] for j in random.Random(1234 + place).sample(others, 5)]
    assert sampler(task(5), ROWS, "core")(order[place]) == expected


def test_harness_draws_one_more_and_drops_the_question():
    rng = random.Random(1234)
    draws = [rng.sample(range(30), 6) for _ in range(30)]
    shots = sampler(task(5), ROWS, "harness")
    assert [shots(row) for row in range(30)] == [[j for j in draw if j != row][:5] for row, draw in enumerate(draws)]


def test_harness_draws_anew_where_copies_of_the_question_leave_too_few():
    """lm-eval 0.4.13: the same generator, over the rows that differ from the question."""
    rows = [ROWS[0]] * 6 + ROWS[1:8]
    rng, expected, anew = random.Random(1234), [], 0
    for row in rows:
        draw = [j for j in rng.sample(range(13), 5) if rows[j] != row][:4]
        if len(draw) < 4:
            anew += 1
            draw = rng.sample([j for j in range(13) if rows[j] != row], 4)
        expected.append(draw)
    shots = sampler(task(4), rows, "harness")
    assert anew and [shots(row) for row in range(13)] == expected
    with pytest.raises(EvaluationError, match="4 shots asked for, 3 rows of the file differ from the question"):
        sampler(task(4), [ROWS[0]] * 6 + ROWS[1:4], "harness")


def test_the_first_rows_may_be_asked_for():
    shots = sampler(task(3, options={"sampler": "first_n"}), ROWS, "harness")
    assert shots(10) == [0, 1, 2] and shots(1) == [0, 2, 3]


def test_foundry_takes_what_there_is_and_the_others_refuse():
    assert [sorted(sample) for sample in foundry_samples(3, 10, 1234)] == [[1, 2], [0, 2], [0, 1]]
    for protocol in ("core", "harness"):
        with pytest.raises(EvaluationError, match="10 shots asked for, the file has 2 other rows"):
            sampler(task(10), ROWS[:3], protocol)


def test_foundry_draws_within_a_category():
    shots = sampler(task(4, has_categories=True), ROWS, "foundry")
    assert all({other % 2 for other in shots(row)} == {row % 2} for row in range(30))
    assert [other // 2 for other in shots(6)] == [other // 2 for other in shots(7)]  # each begins the generator anew


def test_core_has_one_pool_and_another_seed_other_shots():
    shots = sampler(task(8, has_categories=True), ROWS, "core")
    assert any({other % 2 for other in shots(row)} == {0, 1} for row in range(30))
    assert sampler(task(8, fewshot_seed=1), ROWS, "core")(3) != shots(3)
