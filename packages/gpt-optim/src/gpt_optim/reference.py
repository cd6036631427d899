"""The update rules as written in the papers: one tensor at a time, new values returned. Slow; for reading and tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def polar(x_MN: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, U Vᵀ of X = U S Vᵀ, computed in float64."""
    u_MR, _, v_RN = torch.linalg.svd(x_MN.double(), full_matrices=False)
    return u_MR @ v_RN


def newton_schulz(x_MN: Tensor, steps: int = 5) -> Tensor:
    """Muon's quintic (Jordan et al. 2024) on one matrix, in the dtype given."""
    x_MN = x_MN / (x_MN.norm() + 1e-7)
    for _ in range(steps):
        gram_MM = x_MN @ x_MN.T
        x_MN = 3.4445 * x_MN - 4.7750 * gram_MM @ x_MN + 2.0315 * gram_MM @ gram_MM @ x_MN
    return x_MN


def muon_step(
    weight_MN: Tensor,
    grad_MN: Tensor,
    average_MN: Tensor,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = True,
    scale: str = "original",
    split: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """One Muon step: the new weight and the new average of gradients; `split`: rows of each fused matrix."""
    average_MN = momentum * average_MN + (1 - momentum) * grad_MN
    direction_MN = momentum * average_MN + (1 - momentum) * grad_MN if nesterov else average_MN
    updates = []
    for block_RN in direction_MN.split(split or (len(direction_MN),)):
        rows, columns = block_RN.shape
        original = math.sqrt(max(1, rows / columns))
        factor = original if scale == "original" else 0.2 * math.sqrt(max(rows, columns))
        updates.append(factor * newton_schulz(block_RN))
    return weight_MN - lr * weight_decay * weight_MN - lr * torch.cat(updates), average_MN


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
) -> tuple[Tensor, Tensor, Tensor]:
    """One AdamW step (arXiv:1711.05101), `step` counted from 1: the new weight and moments."""
    beta1, beta2 = betas
    first = beta1 * first + (1 - beta1) * grad
    second = beta2 * second + (1 - beta2) * grad**2
    update = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + eps)
    return weight - lr * weight_decay * weight - lr * update, first, second
