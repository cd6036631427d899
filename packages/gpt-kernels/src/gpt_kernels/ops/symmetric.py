"""Matrix products whose result is symmetric: only the lower tiles are computed, the upper ones are their mirror.

They are what Muon's orthogonalisations spend their time on. Dimensions: ... any leading ones, S the side of the result,
K summed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .dispatch import fits_triton

PANEL = 128
"""Rows of a product computed at a time on a CPU: fewer would save more flops in slower products."""


def xxt(x: Tensor) -> Tensor:
    """x xᵀ for x (..., S, K); returns (..., S, S). Pass `x.mT` for xᵀ x: no copy is made. Differentiable."""
    return symmetric_product(x, x.mT)


def xxt_reference(x: Tensor) -> Tensor:
    """The definition of `xxt`."""
    return x @ x.mT


def ba_plus_caa(a: Tensor, *, b: float, c: float) -> Tensor:
    """b a + c a² for symmetric a (..., S, S), in one pass: the polynomial of a Newton-Schulz step.

    Symmetry of a is taken on trust. Differentiable.
    """
    return symmetric_product(a, a, a, alpha=c, beta=b)


def ba_plus_caa_reference(a: Tensor, *, b: float, c: float) -> Tensor:
    """The definition of `ba_plus_caa`."""
    return b * a + c * (a @ a)


def symmetric_product(
    x: Tensor, y: Tensor, addend: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """alpha · x y + beta · addend for x (..., S, K), y (..., K, S) and addend (..., S, S), of one dtype, where x y and
    the addend are known to be symmetric: y = xᵀ, or polynomials of one symmetric matrix. Differentiable.

    Raises ValueError for shapes that differ.
    """
    square = (*x.shape[:-1], x.shape[-2])
    if x.dim() < 2 or y.dim() < 2 or x.shape != y.mT.shape or (addend is not None and addend.shape != square):
        shapes = [tuple(tensor.shape) for tensor in (x, y, addend) if tensor is not None]
        raise ValueError(f"symmetric products need x (..., S, K), y (..., K, S) and addend (..., S, S), got {shapes}")
    backend = symmetric_backend(x, y, addend)
    if backend == "triton":
        from ..triton.symmetric import symmetric_product as fused

        return fused(x, y, addend, alpha, beta)
    if backend == "panels":
        return _by_panels(x, y, addend, alpha, beta)
    return symmetric_product_reference(x, y, addend, alpha=alpha, beta=beta)


def symmetric_product_reference(
    x: Tensor, y: Tensor, addend: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """The definition of `symmetric_product`."""
    if addend is None:
        product = x @ y
        return product if alpha == 1 else alpha * product
    if x.dim() == 2:
        return torch.addmm(addend, x, y, beta=beta, alpha=alpha)
    B = math.prod(x.shape[:-2])
    flat = (tensor.reshape(B, *tensor.shape[-2:]) for tensor in (addend, x, y))
    return torch.baddbmm(*flat, beta=beta, alpha=alpha).view(addend.shape)


def symmetric_backend(x: Tensor, y: Tensor | None = None, addend: Tensor | None = None) -> str:
    """Which path `symmetric_product`, and with it `xxt` and `ba_plus_caa`, takes for these arguments.

    triton  plain CUDA tensors of 16-bit floats, sides from 64 on and multiples of 8.
    panels  CPU tensors of float32 or float64 that need no gradient, sides of two panels or more; not while
            torch.compile traces.
    torch   everything else: the whole product.
    """
    S, K = x.shape[-2:]
    if x.is_cuda:
        fits = fits_triton(x, y, addend, dtypes=(torch.bfloat16, torch.float16)) and min(S, K) >= 64
        same = all(tensor is None or tensor.dtype == x.dtype for tensor in (y, addend))
        return "triton" if fits and same and S % 8 == K % 8 == 0 else "torch"
    exact = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"
    if not exact or S < 2 * PANEL or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return "torch"
    needs_grad = any(tensor is not None and tensor.requires_grad for tensor in (x, y, addend))
    return "torch" if needs_grad and torch.is_grad_enabled() else "panels"


def _by_panels(x: Tensor, y: Tensor, addend: Tensor | None, alpha: float, beta: float) -> Tensor:
    """Panels of rows, each up to the diagonal, then mirrored."""
    B, (S, K) = math.prod(x.shape[:-2]), x.shape[-2:]
    x_BSK, y_BKS = x.reshape(B, S, K), y.reshape(B, K, S)
    addend_BSS = None if addend is None else addend.reshape(B, S, S)
    out_BSS = x_BSK.new_empty(B, S, S)
    for top in range(0, S, PANEL):
        end = min(top + PANEL, S)
        panel = (slice(None), slice(top, end), slice(0, end))
        rows, columns = x_BSK[:, top:end], y_BKS[:, :, :end]
        if addend_BSS is not None:
            torch.baddbmm(addend_BSS[panel], rows, columns, beta=beta, alpha=alpha, out=out_BSS[panel])
        else:
            torch.bmm(rows, columns, out=out_BSS[panel])
            if alpha != 1:
                out_BSS[panel].mul_(alpha)
        out_BSS[:, :top, top:end].copy_(out_BSS[:, top:end, :top].mT)
    return out_BSS.view(*x.shape[:-1], S)
