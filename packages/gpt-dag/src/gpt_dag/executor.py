"""The executor: numbers, operators and pointers in, the value of every node out, exactly and differentiably.

N numbers, D steps, M = N + D nodes; `...` is any shape of independent examples, equal in all arguments. Everything is
float64, also under autocast: below it a tenth of all results of eight steps would be off by more than 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_dag.executor_domains import DOMAINS, LIMIT, held_gradient
from gpt_dag.plans import IDENTITY

CLASSES = IDENTITY + 1
"""Those of `Operator` and the identity, a step that copies its left operand; -1 means the same."""
STEEPEST = 1e150
"""No gradient by a logarithm or by a mixture is beyond this: the next product of float64 stays finite."""
STEEPEST_CHOICE = 1e9
"""No gradient by a logit is beyond this: it stays finite in float32 and bfloat16, and so does its square."""


@dataclass(frozen=True)
class Execution:
    """All nodes of all examples: first the numbers, then the results in the order of the steps; (..., M) each.

    A flag passes on to every node computed from its node. Where `invalid` is set (a division by exactly 0, an input
    that is not finite) sign and log are 0 and mean nothing: leave such examples out of losses, count them as wrong.
    """

    sign: Tensor
    """float64: -1, 0 or 1."""
    log: Tensor
    """float64: ln|v|, 0 where the sign is 0."""
    overflow: Tensor
    """bool: |ln|v|| would have passed 700 (350 in the linear domain); the value was held there."""
    invalid: Tensor
    """bool."""

    @property
    def zero(self) -> Tensor:
        """bool: the value is 0, or a sum smaller beside its operands than float64 can tell (`RESOLUTION`)."""
        return (self.sign == 0) & ~self.invalid

    @property
    def value(self) -> Tensor:
        """float64, finite always."""
        return self.sign * self.log.exp()

    @property
    def result(self) -> Execution:
        """The last node alone, (...): with unused steps as identities, that is the expression's value."""
        return Execution(*(field[..., -1] for field in (self.sign, self.log, self.overflow, self.invalid)))

    def asinh(self, scale: float = 1.0) -> Tensor:
        """asinh(scale·v): linear for small values, logarithmic for large ones; what a loss of values compares."""
        shift = torch.log(torch.as_tensor(scale, dtype=torch.float64, device=self.log.device))
        return DOMAINS["log"].squash(torch.stack((self.sign, (self.log + shift).clamp(-LIMIT, LIMIT)), -1))


def execute(
    sign: Tensor,
    log: Tensor,
    operator: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    domain: Literal["log", "linear"] = "log",
    hard: bool = True,
    temperature: float = 1.0,
    gradient_cap: float | None = None,
) -> Execution:
    """Compute every node.

    sign (..., N) in {-1, 0, 1}; log (..., N) ln|v|, ignored where the sign is 0.
    operator: (..., D) class ids of `Operator`, 4 or -1 to copy the left operand; or (..., D, 5) logits (4 columns: no
    identity). left, right: (..., D) nodes, of which step s sees the first N + s (an unused step, -1, sees any); or
    (..., D, M) logits. One-hot masks are logits too; for probabilities give their logarithm.
    Ids select. Logits select their largest entry forward and backward act as softmax(logits / temperature) does
    (straight-through); with hard=False the softmax mixes forward too, values as asinh(v): an average of logarithms
    would be a geometric mean, and wrong for mixed signs.
    Gradients are finite: entries beyond 1e9 by logits, 1e150 by numbers are held there, all others are exact.
    gradient_cap: the norm that the gradient of one example by its numbers may have; longer ones are scaled down.
    Raises ValueError for shapes that do not fit and for pointers to nodes that a step cannot see.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain is one of {', '.join(DOMAINS)}, got {domain!r}")
    steps = _check_shapes(sign, log, operator, left, right)
    system = DOMAINS[domain]
    sign, log = sign.double(), log.double()
    if gradient_cap is not None:
        log = _capped(log, gradient_cap)
    log = held_gradient(log, STEEPEST)
    finite = log.isfinite() & sign.isfinite()
    log = torch.where(finite & (sign != 0), log, 0.0)
    state = system.enter(
        torch.where(finite, sign.sign() + (sign - sign.detach()), 0.0), log.clamp(-system.limit, system.limit)
    )
    invalid, overflow = ~finite, log.abs() > system.limit

    select = _Selection(hard, temperature, system)
    for step in range(steps):
        nodes = (state, invalid, overflow)
        x = select.node(nodes, _of_step(left, sign, step), sign.shape[-1] + step)
        y = select.node(nodes, _of_step(right, sign, step), sign.shape[-1] + step)
        result = select.operator(_results(system, x, y), _of_step(operator, sign, step))
        state = torch.cat((state, result[0]), -2)
        invalid, overflow = torch.cat((invalid, result[1]), -1), torch.cat((overflow, result[2]), -1)
    sign, log = system.leave(state)
    sign, log = torch.where(invalid, 0.0, sign), torch.where(invalid, 0.0, log)
    return Execution(sign, log, overflow & ~invalid, invalid)


def execute_stack(sign: Tensor, log: Tensor, operator: Tensor, **options: Any) -> Execution:
    """The seed's stack machine: a fold from the right over the N = D + 1 numbers.

    Slot D - 1 of `operator` (..., D) or (..., D, 5) acts first, on the two top items (second, top); so the expression
    is v0 o0 (v1 o1 (v2 o2 ...)). An identity keeps the second item. Options as in `execute`, of which it is a case.
    """
    steps = operator.shape[-1] if operator.dtype == torch.int64 else operator.shape[-2]
    if sign.shape[-1] != steps + 1:
        raise ValueError(f"a stack of {sign.shape[-1]} numbers takes {sign.shape[-1] - 1} operators, got {steps}")
    left, right = stack_pointers(steps, device=sign.device)
    flipped = operator.flip(-1 if operator.dtype == torch.int64 else -2)
    shape = (*sign.shape[:-1], steps)
    return execute(sign, log, flipped, left.expand(shape), right.expand(shape), **options)


def stack_pointers(steps: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """(D,) nodes that each step of the stack machine takes: (second, top)."""
    step = torch.arange(steps, device=device)
    return steps - 1 - step, torch.where(step == 0, steps, steps + step)


def _check_shapes(sign: Tensor, log: Tensor, operator: Tensor, left: Tensor, right: Tensor) -> int:
    """The number of steps D."""
    if sign.shape != log.shape or not sign.dim() or not sign.shape[-1]:
        raise ValueError(f"sign and log are (..., N) alike, N >= 1; got {tuple(sign.shape)} and {tuple(log.shape)}")
    batch, numbers = sign.shape[:-1], sign.shape[-1]
    steps = operator.shape[len(batch)] if operator.dim() > len(batch) else -1
    choices = {"operator": (operator, (CLASSES - 1, CLASSES)), "left": (left, None), "right": (right, None)}
    for name, (tensor, classes) in choices.items():
        wanted = [(*batch, steps)]
        if tensor.is_floating_point():
            wanted = [(*batch, steps, width) for width in classes or (numbers + steps,)]
        if tuple(tensor.shape) not in wanted:
            raise ValueError(f"{name} of {numbers} numbers, {steps} steps is {wanted[-1]}; got {tuple(tensor.shape)}")
        if classes is None and not tensor.is_floating_point() and tensor.device.type == "cpu":  # no wait for a GPU
            seen = numbers + torch.arange(steps, device=tensor.device)
            if bool(((tensor >= seen) | (tensor < -1)).any()):
                raise ValueError(f"{name}: step s sees the nodes 0..{numbers - 1} + s; got one beyond")
    return steps


def _of_step(choices: Tensor, sign: Tensor, step: int) -> Tensor:
    """(...) ids or (..., C) logits of one step."""
    return choices.select(sign.dim() - 1, step)


def _results(system: Any, x: tuple[Tensor, ...], y: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What each of the five classes makes of two operands: states (..., 5, K), invalid and overflow (..., 5)."""
    (a, bad_a, over_a), (b, bad_b, over_b) = x, y
    outcomes = [
        system.add(a, b),
        system.add(a, system.negate(b)),
        system.multiply(a, b),
        system.divide(a, b),
        (a, torch.zeros_like(over_a)),
    ]
    states = torch.stack([state for state, _ in outcomes], -2)
    overflow = torch.stack([over | over_a | over_b for _, over in outcomes], -1)
    invalid = torch.stack([bad_a | bad_b] * CLASSES, -1)
    invalid[..., 3] |= system.leave(b)[0] == 0
    invalid[..., IDENTITY], overflow[..., IDENTITY] = bad_a, over_a
    return states, invalid, overflow


class _Selection:
    """Picks one of several values by id, or by logits as `execute` says."""

    def __init__(self, hard: bool, temperature: float, system: Any):
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.hard, self.temperature, self.system = hard, temperature, system

    def node(self, nodes: tuple[Tensor, ...], choice: Tensor, visible: int) -> tuple[Tensor, ...]:
        """One operand, (..., K) with its flags (...)."""
        if choice.is_floating_point():
            return self._mixed(nodes, choice[..., :visible])
        return self._picked(nodes, choice.clamp(min=0))

    def operator(self, results: tuple[Tensor, ...], choice: Tensor) -> tuple[Tensor, ...]:
        """The node of a step, (..., 1, K) with its flags (..., 1)."""
        if choice.is_floating_point():
            classes = choice.shape[-1]  # 4 or 5
            states, *flags = results
            kept = states[..., :classes, :], *(flag[..., :classes] for flag in flags)
            state, invalid, overflow = self._mixed(kept, choice)
        else:
            state, invalid, overflow = self._picked(results, torch.where(choice < 0, IDENTITY, choice))
        return state[..., None, :], invalid[..., None], overflow[..., None]

    @staticmethod
    def _picked(values: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
        states, invalid, overflow = values
        index = index[..., None]
        state = states.gather(-2, index[..., None].expand(*index.shape, states.shape[-1]))[..., 0, :]
        return state, invalid.gather(-1, index)[..., 0], overflow.gather(-1, index)[..., 0]

    def _mixed(self, values: tuple[Tensor, ...], logits: Tensor) -> tuple[Tensor, ...]:
        """An invalid value has no part in a mixture; the mixture is invalid where its largest part is."""
        states, invalid, _ = values
        weights = F.softmax(held_gradient(logits.double(), STEEPEST_CHOICE) / self.temperature, -1)
        picked = self._picked(values, weights.argmax(-1))
        if self.hard:
            chosen = F.one_hot(weights.argmax(-1), weights.shape[-1]).double()
            soft = self._unsquashed(states, invalid, chosen + (weights - weights.detach()))
            return (picked[0].detach() + (soft - soft.detach()), *picked[1:])
        valid = weights * ~invalid
        soft = self._unsquashed(states, invalid, valid / valid.sum(-1, keepdim=True).clamp(min=1e-300))
        return (torch.where(picked[1][..., None], picked[0], soft), *picked[1:])

    def _unsquashed(self, states: Tensor, invalid: Tensor, weights: Tensor) -> Tensor:
        """The state of the mean asinh(v)."""
        squashed = (weights * torch.where(invalid, 0.0, self.system.squash(states))).sum(-1)
        return self.system.unsquash(held_gradient(squashed, STEEPEST))


def _capped(tensor: Tensor, most: float) -> Tensor:
    """The tensor (..., N) itself; backward, each example's gradient is scaled down to the norm `most`."""
    if not tensor.requires_grad:
        return tensor
    tensor = tensor.view_as(tensor)
    tensor.register_hook(lambda grad: grad * (most / grad.norm(dim=-1, keepdim=True).clamp(min=most)))
    return tensor
