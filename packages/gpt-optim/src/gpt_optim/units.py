"""Units: a bucket of parameters with the state that an update rule keeps for it. A step is a walk over units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from gpt_optim import updates
from gpt_optim.buckets import Bucket, Tensors, state_dtype
from gpt_optim.compilation import maybe_compiled
from gpt_optim.rows import SharedRows, Whole
from gpt_optim.stacks import Stack

Group = dict[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]
Orthogonalize = Callable[[Tensor], Tensor]


class Unit(Protocol):
    group: Group

    @property
    def bucket(self) -> Bucket: ...

    def update(self) -> None:
        """Update the state and the weights of this process; the bucket's `finish` brings the rest."""
        ...

    def expected_bytes(self) -> int:
        """Bytes of this process's state, computed from shapes."""
        ...


class MatrixUnit:
    """Matrices of one shape with their momentum, for Muon and NorMuon.

    Momentum is float32 at least. bfloat16 weights get the 16 bits that make float32 of them (`updates.subtract`).
    """

    def __init__(self, stack: Stack, group: Group, state: State, orthogonalize: Orthogonalize, compiled: bool):
        self.bucket, self.group, self.compiled = stack, group, compiled
        stored = (stack.rows, stack.columns)
        self.in_turn = tuple(group["rate_factors"] or (1.0,))
        rows, columns = reversed(stored) if group["transposed"] else stored
        self.blocks = updates.Blocks.of(group["split"] or (rows,))
        factors = [updates.SCALES[group["scale"]](run.rows, columns) for run in self.blocks]
        same = len(set(factors)) == 1  # then it is cheaper to scale the rate than every update
        self.scale, self.factors = (factors[0], [1.0] * len(factors)) if same else (1.0, factors)

        first = stack.params[0]
        dtype = state_dtype(first)
        state[first]["momentum_buffer"], self.average_kRN = stack.zeros(stored, dtype)
        self.second_moments: Tensors = []
        for i, run in enumerate(self.blocks if group["kind"] == "normuon" else ()):
            state[first][f"second_moment_{i}"], local = stack.zeros(run.second_moment_shape(columns), dtype)
            self.second_moments.append(local)
        self.low_bits: Tensors = []
        if first.dtype == torch.bfloat16 and group["low_bits"]:
            by_param, self.low_bits = stack.zero_low_bits()
            for p, low in by_param.items():
                state[p]["low_bits"] = low

        constants = {"blocks": self.blocks, "factors": self.factors, "orthogonalize": orthogonalize}
        constants |= {"narrow": group["narrow"]}
        self._direction = partial(maybe_compiled(updates.muon_direction, compiled), **constants)
        self._subtract = maybe_compiled(updates.subtract, compiled)

    def update(self) -> None:
        self.bucket.update(self._direct, self._apply)

    def _direct(self, grad_kRN: Tensor, place: slice) -> Tensor:
        return self._direction(
            grad_kRN,
            self.average_kRN[place],
            [moment[place] for moment in self.second_moments],
            momentum=self._scalar(self.group["momentum"]),
            beta2=self._scalar(self.group["beta2"]),
            nesterov=self.group["nesterov"],
            transposed=self.group["transposed"],
        )

    def _apply(self, weights: Tensors, subtracted: Tensors, place: slice) -> None:
        low_bits, scale_decay = self.low_bits[place], self.group["scale_decay"]
        for factor, chosen in self._turns(place.start, len(weights)):
            scale = self.scale * factor
            self._subtract(
                weights[chosen],
                subtracted[chosen],
                low_bits[chosen],
                lr=self._scalar(self.group["lr"] * scale),
                decay=self._scalar(decay_rate(self.group) * (scale if scale_decay else 1.0)),
                cautious=self.group["cautious"],
            )

    def _turns(self, start: int, count: int) -> Iterator[tuple[float, slice]]:
        """The factors of the rate, each with those of `count` matrices here that have it, from the `start`-th on."""
        period = len(self.in_turn)
        for i in range(min(period, count)):
            yield self.in_turn[(self.bucket.first_here + start + i) % period], slice(i, None, period)

    def _scalar(self, value: float) -> float | Tensor:
        return torch.tensor(value) if self.compiled else value

    def expected_bytes(self) -> int:
        stack, width = self.bucket, torch.finfo(state_dtype(self.bucket.params[0])).bits // 8
        columns = stack.rows if self.group["transposed"] else stack.columns
        entries = stack.rows * stack.columns
        if self.group["kind"] == "normuon":
            entries += sum(prod(run.second_moment_shape(columns)) for run in self.blocks)
        low = 2 * stack.num_weights_here if self.low_bits else 0
        return width * entries * (stack.own.stop - stack.own.start) + low


class AdamWUnit:
    """Tensors with their two moments, float32 at least, so that bfloat16 weights can be trained.

    The state's keys and shapes are those of torch.optim.AdamW, so that checkpoints of one suit the other.
    """

    def __init__(self, bucket: Whole | SharedRows, group: Group, state: State, compiled: bool):
        self.bucket, self.group, self.compiled = bucket, group, compiled
        wholes, self.first = bucket.zeros()
        for p, whole in zip(bucket.params, wholes, strict=True):
            state[p]["exp_avg"] = whole
        wholes, self.second = bucket.zeros()
        for p, whole in zip(bucket.params, wholes, strict=True):
            state[p]["exp_avg_sq"] = whole
        # torch's fused kernel wants moments of the weights' dtype, and counts steps on their device.
        self.can_fuse = state_dtype(bucket.params[0]) == bucket.params[0].dtype
        self.state = state
        self.steps = [torch.zeros((), dtype=torch.float32) for _ in bucket.params]
        self._count_on(self.first[0].device if self.fused else torch.device("cpu"))
        self._exact = maybe_compiled(updates.adamw_exact, compiled)

    @property
    def fused(self) -> bool:
        return self.can_fuse and (not self.group["cautious"] or self.first[0].device.type == "cpu")

    def _count_on(self, device: torch.device) -> None:
        """Where the kernel that is used reads the counters of steps."""
        self.steps = [count.to(device) for count in self.steps]
        for p, count in zip(self.bucket.params, self.steps, strict=True):
            self.state[p]["step"] = count

    def update(self) -> None:
        self.bucket.update(self._apply)

    def _apply(self, weights: Tensors, grads: Tensors) -> None:
        if self.fused:
            self._with_torch(weights, grads)
            return
        torch._foreach_add_(self.steps, 1.0)
        group = self.group
        rate, eps = updates.adam_rate(group["lr"], group["betas"], group["eps"], int(self.steps[0]), group["raw_eps"])
        scalar = torch.tensor if self.compiled else float
        self._exact(
            weights,
            grads,
            self.first,
            self.second,
            rate=scalar(rate),
            decay=scalar(decay_rate(group)),
            beta1=scalar(group["betas"][0]),
            beta2=scalar(group["betas"][1]),
            eps=scalar(eps),
            cautious=group["cautious"],
        )

    def _with_torch(self, weights: Tensors, grads: Tensors) -> None:
        group = self.group
        if self.steps[0].device != weights[0].device:  # it was cautious before
            self._count_on(weights[0].device)
        eps, weight_decay = group["eps"], group["weight_decay"] * (group["lr"] if group["squared_decay"] else 1.0)
        if group["raw_eps"]:  # torch's eps stands beside the corrected root
            eps /= math.sqrt(1.0 - group["betas"][1] ** (int(self.steps[0]) + 1))
        if group["cautious"] and weight_decay:
            decay = decay_rate(group)
            updates.decay_cautiously(weights, grads, self.first, decay=decay, beta1=group["betas"][0])
            weight_decay = 0.0
        rates = {"lr": group["lr"], "betas": group["betas"], "eps": eps, "weight_decay": weight_decay}
        updates.adamw(weights, grads, self.first, self.second, self.steps, **rates)

    def expected_bytes(self) -> int:
        width = torch.finfo(state_dtype(self.bucket.params[0])).bits // 8
        return 2 * width * self.bucket.num_weights_here + 4 * len(self.steps)


def decay_rate(group: Group) -> float:
    """The part of a weight that decays at a step: lr·weight_decay, or lr²·weight_decay with `squared_decay`."""
    rate = group["lr"] * group["weight_decay"]
    return rate * group["lr"] if group["squared_decay"] else rate
