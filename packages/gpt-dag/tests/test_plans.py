"""Plans: expressions as tensors and back, the seed's view, digits, and `reduce`."""

import math
from fractions import Fraction
from random import Random

import pytest
import torch

from gpt_dag import Expression, Number, Operator, Step, evaluate, parse, render
from gpt_dag.digits import ValueMagnitudeError, from_digits, to_digits
from gpt_dag.plans import Plans
from gpt_dag.reduce import reduce

TEXTS = ["5.22 - 3.213 / 2.32", "-7", "8 / 4 / 2", "1 - (2 - (3 - 4 * 2.50))", "(1 + 2) * 3 / 0", "46.4% * 2", "0"]


@pytest.fixture(scope="module")
def plans():
    return Plans.from_expressions([parse(text) for text in TEXTS])


def test_the_seeds_sentence_has_its_numbers_operators_and_value(plans):
    values = [number.value for number in plans.expressions()[0].numbers]
    assert values == [Fraction(522, 100), Fraction(3213, 1000), Fraction(232, 100)]
    assert plans[:1].reading_order()[0, :2].tolist() == [1, 3]
    assert plans.fractions()[0] == Fraction(522, 100) - Fraction(3213, 2320)


def test_parts_are_joined_again(plans):
    joined = Plans.cat([plans[:2], plans[2:2], plans[2:]])
    assert len(joined) == len(TEXTS) and joined.expressions() == plans.expressions()


def test_plans_say_what_the_expressions_said(plans):
    values = [None if "/ 0" in text else evaluate(parse(text)) for text in TEXTS]
    assert plans.fractions() == values
    assert [render(e) for e in plans.expressions()[:5]] == TEXTS[:5]
    assert render(plans.expressions()[5]) == "0.464 * 2"


def test_steps_that_are_not_used_copy_the_result(plans):
    assert plans.operator[2].tolist() == [3, 3, -1, -1]
    assert plans.left[2, 2:].tolist() == plans.right[2, 2:].tolist() == [6, 6]  # N = 5: step 1 is node 6
    assert plans.steps.tolist() == [2, 0, 2, 4, 3, 1, 0]


def test_rows_are_taken_by_slices_and_masks(plans):
    assert plans[1:3].fractions() == [Fraction(-7), Fraction(1)]
    assert plans[plans.steps == 0].fractions() == [Fraction(-7), Fraction(0)]


def test_slots_are_the_seeds_interface(plans):
    sign, log, operation = plans.slots()
    assert sign.shape == (7, 5) and operation.shape == (7, 4, 5)
    assert sign[1].tolist() == [-1, 1, 1, 1, 1]  # padding is the number 1
    assert log[1].tolist() == [math.log(7), 0, 0, 0, 0]
    assert (sign[6, 0], log[6, 0]) == (0, 0)
    assert operation[0].argmax(-1).tolist() == [1, 3, 4, 4]  # in reading order, then identity
    assert operation.sum(-1).eq(1).all()


def test_an_expression_may_use_a_node_twice():
    square = Expression((Number(3),), (Step(Operator.ADD, 0, 0), Step(Operator.MULTIPLY, 1, 1)))
    plans = Plans.from_expressions([square, parse("2 * 3")])
    assert plans.fractions() == [36, 6]
    assert plans.expressions()[0] == square


@pytest.mark.parametrize("text", ["9" * 19, "1" + "." + "0" * 18])
def test_numbers_that_int64_does_not_hold_are_refused(text):
    with pytest.raises(ValueError, match="at most 18 digits"):
        Plans.from_expressions([parse(text)])


def test_no_expressions_are_plans_too():
    empty = Plans.from_expressions([])
    assert len(empty) == 0 and empty.fractions() == []
    assert Plans.from_expressions([parse("5")]).fractions() == [5]  # no steps


def test_values_are_the_nearest_floats(plans):
    assert plans.values()[0, :3].tolist() == [5.22, 3.213, 2.32]
    assert plans.values()[1, 0] == -7


def test_reduce_is_a_shunting_yard():
    rng = Random(0)
    texts = [" ".join([str(rng.randint(1, 9)), *_tail(rng, k % 7)]) for k in range(60)]
    expected = Plans.from_expressions([parse(text) for text in texts])
    operator = expected.reading_order()
    steps = reduce(operator, (operator >= 2).long(), expected.count)
    again = Plans(expected.negative, expected.scaled, expected.decimals, expected.count, *steps)
    assert again.fractions() == expected.fractions()
    assert [render(e) for e in again.expressions()] == texts


def test_reduce_takes_the_highest_priority_then_the_leftmost():
    operator = torch.tensor([[1, 1, 1], [1, 1, 1]])
    priority = torch.tensor([[0, 2, 1], [5, 5, 5]])
    _, left, right = reduce(operator, priority, torch.tensor([4, 4]))
    assert left.tolist() == [[1, 4, 0], [0, 4, 5]]
    assert right.tolist() == [[2, 3, 5], [1, 2, 3]]


def test_reduce_without_steps():
    steps = reduce(torch.empty(3, 0, dtype=torch.int64), torch.empty(3, 0, dtype=torch.int64), torch.ones(3).long())
    assert [step.shape for step in steps] == [(3, 0)] * 3


def test_digits_round_trip_for_all_ten_thousandths_and_many_more():
    scaled = torch.cat([torch.arange(10_001), torch.randint(10**8, (10_000,), generator=torch.manual_seed(0))])
    digits = to_digits(scaled, torch.full_like(scaled, 4), 4, 4)
    assert torch.equal(from_digits(digits), scaled)
    assert digits[63712 % 10_001].shape == (8,)
    assert to_digits(torch.tensor([63712]), torch.tensor([4]), 4, 4).tolist() == [[0, 0, 0, 6, 3, 7, 1, 2]]
    assert to_digits(torch.tensor([25]), torch.tensor([1]), 2, 3).tolist() == [[0, 2, 5, 0, 0]]


@pytest.mark.parametrize(("scaled", "decimals"), [(10**8, 4), (10_000, 0), (1, 5), (-1, 0)])
def test_digits_that_do_not_fit_are_refused(scaled, decimals):
    with pytest.raises(ValueMagnitudeError, match="does not fit into 4 digits before the point and 4 after"):
        to_digits(torch.tensor([5, scaled]), torch.tensor([0, decimals]), 4, 4)


def _tail(rng: Random, count: int) -> list[str]:
    return [part for _ in range(count) for part in (rng.choice("+-*/"), str(rng.randint(1, 9)))]
