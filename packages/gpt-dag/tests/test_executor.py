"""The executor: exact on perfect plans, finite gradients everywhere, stack = pointers = fold (assertions 4, 5, 6)."""

import math
import random
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from gpt_dag.executor import execute, execute_stack, stack_pointers
from gpt_dag.expression import DivisionByZero, Expression, Operator, Step, node_values
from gpt_dag.number import Number
from gpt_dag.plans import IDENTITY

OPERATORS = list(Operator)


def random_tree(rng, steps):
    """Adjacent operands are joined in random order."""
    numbers = tuple(
        Number(rng.randrange(10**4), rng.randrange(100), decimals=2, negative=rng.random() < 0.3)
        for _ in range(steps + 1)
    )
    operands, made = list(range(steps + 1)), []
    for node in range(steps + 1, 2 * steps + 1):
        at = rng.randrange(len(operands) - 1)
        left, right = operands[at : at + 2]
        made.append(Step(rng.choice(OPERATORS), left, right))
        operands[at : at + 2] = [node]
    return Expression(numbers, tuple(made))


def slots(values):
    """sign and log of Fractions, (1, N)."""
    sign = [(v > 0) - (v < 0) for v in values]
    log = [math.log(abs(v.numerator)) - math.log(v.denominator) if v else 0.0 for v in values]
    return torch.tensor([sign], dtype=torch.float64), torch.tensor([log], dtype=torch.float64)


def values_of(tree):
    """The exact value of every node, rounded once; None where it divides by zero."""
    try:
        return [float(value) for value in node_values(tree)]
    except DivisionByZero:
        return None


def batch(trees):
    """(sign, log, operator, left, right) of trees with equally many steps."""
    pairs = [slots([number.value for number in tree.numbers]) for tree in trees]
    ids = [[[OPERATORS.index(s.operator), s.left, s.right] for s in tree.steps] for tree in trees]
    operator, left, right = torch.tensor(ids).unbind(-1)
    return torch.cat([s for s, _ in pairs]), torch.cat([log for _, log in pairs]), operator, left, right


def run(values, steps, **options):
    sign, log = slots([Fraction(v) for v in values])
    operator, left, right = (torch.tensor([list(column)]) for column in zip(*steps, strict=True))
    return execute(sign, log, operator, left, right, **options)


ADD, SUBTRACT, MULTIPLY, DIVIDE = range(4)


def test_perfect_plans_of_one_to_eight_steps_give_every_node_within_1e_9():
    rng = random.Random(7)
    divided_by_zero = 0
    for steps in range(1, 9):
        trees = [random_tree(rng, steps) for _ in range(40)]
        sign, log, *ids = batch(trees)
        one_hots = [F.one_hot(ids[0], 4).double(), *(F.one_hot(i, 2 * steps + 1).double() for i in ids[1:])]
        both = [execute(sign, log, *one_hots, domain=domain) for domain in ("log", "linear")]
        exact = [values_of(tree) for tree in trees]
        invalid = torch.tensor([values is None for values in exact])
        wanted = torch.tensor([values for values in exact if values], dtype=torch.float64)
        for execution in both:
            assert torch.equal(execution.invalid[:, -1], invalid)
            error = (execution.value[~invalid] - wanted).abs()
            assert (error <= 1e-9 * wanted.abs()).all(), error.max()
        divided_by_zero += int(invalid.sum())
    assert divided_by_zero < 4


@pytest.mark.parametrize("domain", ["log", "linear"])
def test_zero_is_exact(domain):
    five_minus_five = run([5, 5], [(SUBTRACT, 0, 1)], domain=domain).result
    assert five_minus_five.sign.item() == 0 and five_minus_five.value.item() == 0.0 and five_minus_five.zero.item()
    assert run([0, 7], [(MULTIPLY, 0, 1)], domain=domain).value.tolist() == [[0.0, pytest.approx(7), 0.0]]
    assert run([0, 7], [(ADD, 0, 1)], domain=domain).result.value.item() == pytest.approx(7)
    assert run([0, 7], [(SUBTRACT, 0, 1)], domain=domain).result.value.item() == pytest.approx(-7)
    assert run([0, 0], [(ADD, 0, 1)], domain=domain).result.zero.item()
    # a true difference of -1e-8, below what is told from rounding: `RESOLUTION`
    close = [Fraction(n, 10**4) for n in (99999999, 99999997, 99999998)]
    execution = run(close, [(MULTIPLY, 0, 1), (MULTIPLY, 2, 2), (SUBTRACT, 3, 4)], domain=domain)
    assert execution.result.zero.item() and close[0] * close[1] != close[2] ** 2
    # rounding beside the operands is no value, so that a division by (0.1 + 0.2) - 0.3 is seen as one by zero
    tenths = [Fraction(n, 10) for n in (1, 2, 3, 7)]
    steps = [(ADD, 0, 1), (SUBTRACT, 4, 2), (DIVIDE, 3, 5)]
    execution = run(tenths, steps, domain=domain)
    assert execution.zero[0, 5].item() and execution.invalid[0, 6].item()


@pytest.mark.parametrize("domain", ["log", "linear"])
def test_a_small_difference_of_large_numbers_is_not_zero(domain):
    execution = run([Fraction(10**12 + 1), 10**12], [(SUBTRACT, 0, 1)], domain=domain)
    assert execution.result.value.item() == pytest.approx(1, rel=1e-2)
    assert not execution.result.zero.item()


@pytest.mark.parametrize("domain", ["log", "linear"])
def test_division_by_zero_is_flagged_and_passes_on(domain):
    execution = run([3, 0, 2], [(DIVIDE, 0, 1), (ADD, 3, 2), (IDENTITY, 2, 2)], domain=domain)
    assert execution.invalid.tolist() == [[False, False, False, True, True, False]]
    assert execution.value.tolist() == [[pytest.approx(3), 0.0, pytest.approx(2), 0.0, 0.0, pytest.approx(2)]]
    assert not execution.zero[0, 3].item(), "invalid is not a value of zero"


@pytest.mark.parametrize("domain", ["log", "linear"])
@pytest.mark.parametrize("operator", [MULTIPLY, DIVIDE])
def test_results_beyond_float64_are_held_and_flagged(domain, operator):
    size = 400.0 if domain == "log" else 200.0
    held_at = (1.75 if operator == MULTIPLY else -1.75) * size
    log = torch.tensor([[size if operator == MULTIPLY else -size, size]], requires_grad=True)
    zero, one = torch.tensor([[0]]), torch.tensor([[1]])
    execution = execute(torch.tensor([[1.0, -1.0]]), log, torch.tensor([[operator]]), zero, one, domain=domain)
    assert execution.overflow.tolist() == [[False, False, True]]
    assert execution.log[0, 2].item() == pytest.approx(held_at) and execution.sign[0, 2].item() == -1
    execution.log.sum().backward()
    assert log.grad.isfinite().all()


def test_what_is_not_finite_is_invalid():
    sign, ids = torch.tensor([[1.0, 1.0, math.nan]]), torch.tensor([[ADD, ADD]])
    execution = execute(sign, torch.tensor([[1.0, math.inf, 1.0]]), ids, torch.tensor([[0, 0]]), torch.tensor([[1, 0]]))
    assert execution.invalid.tolist() == [[False, True, True, True, False]]
    assert execution.value.isfinite().all()


CASES = {
    "equal, opposite": ([1, -1], [0.5, 0.5]),
    "1e-8 apart, opposite": ([1, -1], [0.5, 0.5 + 1e-8]),
    "huge": ([1, -1], [300.0, 300.0]),
    "tiny": ([1, 1], [-300.0, -300.0]),
    "huge and tiny": ([-1, 1], [300.0, -300.0]),
    "zero": ([0, 1], [0.0, 1.0]),
    "divided by zero": ([1, 0], [1.0, 0.0]),
}


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("domain", ["log", "linear"])
def test_gradients_are_finite(domain, hard):
    """Every case with every operator: rows of one batch."""
    signs, logs = zip(*CASES.values(), strict=True)
    sign, log = (torch.tensor(rows, dtype=torch.float64).repeat_interleave(5, 0) for rows in (signs, logs))
    log.requires_grad_()
    operator = torch.arange(5).repeat(len(CASES))[:, None]
    logits = F.one_hot(operator, 5).double().requires_grad_()
    execution = execute(sign, log, logits, operator * 0, operator * 0 + 1, domain=domain, hard=hard)
    execution.asinh(10.0).sum().backward()
    assert log.grad.isfinite().all() and logits.grad.isfinite().all()
    assert log.grad.abs().max() <= 2e3, "1 / (1 - e^-1e-3) is the steepest"
    assert log.grad.any(-1).sum() > 20


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("domain", ["log", "linear"])
def test_gradients_by_choices_are_finite_whatever_the_values(domain, hard):
    for size, temperature in ((100.0, 1.0), (300.0, 0.01)):
        draw = torch.Generator().manual_seed(0)
        choices = [torch.randn(64, 4, n, generator=draw).requires_grad_() for n in (5, 9, 9)]
        log = (size * torch.randn(64, 5, generator=draw)).requires_grad_()
        sign = torch.randn(64, 5, generator=draw).sign()
        result = execute(sign, log, *choices, domain=domain, hard=hard, temperature=temperature).result
        (result.asinh(10.0) + result.log).sum().backward()
        for tensor in (*choices, log):
            assert tensor.grad.isfinite().all() and tensor.grad.square().sum().isfinite() and tensor.grad.any()


def check_gradients(function, *inputs, step=1e-6):
    """Against central differences, every input by every output."""
    outputs = function(*inputs).flatten()
    grads = [torch.autograd.grad(output, inputs, retain_graph=True) for output in outputs]
    for which, tensor in enumerate(inputs):
        for entry in range(tensor.numel()):
            moved = [[x.detach().clone() for x in inputs] for _ in range(2)]
            moved[0][which].view(-1)[entry] += step
            moved[1][which].view(-1)[entry] -= step
            above, below = (function(*values).flatten() for values in moved)
            slopes = torch.stack([of_inputs[which].flatten()[entry] for of_inputs in grads])
            assert torch.allclose(slopes, (above - below) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("domain", ["log", "linear"])
def test_gradients_are_right_away_from_cancellation(domain):
    sign = torch.tensor([[1.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
    log = torch.tensor([[0.3, 1.7, -0.4, 2.2]], dtype=torch.float64, requires_grad=True)
    operator = torch.tensor([[ADD, DIVIDE, SUBTRACT]])
    left, right = torch.tensor([[0, 4, 3]]), torch.tensor([[1, 2, 5]])

    def values(log):
        return execute(sign, log, operator, left, right, domain=domain).asinh()

    def mixed(log, logits):
        return execute(sign[:, :2], log[:, :2], logits, *pair, domain=domain, hard=False, temperature=2.0).asinh()

    check_gradients(values, log)
    pair = torch.tensor([[0]]), torch.tensor([[1]])
    logits = torch.randn(1, 1, 5, dtype=torch.float64, requires_grad=True)
    check_gradients(mixed, log, logits)


def test_straight_through_is_hard_forward_and_points_to_the_better_operator():
    sign, log = slots([Fraction(6), Fraction(3)])
    logits = torch.tensor([[[0.5, 0.0, 0.0, 0.0]]], requires_grad=True)  # takes +, should be *
    ids = torch.tensor([[0]]), torch.tensor([[1]])
    result = execute(sign, log, logits, *ids).result
    assert result.value.item() == pytest.approx(9)
    (result.asinh() - math.asinh(18)).square().sum().backward()
    assert logits.grad.argmin().item() == MULTIPLY


def test_a_soft_mixture_is_one_of_signed_values():
    sign, log = slots([Fraction(5), Fraction(5)])
    halves = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]]).log()
    mixed = execute(sign, log, halves, torch.tensor([[0]]), torch.tensor([[1]]), hard=False).result
    assert mixed.value.item() == pytest.approx(math.sinh(math.asinh(10) / 2))  # between 10 and 0; no log of 0 in it
    opposite = sign * torch.tensor([1, -1])
    one, copy = torch.tensor([[1]]), torch.tensor([[IDENTITY]])
    mean = execute(opposite, log, copy, torch.tensor([[[0.0, 0.0, 9.0]]]), one, hard=False).result  # sees two nodes
    assert mean.value.item() == pytest.approx(0, abs=1e-12)


def test_a_node_may_be_used_twice():
    assert run([3], [(MULTIPLY, 0, 0), (ADD, 1, 0)]).value.tolist() == [[pytest.approx(v) for v in (3, 9, 12)]]


def test_stack_equals_pointers_equals_a_fold():
    rng = random.Random(3)
    for depth in (1, 2, 5):
        numbers = [[Fraction(rng.randint(-999, 999) or 1, 100) for _ in range(depth + 1)] for _ in range(40)]
        signs, logs = zip(*map(slots, numbers), strict=True)
        sign, log = torch.cat(signs), torch.cat(logs)
        operator = torch.tensor([[rng.randrange(5) for _ in range(depth)] for _ in range(40)])
        stack = execute_stack(sign, log, operator)
        one_hots = execute_stack(sign, log, F.one_hot(operator, 5).double())
        left, right = (pointer.expand(40, -1) for pointer in stack_pointers(depth))
        pointers = execute(sign, log, operator.flip(-1), left, right)
        assert torch.equal(stack.value, pointers.value) and torch.equal(stack.value, one_hots.value)
        for i, folded in enumerate(map(fold, numbers, operator.tolist())):
            assert bool(stack.result.invalid[i]) == (folded is None)
            assert folded is None or stack.result.value[i].item() == pytest.approx(float(folded), rel=1e-9)


def fold(values, operators):
    """v0 o0 (v1 o1 (...)), None where it divides by zero."""
    result = values[-1]
    for value, operator in zip(reversed(values[:-1]), reversed(operators), strict=True):
        if operator == IDENTITY:
            result = value
        elif operator == DIVIDE and result == 0:
            return None
        else:
            result = OPERATORS[operator].function(value, result)
    return result


def test_unused_steps_copy_so_that_the_last_node_is_the_result():
    execution = run([2, 3, 1], [(MULTIPLY, 0, 1), (-1, 3, -1)])
    assert execution.result.value.item() == pytest.approx(6)


def test_the_gradient_of_an_example_can_be_capped():
    log = torch.tensor([[0.5, 0.5 + 1e-5], [0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    sign, ids = torch.tensor([[1.0, -1.0]] * 2), torch.tensor([[ADD], [ADD]])
    execute(sign, log, ids, ids * 0, ids * 0 + 1, gradient_cap=10.0).log.sum().backward()
    assert log.grad[0].norm().item() == pytest.approx(10.0)
    assert log.grad[1].norm().item() < 10.0


def test_wrong_shapes_and_pointers_are_named():
    sign, ids = torch.ones(2, 3), torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="domain is one of log, linear, got 'symlog'"):
        execute(sign, sign, ids, ids, ids, domain="symlog")
    with pytest.raises(ValueError, match=r"left of 3 numbers, 2 steps is \(2, 2, 5\)"):
        execute(sign, sign, ids, torch.zeros(2, 2, 4), ids)
    with pytest.raises(ValueError, match=r"right: step s sees the nodes 0\.\.2"):
        execute(sign, sign, ids, ids, ids + 3)
    with pytest.raises(ValueError, match="a stack of 3 numbers takes 2 operators, got 3"):
        execute_stack(sign, sign, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature"):
        execute(sign, sign, torch.zeros(2, 2, 4), ids, ids, temperature=0)
