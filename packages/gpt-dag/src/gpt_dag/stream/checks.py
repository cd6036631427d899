"""Which plans are fit to be examples, without leaving the device: their values, and the split that they belong to."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.stream.bits import key_of, mix

LARGEST, SMALLEST = 1e12, 1e-9
UNIT = 2.0**-52
"""Above the relative error of one float64 operation."""
BUCKETS = 100
SPLITS = {"train": range(98), "val": range(98, 99), "test": range(99, 100)}
"""Buckets of every split."""
NUMBER, STEP = key_of(1), key_of(2)  # starts of the two kinds of nodes


def presentable(plans: Plans) -> Tensor:
    """(B,) bool: no division by 0, and the value is 0 or between 1e-9 and 1e12 in magnitude.

    Of those with a divisor or a value too near the limit for float64 to tell, all are refused; a value that is 0 in
    float64 counts as 0 if its error is certainly below 1e-9.
    """
    value, error, defined = bounded_values(plans)
    result, bound = value[:, -1].abs(), error[:, -1]
    certain_zero = (result == 0) & (bound < SMALLEST)
    in_range = (result - bound >= SMALLEST) & (result + bound <= LARGEST)
    return defined & (certain_zero | in_range)


def bounded_values(plans: Plans) -> tuple[Tensor, Tensor, Tensor]:
    """Values of all nodes (B, N + D) float64, a bound of the error of each, and whether no divisor (B,) may be 0.

    A divisor counts as 0 if its bound reaches half of it, so a plan that is let through certainly does not divide by
    0. Steps that are not used have the value of the result.
    """
    value = plans.node_room(plans.values())
    error = value.abs() * UNIT
    defined = torch.ones(len(plans), 1, dtype=torch.bool, device=plans.device)
    D = plans.operator.shape[1]
    for step in range(D):
        operator, left, right = (t[:, step : step + 1] for t in (plans.operator, plans.left, plans.right))
        a, b = value.gather(1, left), value.gather(1, right)
        e, f = error.gather(1, left), error.gather(1, right)
        size = b.abs()
        divides = operator == 3
        nonzero = size > 2 * f
        defined = defined & (nonzero | ~divides)
        divisor = torch.where(divides & nonzero, b, 1.0)
        quotient = a / divisor
        signed = torch.where(operator == 1, -b, b)
        new = torch.where(divides, quotient, torch.where(operator == 2, a * b, a + signed))
        grown = torch.where(operator == 2, a.abs() * f + size * e + e * f, e + f)
        # |b| - f > |b| / 2
        grown = torch.where(divides, 2 * (e + quotient.abs() * f) / divisor.abs(), grown) + new.abs() * UNIT
        unused = operator < 0
        value[:, step - D] = torch.where(unused, a, new)[:, 0]
        error[:, step - D] = torch.where(unused, e, grown)[:, 0]
    return value, error, defined[:, 0]


def fingerprint(plans: Plans) -> Tensor:
    """(B,) int64, not negative: a hash of what an expression says, however it is written.

    Numbers count by value (2.50, 2.5 and 250% are one), so do operators and the shape of the tree; the style, redundant
    parentheses, the padding and the order of independent steps do not. A Merkle tree of splitmix64's finalizer: the
    hash of a step is a function of its operator and the hashes of its operands.
    """
    scaled, decimals = plans.scaled, plans.decimals
    for zeros in (16, 8, 4, 2, 1):  # written at the end of the decimals
        ends = (scaled % 10**zeros == 0) & (decimals >= zeros)
        scaled, decimals = torch.where(ends, scaled // 10**zeros, scaled), decimals - zeros * ends.long()
    negative = plans.negative & (scaled > 0)
    node = plans.node_room(mix(mix(scaled + NUMBER) + decimals * 2 + negative.long()))
    D = plans.operator.shape[1]
    for step in range(D):
        operator, left, right = (t[:, step : step + 1] for t in (plans.operator, plans.left, plans.right))
        a, b = node.gather(1, left), node.gather(1, right)
        joined = mix(mix(a + STEP + operator) + b * 3)
        node[:, step - D] = torch.where(operator < 0, a, joined)[:, 0]
    return node[:, -1] & torch.iinfo(torch.int64).max


def in_split(fingerprints: Tensor, split: str) -> Tensor:
    """(B,) bool: every expression is in exactly one split, in all its styles and for every seed."""
    bucket, wanted = fingerprints % BUCKETS, SPLITS[split]
    return (bucket >= wanted.start) & (bucket < wanted.stop)
