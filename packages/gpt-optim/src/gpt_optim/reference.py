"""The update rules as written in the papers: one tensor at a time, new values returned. Slow; for reading and tests.

Everything is computed in the dtype of the tensors given; float64 tells rounding from mistakes.

Shape suffixes: M rows, N columns, R rows of one of the matrices fused in a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def polar(x_MN: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, U Vᵀ of X = U S Vᵀ, computed in float64."""
    u_MR, _, v_RN = torch.linalg.svd(x_MN.double(), full_matrices=False)
    return u_MR @ v_RN


def newton_schulz(x_MN: Tensor, steps: int = 5) -> Tensor:
    """Muon's quintic (Jordan et al. 2024) on one matrix."""
    x_MN = x_MN / (x_MN.norm() + 1e-7)
    for _ in range(steps):
        gram_MM = x_MN @ x_MN.T
        x_MN = 3.4445 * x_MN - 4.7750 * gram_MM @ x_MN + 2.0315 * gram_MM @ gram_MM @ x_MN
    return x_MN


def polar_express(x_MN: Tensor, margin: float = 1.02) -> Tensor:
    """Polar Express (Amsel et al. 2025, arXiv:2505.16932): five steps, each with the best quintic for its interval.

    `margin` keeps the largest singular value below 1, where the first polynomial was made for.
    """
    x_MN = x_MN / (margin * x_MN.norm() + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram_MM = x_MN @ x_MN.T
        x_MN = a * x_MN + (b * gram_MM + c * gram_MM @ gram_MM) @ x_MN
    return x_MN


def shape_scale(name: str, rows: int, columns: int) -> float:
    """Factor of an orthogonalised update of this shape.

    "original": √max(1, rows/columns), Jordan et al. "match_rms_adamw": 0.2·√max(rows, columns), Liu et al. 2025,
    arXiv:2502.16982. "spectral_unclamped": √(rows/columns), Yang et al. 2023, arXiv:2310.17813.
    """
    factors = {
        "original": math.sqrt(max(1, rows / columns)),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
        "spectral_unclamped": math.sqrt(rows / columns),
    }
    return factors[name]


def average_and_direction(
    grad: Tensor, average: Tensor, momentum: float, nesterov: bool = True
) -> tuple[Tensor, Tensor]:
    """The new moving average of gradients, and what to orthogonalise: the average, or Nesterov's look ahead of it."""
    average = momentum * average + (1 - momentum) * grad
    return average, momentum * average + (1 - momentum) * grad if nesterov else average


def reduce_variance(x_MN: Tensor, second: Tensor, beta2: float) -> tuple[Tensor, Tensor]:
    """NorMuon's variance reduction (Li et al. 2025, arXiv:2510.05491): the new matrix and the new second moment.

    One moving mean of squares for each index of the longer axis, (M, 1) where M >= N and (1, N) otherwise, without bias
    correction. The matrix keeps its Frobenius norm.
    """
    rows, columns = x_MN.shape
    mean_square = x_MN.square().mean(dim=1 if rows >= columns else 0, keepdim=True)
    second = beta2 * second + (1 - beta2) * mean_square
    scaled_MN = x_MN / second.clamp(min=1e-10).sqrt()
    return scaled_MN * (x_MN.norm() / scaled_MN.norm().clamp(min=1e-10)), second


def descend(weight: Tensor, update: Tensor, lr: float, decay: float, cautious: bool = False) -> Tensor:
    """weight − decay·weight − lr·update; `cautious`: only where the update shrinks the weight too does it decay."""
    return weight - decay * weight * (update * weight >= 0 if cautious else 1) - lr * update


def muon_step(
    weight_MN: Tensor,
    grad_MN: Tensor,
    average_MN: Tensor,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = True,
    scale: str = "original",
    split: Sequence[int] | None = None,
    transposed: bool = False,
    scale_decay: bool = False,
    cautious: bool = False,
    orthogonalize: Callable[[Tensor], Tensor] = newton_schulz,
) -> tuple[Tensor, Tensor]:
    """One Muon step (Jordan et al. 2024): the new weight and the new average of gradients.

    `split`: rows of each fused matrix. `transposed`: the weight is stored (columns, rows). Decay is lr·weight_decay;
    `scale_decay`: times the scale by shape, as nanochat and the GPT speedrun have it.
    """
    average_MN, direction_MN = average_and_direction(grad_MN, average_MN, momentum, nesterov)
    new_weights = []
    parts = zip(blocks(weight_MN, split, transposed), blocks(direction_MN, split, transposed), strict=True)
    for weight_RN, direction_RN in parts:
        factor = shape_scale(scale, *direction_RN.shape)
        update_RN = orthogonalize(direction_RN)
        decay = lr * weight_decay * (factor if scale_decay else 1)
        new_weights.append(descend(weight_RN, update_RN, lr * factor, decay, cautious))
    return unite(new_weights, transposed), average_MN


def normuon_step(
    weight_MN: Tensor,
    grad_MN: Tensor,
    average_MN: Tensor,
    seconds: Sequence[Tensor],
    lr: float,
    momentum: float,
    weight_decay: float,
    beta2: float = 0.95,
    nesterov: bool = True,
    scale: str = "original",
    split: Sequence[int] | None = None,
    transposed: bool = False,
    scale_decay: bool = False,
    cautious: bool = True,
    orthogonalize: Callable[[Tensor], Tensor] = polar_express,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One NorMuon step: the new weight, average of gradients and second moments, one for each fused matrix.

    As `muon_step`, with the variance reduced after the orthogonalisation.
    """
    average_MN, direction_MN = average_and_direction(grad_MN, average_MN, momentum, nesterov)
    parts = zip(blocks(weight_MN, split, transposed), blocks(direction_MN, split, transposed), seconds, strict=True)
    new_weights, new_seconds = [], []
    for weight_RN, direction_RN, second in parts:
        factor = shape_scale(scale, *direction_RN.shape)
        update_RN, second = reduce_variance(orthogonalize(direction_RN), second, beta2)
        decay = lr * weight_decay * (factor if scale_decay else 1)
        new_weights.append(descend(weight_RN, update_RN, lr * factor, decay, cautious))
        new_seconds.append(second)
    return unite(new_weights, transposed), average_MN, new_seconds


def blocks(x_MN: Tensor, split: Sequence[int] | None = None, transposed: bool = False) -> list[Tensor]:
    """The matrices fused in a weight; `transposed`: those of its transpose."""
    x_MN = x_MN.T if transposed else x_MN
    return list(x_MN.split(list(split) if split else [len(x_MN)]))


def unite(parts: Sequence[Tensor], transposed: bool = False) -> Tensor:
    """The inverse of `blocks`."""
    x_MN = torch.cat(list(parts))
    return x_MN.T if transposed else x_MN


def zero_seconds(weight_MN: Tensor, split: Sequence[int] | None = None, transposed: bool = False) -> list[Tensor]:
    """The second moments that `normuon_step` starts from, one for each fused matrix."""
    shapes = [block.shape for block in blocks(weight_MN, split, transposed)]
    return [weight_MN.new_zeros((rows, 1) if rows >= columns else (1, columns)) for rows, columns in shapes]


def adamw_step(
    weight: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    cautious: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One AdamW step (arXiv:1711.05101), `step` counted from 1: the new weight and moments.

    `eps` is added to the root of the bias-corrected second moment, as in the paper and in torch. `cautious`: only
    where the update shrinks the weight too, update·weight > 0, does the weight decay.
    """
    first, second = adam_moments(grad, first, second, betas)
    update = first / (1 - betas[0] ** step) / ((second / (1 - betas[1] ** step)).sqrt() + eps)
    decay = lr * weight_decay * weight * (update * weight > 0 if cautious else 1)
    return weight - decay - lr * update, first, second


def speedrun_adam_step(
    weight: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cautious Adam as the GPT speedrun has it (modded-nanogpt); it differs from the cautious `adamw_step` in two ways.

    `eps` is added to the root of the second moment before its bias is corrected, which makes it 1/√(1 − β2ᵗ) times as
    large; and the decay is lr²·weight_decay, so that `adamw_step` needs weight_decay·lr to do the same.
    """
    first, second = adam_moments(grad, first, second, betas)
    update = lr * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step) * first / (second.sqrt() + eps)
    decay = lr**2 * weight_decay * weight * (update * weight > 0)
    return weight - decay - update, first, second


def adam_moments(grad: Tensor, first: Tensor, second: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The new moving averages of gradients and of their squares."""
    return betas[0] * first + (1 - betas[0]) * grad, betas[1] * second + (1 - betas[1]) * grad**2


def split_master(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 weight as a bfloat16 one, its upper 16 bits (truncated, not rounded), and an int16 of the lower."""
    bits = weight.view(torch.int32)
    low = bits & 0xFFFF
    return (bits >> 16).to(torch.int16).view(torch.bfloat16), torch.where(low < 0x8000, low, low - 0x10000).short()


def join_master(high: Tensor, low: Tensor) -> Tensor:
    """The float32 weight of `split_master`'s two halves, bit by bit."""
    return (high.view(torch.int16).int() * 0x10000 + (low.int() & 0xFFFF)).view(torch.float32)


def global_norm(grads: Sequence[Tensor]) -> Tensor:
    """The root of the sum of squares of all entries of all gradients."""
    return sum((grad.square().sum() for grad in grads), torch.zeros(())).sqrt()


def clipped(grads: Sequence[Tensor], max_norm: float) -> tuple[list[Tensor], Tensor]:
    """The gradients scaled to a global norm of at most `max_norm`, and their norm before (Pascanu et al. 2013)."""
    norm = global_norm(grads)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return [grad * factor for grad in grads], norm
