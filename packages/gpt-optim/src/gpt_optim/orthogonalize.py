"""Orthogonalise matrices with products only: two iterations towards the polar factor U Vᵀ of X = U S Vᵀ.

Both have the signature f(x_KMN) -> x_KMN, take any leading dimensions, and return the dtype of their input. They drive
every singular value near 1 rather than to 1, which is all that Muon needs.

Shape suffixes: K matrices in a stack (any leading dimensions in the arguments), M rows, N columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Coefficients = tuple[float, float, float]

NEWTON_SCHULZ: Coefficients = (3.4445, -4.7750, 2.0315)

POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def newton_schulz(x_KMN: Tensor, *, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """The quintic iteration of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Five steps send singular values between 0.01 and 1 times the Frobenius norm into [0.68, 1.21].
    `dtype` is that of the products: bfloat16 on CUDA and float32 elsewhere unless given.
    """
    return _iterate(x_KMN, [NEWTON_SCHULZ] * steps, dtype, margin=1.0, eps=1e-7)


def polar_express(x_KMN: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Five steps, each with the best quintic for its interval (Amsel et al. 2025, arXiv:2505.16932).

    Singular values between 0.001 and 1 times the Frobenius norm end in [0.84, 1.15]; `dtype` as in `newton_schulz`.
    """
    return _iterate(x_KMN, POLAR_EXPRESS, dtype, margin=1.02, eps=1e-6)


def _iterate(
    input_KMN: Tensor, coefficients: Iterable[Coefficients], dtype: torch.dtype | None, margin: float, eps: float
) -> Tensor:
    """X <- a X + (b X Xᵀ + c (X Xᵀ)²) X per step, on the wide side, where X Xᵀ is the small one."""
    if input_KMN.dim() < 2:
        raise ValueError(f"only matrices can be orthogonalised, got shape {tuple(input_KMN.shape)}")
    dtype = dtype or (torch.bfloat16 if input_KMN.is_cuda else torch.float32)
    tall = input_KMN.size(-2) > input_KMN.size(-1)
    wide_KMN = (input_KMN.mT if tall else input_KMN).to(dtype)
    x_KMN = wide_KMN.reshape(-1, *wide_KMN.shape[-2:])
    x_KMN = x_KMN / (margin * x_KMN.norm(dim=(-2, -1), keepdim=True) + eps)
    for a, b, c in coefficients:
        gram_KMM = x_KMN @ x_KMN.mT
        polynomial_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        x_KMN = torch.baddbmm(x_KMN, polynomial_KMM, x_KMN, beta=a)
    x_KMN = x_KMN.reshape(wide_KMN.shape)
    return (x_KMN.mT if tall else x_KMN).to(input_KMN.dtype)
