"""The update rules as they run: in place, on stacks of equal matrices and on lists of tensors.

`reference.py` has the same rules one tensor at a time, to read. Scalars that change from step to step (rates, momentum,
decay) may be floats or 0-d CPU tensors; compiled code wants tensors, since a new float would compile anew.

Shape suffixes: K matrices in a stack, R rows and N columns as stored, B blocks in a matrix, M rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw

Scalar = float | Tensor
Tensors = list[Tensor]

SCALES: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}


PIECE = 2**15
"""Entries that a rule of several passes takes at a time on a CPU."""


@dataclass(frozen=True)
class Blocks:
    """`count` consecutive blocks of `rows` rows, from row `start` of a matrix, that are orthogonalised apart."""

    start: int
    count: int
    rows: int

    @staticmethod
    def of(split: Sequence[int]) -> tuple[Blocks, ...]:
        """Runs of equal blocks: (64, 32, 32) is one block of 64 rows and two of 32."""
        runs: list[Blocks] = []
        start = 0
        for rows in split:
            if runs and runs[-1].rows == rows:
                runs[-1] = Blocks(runs[-1].start, runs[-1].count + 1, rows)
            else:
                runs.append(Blocks(start, 1, rows))
            start += rows
        return tuple(runs)

    def second_moment_shape(self, columns: int) -> tuple[int, int, int]:
        """NorMuon keeps one mean square for each index of a block's longer side."""
        return (self.count, self.rows, 1) if self.rows >= columns else (self.count, 1, columns)


def muon_direction(
    grad_KRN: Tensor,
    average_KRN: Tensor,
    second_moments: Sequence[Tensor],
    *,
    momentum: Scalar,
    beta2: Scalar,
    nesterov: bool,
    transposed: bool,
    blocks: Sequence[Blocks],
    factors: Sequence[float],
    narrow: bool,
    orthogonalize: Callable[[Tensor], Tensor],
) -> Tensor:
    """What Muon (Jordan et al. 2024) or, with `second_moments`, NorMuon (Li et al. 2025, arXiv:2510.05491) subtracts
    from the weights per unit of learning rate, [K, R, N]. Updates `average_KRN` and the second moments.

    factors: what the updates of each of `blocks` are multiplied with. narrow: round to bfloat16 what is orthogonalised,
    and each result from there on.
    """
    grad_KRN = grad_KRN.to(average_KRN.dtype)
    average_KRN.lerp_(grad_KRN, 1.0 - momentum)
    direction_KRN = torch.lerp(grad_KRN, average_KRN, momentum) if nesterov else average_KRN
    if narrow:
        direction_KRN = direction_KRN.bfloat16()
    if transposed:
        direction_KRN = direction_KRN.mT
    parts = []
    for i, run in enumerate(blocks):
        block_KBMN = direction_KRN.narrow(-2, run.start, run.count * run.rows).unflatten(-2, (run.count, run.rows))
        update_KBMN = orthogonalize(block_KBMN)
        if second_moments:
            update_KBMN = equalize(update_KBMN, second_moments[i], beta2)
        parts.append((update_KBMN if factors[i] == 1.0 else update_KBMN * factors[i]).flatten(-3, -2))
    update_KRN = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
    return update_KRN.mT if transposed else update_KRN


def equalize(x_KBMN: Tensor, second_moment: Tensor, beta2: Scalar) -> Tensor:
    """NorMuon's variance reduction: rows (columns, where the matrix is wide) are divided by the root of a moving mean
    of their mean square; each matrix keeps its Frobenius norm. Updates `second_moment`, in whose dtype all is worked
    out; the result has that of `x_KBMN`.
    """
    tall = second_moment.size(-1) == 1
    mean_square = x_KBMN.to(second_moment.dtype).square().mean(dim=-1 if tall else -2, keepdim=True)
    second_moment.lerp_(mean_square, 1.0 - beta2)
    factors = second_moment.clamp(min=1e-10).rsqrt()
    # Both norms follow from the means: there are as many entries behind each of them.
    before = mean_square.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (mean_square * factors.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return x_KBMN * (factors * before / after.clamp(min=1e-10)).to(x_KBMN.dtype)


def subtract(
    weights: Tensors, updates: Tensors, low_bits: Tensors, *, lr: Scalar, decay: Scalar, cautious: bool
) -> None:
    """weights <- (1 - decay)·weights - lr·updates; `cautious`: only entries with weight·update >= 0 decay.

    `low_bits`: for bfloat16 weights the 16 bits that float32 would have beyond them, or [] to do without. Then the
    pair is a float32 weight: nothing is rounded away, and the bfloat16 weight is its truncation (never written twice).
    """
    if low_bits:
        exact = [join(high, low) for high, low in zip(weights, low_bits, strict=True)]
        subtract(exact, updates, [], lr=lr, decay=decay, cautious=cautious)
        for weight, low, value in zip(weights, low_bits, exact, strict=True):
            high, rest = split(value)
            weight.copy_(high)
            low.copy_(rest)
        return
    updates = [u.to(w.dtype) for u, w in zip(updates, weights, strict=True)]
    if cautious:
        kept = [w * (w * u >= 0) for w, u in zip(weights, updates, strict=True)]
        torch._foreach_sub_(weights, torch._foreach_mul(kept, decay))
    elif isinstance(decay, Tensor) or decay:
        torch._foreach_mul_(weights, 1.0 - decay)
    if isinstance(lr, Tensor):
        torch._foreach_sub_(weights, torch._foreach_mul(updates, lr))
    else:
        torch._foreach_add_(weights, updates, alpha=-lr)


def join(high: Tensor, low: Tensor) -> Tensor:
    """The float32 tensor whose upper half is the bfloat16 `high` and whose lower half is the int16 `low`."""
    return ((high.view(torch.int16).int() << 16) | (low.int() & 0xFFFF)).view(torch.float32)


def split(value: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `join`."""
    bits = value.view(torch.int32)
    return (bits >> 16).to(torch.int16).view(torch.bfloat16), (bits & 0xFFFF).to(torch.int16)


def adamw(
    weights: Tensors,
    grads: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    steps: Tensors,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with torch's one-pass kernel, which counts `steps` on.

    Moments must have the weights' dtype.
    """
    torch_adamw(
        weights,
        [g.to(w.dtype) for g, w in zip(grads, weights, strict=True)],
        first_moments,
        second_moments,
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=betas[0],
        beta2=betas[1],
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        maximize=False,
    )


def decay_cautiously(weights: Tensors, grads: Tensors, first_moments: Tensors, *, decay: float, beta1: float) -> None:
    """What of cautious AdamW comes before `adamw` without decay: weights <- (1 - decay)·weights where the update, which
    has the sign of the first moment as it will be, shrinks them. In pieces that stay in a CPU's caches.
    """
    for weight, grad, first in zip(weights, grads, first_moments, strict=True):
        whole = weight.numel() <= PIECE or not all(t.is_contiguous() for t in (weight, grad, first))
        pieces = ([t] if whole else t.view(-1).split(PIECE) for t in (weight, grad, first))
        for w, g, m in zip(*pieces, strict=True):
            decays = torch.lerp(m, g.to(m.dtype), 1.0 - beta1).mul_(w).sign_().clamp_(min=0)  # 0 or 1
            w.addcmul_(w, decays, value=-decay)


def adamw_exact(
    weights: Tensors,
    grads: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    *,
    rate: Scalar,
    decay: Scalar,
    beta1: Scalar,
    beta2: Scalar,
    eps: Scalar,
    cautious: bool,
) -> None:
    """AdamW with moments wider than the weights, and cautious decay: for bfloat16, where 1 - beta2 would vanish.

    The update is rate·m/(√v + eps), where m and v start at 0: see `adam_rate`. The sum of decay and update is formed
    in the moments' dtype and rounded once. `cautious`: entries decay only where weight·update > 0.
    """
    for weight, grad, first, second in zip(weights, grads, first_moments, second_moments, strict=True):
        grad, wide = grad.to(first.dtype), weight.to(first.dtype)
        first.lerp_(grad, 1.0 - beta1)
        second.lerp_(grad.square(), 1.0 - beta2)
        update = first / (second.sqrt() + eps) * rate
        decayed = wide * (wide * update > 0) if cautious else wide
        weight.copy_(wide - (update + decay * decayed))


def adam_rate(lr: float, betas: tuple[float, float], eps: float, t: int, raw_eps: bool) -> tuple[float, float]:
    """(rate, eps) for moments that start at 0, at the t-th update, so that rate·m/(√v + eps) is
    lr·m̂/(√v̂ + eps), with m̂ = m/(1 - β1ᵗ) and v̂ = v/(1 - β2ᵗ). `raw_eps`: with eps as it is beside √v.
    """
    root = math.sqrt(1.0 - betas[1] ** t)
    return lr * root / (1.0 - betas[0] ** t), eps if raw_eps else eps * root
