"""Orthogonalise matrices with products only: two iterations towards the polar factor U Vᵀ of X = U S Vᵀ.

Both have the signature f(x_KMN) -> x_KMN, take any leading dimensions, and return the dtype of their input. They drive
every singular value near 1 rather than to 1, which is all that Muon needs. Neither is differentiable.

Their symmetric products are those of `symmetric`: half the tiles on CUDA, half the panels on CPUs.

Shape suffixes: K matrices in a stack (any leading dimensions in the arguments), M rows, N columns, S the shorter side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .symmetric import ba_plus_caa, symmetric_backend, symmetric_product, xxt

Coefficients = tuple[float, float, float]
Form = Literal["direct", "gram"]

NEWTON_SCHULZ: Coefficients = (3.4445, -4.7750, 2.0315)

POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

GRAM_RATIO = 1.5
"""From this ratio of the longer side to the shorter on, the Gram form is the faster one on CPUs."""

EXACT = (torch.float32, torch.float64)

RESTART = 2
"""Steps of the Gram form in lower precision until it starts anew; four would let noise grow to 100 (low rank)."""

_CAPABILITIES = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
CPU_HAS_BFLOAT16 = bool(_CAPABILITIES.get("avx512_bf16") or _CAPABILITIES.get("amx_bf16"))
"""Whether this processor multiplies bfloat16 in hardware; elsewhere it is some 50 times slower than float32."""


@torch.no_grad()
def newton_schulz(
    x_KMN: Tensor, *, steps: int = 5, dtype: torch.dtype | None = None, form: Form | None = None
) -> Tensor:
    """The quintic iteration of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Five steps send singular values between 0.01 and 1 times the Frobenius norm into [0.68, 1.21].
    `dtype` is that of the products; unless given, bfloat16 on CUDA and on CPUs that have units for it, else float32.
    `form` is how the same polynomials are evaluated: "direct" on X, or "gram" on its small side; unless given, "gram"
    on CPUs for matrices that are far from square, else "direct". In bfloat16 keep "gram" to such matrices: near the
    square its noise passes the bounds above.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return _orthogonalize(x_KMN, [NEWTON_SCHULZ] * steps, dtype, form, margin=1.0, eps=1e-7)


@torch.no_grad()
def polar_express(x_KMN: Tensor, *, dtype: torch.dtype | None = None, form: Form | None = None) -> Tensor:
    """Five steps, each with the best quintic for its interval (Amsel et al. 2025, arXiv:2505.16932).

    Singular values between 0.001 and 1 times the Frobenius norm end in [0.84, 1.15]; `dtype` and `form` as in
    `newton_schulz`.
    """
    return _orthogonalize(x_KMN, POLAR_EXPRESS, dtype, form, margin=1.02, eps=1e-6)


@torch.no_grad()
def polar_express_reference(x_KMN: Tensor) -> Tensor:
    """The definition of `polar_express`, in the dtype of its input: X <- a X + (b X Xᵀ + c (X Xᵀ)²) X five times."""
    wide_KMN = x_KMN.mT if x_KMN.shape[-2] > x_KMN.shape[-1] else x_KMN
    wide_KMN = wide_KMN / (1.02 * wide_KMN.norm(dim=(-2, -1), keepdim=True) + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram_KSS = wide_KMN @ wide_KMN.mT
        wide_KMN = a * wide_KMN + (b * gram_KSS + c * gram_KSS @ gram_KSS) @ wide_KMN
    return wide_KMN.mT if x_KMN.shape[-2] > x_KMN.shape[-1] else wide_KMN


def polar_express_backend(x_KMN: Tensor, dtype: torch.dtype | None = None) -> str:
    """Which path the symmetric products of `polar_express` and `newton_schulz` take: see `symmetric_backend`."""
    M, N = x_KMN.shape[-2:]
    one = x_KMN.new_empty((), dtype=dtype or _fastest_dtype(x_KMN.device.type))
    return symmetric_backend(one.expand(min(M, N), max(M, N)))


def _orthogonalize(
    input_KMN: Tensor,
    coefficients: Sequence[Coefficients],
    dtype: torch.dtype | None,
    form: Form | None,
    margin: float,
    eps: float,
) -> Tensor:
    if input_KMN.dim() < 2:
        raise ValueError(f"only matrices can be orthogonalised, got shape {tuple(input_KMN.shape)}")
    dtype = dtype or _fastest_dtype(input_KMN.device.type)
    eager_cpu = input_KMN.device.type == "cpu" and not torch.compiler.is_compiling()
    M, N = input_KMN.shape[-2:]
    if form is None:
        form = "gram" if eager_cpu and max(M, N) >= GRAM_RATIO * min(M, N) else "direct"
    if form not in ("direct", "gram"):
        raise ValueError(f"form must be 'direct' or 'gram', got {form!r}")
    iterate = _gram if form == "gram" else _direct
    x_KMN = input_KMN.reshape(math.prod(input_KMN.shape[:-2]), M, N)
    # A CPU takes as many matrices at a time as it has threads: what passes between products stays in its caches.
    at_once = torch.get_num_threads() if eager_cpu else max(len(x_KMN), 1)
    parts = []
    for part_KMN in x_KMN.split(at_once):
        part_KMN = part_KMN.to(dtype)
        norm_K11 = part_KMN.norm(dim=(-2, -1), keepdim=True)
        parts.append(iterate(part_KMN / (margin * norm_K11 + eps), coefficients))
    result_KMN = parts[0] if len(parts) == 1 else torch.cat(parts)
    return result_KMN.view(input_KMN.shape).to(input_KMN.dtype)


def _fastest_dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" or (device == "cpu" and CPU_HAS_BFLOAT16) else torch.float32


def _direct(x_KMN: Tensor, coefficients: Sequence[Coefficients]) -> Tensor:
    """X <- a X + (b X Xᵀ + c (X Xᵀ)²) X per step, on the wide side, where X Xᵀ is the small one."""
    tall = x_KMN.size(-2) > x_KMN.size(-1)
    x_KSN = x_KMN.mT if tall else x_KMN
    for a, b, c in coefficients:
        polynomial_KSS = ba_plus_caa(xxt(x_KSN), b=b, c=c)
        x_KSN = torch.baddbmm(x_KSN, polynomial_KSS, x_KSN, beta=a)
    return x_KSN.mT if tall else x_KSN


def _gram(x_KMN: Tensor, coefficients: Sequence[Coefficients]) -> Tensor:
    """The same by R = X Xᵀ alone: a step multiplies X by W = a + b R + c R², hence R by W². X is needed twice.

    All of these are polynomials in the first R: they commute, and their products are symmetric. Squared singular
    values below the rounding of R are lost in it, and noise grows as fast as the signal, to 1e-7 · 989² in float32.
    In bfloat16 it would explode: X is formed, and R anew, after two steps.
    """
    if x_KMN.dtype not in EXACT and len(coefficients) > RESTART:
        x_KMN, coefficients = _gram(x_KMN, coefficients[:RESTART]), coefficients[RESTART:]
    tall = x_KMN.size(-2) > x_KMN.size(-1)
    gram_KSS = xxt(x_KMN.mT if tall else x_KMN)
    step_KSS = total_KSS = _factor(gram_KSS, coefficients[0])
    for triple in coefficients[1:]:
        gram_KSS = symmetric_product(symmetric_product(gram_KSS, step_KSS), step_KSS)
        step_KSS = _factor(gram_KSS, triple)
        total_KSS = symmetric_product(total_KSS, step_KSS)
    return x_KMN @ total_KSS if tall else total_KSS @ x_KMN


def _factor(gram_KSS: Tensor, coefficients: Coefficients) -> Tensor:
    """a I + b R + c R²"""
    a, b, c = coefficients
    factor_KSS = ba_plus_caa(gram_KSS, b=b, c=c)
    factor_KSS.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor_KSS
