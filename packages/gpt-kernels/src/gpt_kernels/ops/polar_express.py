"""Orthogonalise matrices with products only: two iterations towards the polar factor U Vᵀ of X = U S Vᵀ.

Both have the signature f(x_KMN) -> x_KMN, take any leading dimensions, and return the dtype of their input. They drive
every singular value near 1 rather than to 1, which is all that Muon needs. Neither is differentiable.

Their symmetric products are those of `symmetric`: half the tiles on CUDA, half the panels on CPUs. Autocast does not
reach into them.

Shape suffixes: K matrices in a stack (any leading dimensions in the arguments), M rows, N columns, S the shorter side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from . import symmetric
from .dispatch import without_autocast

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

GRAM_RATIO = 2
"""From this ratio of the longer side to the shorter on, the Gram form is the faster one on CPUs,"""

GRAM_SIDE = 128
"""if the shorter side is at least this."""

GRAM_ENTRIES = 2**18
"""Entries of the matrices that a CPU takes at a time in the Gram form, whose products are small."""

RUN = 3
"""Steps that the Gram form takes at most before it starts anew."""

_CAPABILITIES = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
CPU_HAS_BFLOAT16 = bool(_CAPABILITIES.get("avx512_bf16") or _CAPABILITIES.get("amx_bf16"))
"""Whether this processor multiplies bfloat16 in hardware; elsewhere it is some 50 times slower than float32."""


@torch.no_grad()
def newton_schulz(
    x_KMN: Tensor, *, steps: int = 5, dtype: torch.dtype | None = None, form: Form | None = None
) -> Tensor:
    """The quintic iteration of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Five steps send singular values between 0.01 and 1 times the Frobenius norm into [0.68, 1.21], in bfloat16 into
    [0.65, 1.24], and smaller ones below. Matrices whose norm is far below 1e-7, or beyond 1e19 (its square leaves
    float32), become zero.

    dtype: that of the products; unless given, bfloat16 on CUDA and on CPUs that have units for it, else float32.
    form: how the same polynomials are evaluated, "direct" on X, or "gram" on its small side. Unless given, "gram" for
        large matrices far from square on CPUs in float32 and float64, and "direct" elsewhere. "gram" never computes in
        less than float32, whatever `dtype` is, and its bounds are those of float32 in every dtype (see `_gram`); on
        CUDA, where TF32 may be on, and compiled, it computes in float64.
    ValueError: less than two dimensions, an unknown form, `steps` below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return _orthogonalize(x_KMN, [NEWTON_SCHULZ] * steps, dtype, form, margin=1.0, eps=1e-7)


@torch.no_grad()
def polar_express(x_KMN: Tensor, *, dtype: torch.dtype | None = None, form: Form | None = None) -> Tensor:
    """Five steps, each with the best quintic for its interval (Amsel et al. 2025, arXiv:2505.16932).

    Singular values between 0.001 and 1 times the Frobenius norm end in [0.84, 1.15]; in bfloat16 those between 0.01
    and 1 in [0.80, 1.16]; smaller ones below. A norm far below 1e-6 gives zero. The rest is as in `newton_schulz`.
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
    return symmetric.symmetric_backend(one.expand(min(M, N), max(M, N)))


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
    device = input_KMN.device.type
    dtype = dtype or _fastest_dtype(device)
    eager_cpu = device == "cpu" and not torch.compiler.is_compiling()
    exact = _exact(dtype, eager_cpu)
    M, N = input_KMN.shape[-2:]
    if form is None:
        far_from_square = min(M, N) >= GRAM_SIDE and max(M, N) >= GRAM_RATIO * min(M, N)
        form = "gram" if eager_cpu and exact == dtype and far_from_square else "direct"
    if form not in ("direct", "gram"):
        raise ValueError(f"form must be 'direct' or 'gram', got {form!r}")
    iterate, dtype = (_gram, exact) if form == "gram" else (_direct, dtype)
    x_KMN = input_KMN.reshape(math.prod(input_KMN.shape[:-2]), M, N)
    # A CPU takes as many matrices at a time as it has threads: what passes between products stays in its caches.
    at_once = torch.get_num_threads() if eager_cpu else max(len(x_KMN), 1)
    if eager_cpu and form == "gram":
        at_once = max(at_once, GRAM_ENTRIES // max(M * N, 1))
    parts = []
    with without_autocast(input_KMN):
        for part_KMN in x_KMN.split(at_once):
            # In float32 or wider, and before the conversion: the squares of 300 leave float16.
            wide = torch.promote_types(part_KMN.dtype, torch.float32)
            # Rows first: a CPU's sum over 10⁷ equal entries in one go is one percent off.
            norm_KM1 = torch.linalg.vector_norm(part_KMN, dim=-1, keepdim=True, dtype=wide)
            norm_K11 = torch.linalg.vector_norm(norm_KM1, dim=-2, keepdim=True)
            parts.append(iterate((part_KMN / (margin * norm_K11 + eps)).to(dtype), coefficients))
    result_KMN = parts[0] if len(parts) == 1 else torch.cat(parts)
    return result_KMN.view(input_KMN.shape).to(input_KMN.dtype)


def _fastest_dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" or (device == "cpu" and CPU_HAS_BFLOAT16) else torch.float32


def _exact(dtype: torch.dtype, eager_cpu: bool) -> torch.dtype:
    """The narrowest dtype, at least `dtype`, whose products are as exact as it: float32 unless a setting of torch may
    round its factors to TF32 or bfloat16 (which a traced function cannot look up, nor need it)."""
    settings: Any = torch.backends.mkldnn
    trusted = eager_cpu and settings.matmul.fp32_precision in ("none", "ieee")
    return torch.promote_types(dtype, torch.float32 if trusted else torch.float64)


def _direct(x_KMN: Tensor, coefficients: Sequence[Coefficients]) -> Tensor:
    """X <- a X + (b X Xᵀ + c (X Xᵀ)²) X per step, on the wide side, where X Xᵀ is the small one."""
    tall = x_KMN.size(-2) > x_KMN.size(-1)
    x_KSN = x_KMN.mT if tall else x_KMN
    for a, b, c in coefficients:
        polynomial_KSS = _ba_plus_caa(_product(x_KSN, x_KSN.mT), b, c)
        x_KSN = torch.baddbmm(x_KSN, polynomial_KSS, x_KSN, beta=a)
    return x_KSN.mT if tall else x_KSN


def _gram(x_KMN: Tensor, coefficients: Sequence[Coefficients]) -> Tensor:
    """The same by R = X Xᵀ alone: a step multiplies X by W = a + b R + c R², hence R by W². X is needed twice.

    All of these are polynomials in the first R: they commute, and their products are symmetric. The price is precision.
    Products rounded by u leave errors of about u in R where X has next to nothing. There a step multiplies them by a²,
    and five steps of Polar Express by 989² = 1e6, while W should cancel to about 1 beside them, on the largest singular
    values. So X is formed, and R anew, before the last three steps: 33² = 1087 is left then. With u = 6e-8 in float32,
    and up to a hundred times that where equal entries round alike, this is 0.007 at worst; all five steps at once send
    the singular value of a constant matrix to 20. In bfloat16 (u = 4e-3) it would be 4, and above 2 the quintics
    explode; in TF32 and float16 (5e-4) 0.5. Hence `_exact`.
    """
    while len(coefficients) > RUN:
        head = len(coefficients) % RUN or RUN
        x_KMN, coefficients = _gram(x_KMN, coefficients[:head]), coefficients[head:]
    tall = x_KMN.size(-2) > x_KMN.size(-1)
    gram_KSS = _product(x_KMN.mT, x_KMN) if tall else _product(x_KMN, x_KMN.mT)
    step_KSS = total_KSS = _factor(gram_KSS, coefficients[0])
    for triple in coefficients[1:]:
        gram_KSS = _product(_product(gram_KSS, step_KSS), step_KSS)
        step_KSS = _factor(gram_KSS, triple)
        total_KSS = _product(total_KSS, step_KSS)
    return x_KMN @ total_KSS if tall else total_KSS @ x_KMN


def _factor(gram_KSS: Tensor, coefficients: Coefficients) -> Tensor:
    """a I + b R + c R²"""
    a, b, c = coefficients
    factor_KSS = _ba_plus_caa(gram_KSS, b, c)
    factor_KSS.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor_KSS


def _product(x_KSN: Tensor, y_KNS: Tensor) -> Tensor:
    """The symmetric product, without its checks where a matrix is too small for it: they would take half the time."""
    small = x_KSN.device.type == "cpu" and x_KSN.size(-2) < 2 * symmetric.PANEL
    return torch.bmm(x_KSN, y_KNS) if small else symmetric.symmetric_product(x_KSN, y_KNS)


def _ba_plus_caa(a_KSS: Tensor, b: float, c: float) -> Tensor:
    """b A + c A², likewise."""
    small = a_KSS.device.type == "cpu" and a_KSS.size(-2) < 2 * symmetric.PANEL
    return torch.baddbmm(a_KSS, a_KSS, a_KSS, beta=b, alpha=c) if small else symmetric.ba_plus_caa(a_KSS, b=b, c=c)
