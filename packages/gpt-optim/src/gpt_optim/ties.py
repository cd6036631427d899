"""Two parameters that are trained as one for a while: tied weights that can part later, each with the state of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt_kernels import transpose_add, transpose_copy
from gpt_optim.buckets import grad_of
from gpt_optim.units import AdamWUnit, State, Unit


@dataclass
class Tie:
    """`follower` is a copy of `leader`: it has no update of its own, its gradient counts as the leader's.

    A head and an embedding are the usual pair. In memory they are two, so that they can part: after the step of index
    `until` (0-based; None for never) the follower goes on by itself, with a copy of the leader's moments and count of
    updates, as the GPT speedrun does after two thirds of a run.
    """

    leader: Tensor
    follower: Tensor
    transposed: bool = False
    """The follower is the leader's transpose."""
    until: int | None = None

    def holds(self, step: int) -> bool:
        """Whether the two are still one at the step of this index, counted from 0."""
        return self.until is None or step <= self.until

    def collect(self) -> None:
        """Add the follower's gradient to the leader's, once: it is gone then."""
        if self.follower.grad is None:
            return
        added, grad = self.follower.grad, grad_of(self.leader)
        grad.copy_(transpose_add(added, grad)) if self.transposed else grad.add_(added)
        self.follower.grad = None

    def publish(self) -> None:
        """Copy the leader's weights to the follower."""
        weight = self.leader.detach()
        self.follower.detach().copy_(transpose_copy(weight) if self.transposed else weight)

    def part(self, state: State, unit: AdamWUnit) -> None:
        """Give the follower, which `unit` updates, what the leader has in `state`. Collective where it is shared."""
        of_leader, own = state[self.leader], unit.bucket.own
        for key, ours in (("exp_avg", unit.first[0]), ("exp_avg_sq", unit.second[0])):
            whole = of_leader[key]
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            ours.copy_((whole.mT if self.transposed else whole)[own])
        unit.steps[0].copy_(of_leader["step"])


def check_ties(ties: Sequence[Tie], units: Sequence[Unit]) -> None:
    """ValueError for ties that the optimizer cannot keep."""
    followers = {tie.follower for tie in ties}
    if len(followers) < len(ties) or followers & {tie.leader for tie in ties}:
        raise ValueError("a parameter follows one other, which follows none")
    for tie in ties:
        found = [unit for p in (tie.leader, tie.follower) for unit in units if p in set(unit.bucket.params)]
        if len(found) != 2 or not all(isinstance(unit, AdamWUnit) for unit in found):
            raise ValueError("tied parameters must be in groups of kind adamw")
        leader, follower = found
        shape = tie.leader.T.shape if tie.transposed else tie.leader.shape
        if tie.follower.shape != shape or tie.follower.dtype != tie.leader.dtype:
            raise ValueError(
                f"a parameter of shape {tuple(tie.follower.shape)}, {tie.follower.dtype} cannot follow one of "
                f"{tuple(tie.leader.shape)}, {tie.leader.dtype}{' transposed' if tie.transposed else ''}"
            )
        if isinstance(tie.leader, DTensor) or isinstance(tie.follower, DTensor):
            raise ValueError("parameters that FSDP has sharded cannot be tied here: share them in the model instead")
        if len(follower.bucket.params) != 1:
            raise ValueError("a parameter that follows another needs a group of its own")
        every = follower.group["every"]
        if leader.group["every"] != every:
            raise ValueError(f"tied parameters need one `every`, got {leader.group['every']} and {every}")
        if tie.until is not None and (tie.until < 0 or (tie.until + 1) % every):
            raise ValueError(
                f"with every={every} tied parameters are updated at steps {every - 1}, {2 * every - 1}, ..., of which "
                f"one must be the last as one: got until={tie.until}"
            )


def due_at(step: int, every: int) -> int:
    """The first step from `step` on at which a group with `every` is updated."""
    return step + (-(step + 1)) % every
