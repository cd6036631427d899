"""The two-layer perceptron with ReLU² (Primer, https://arxiv.org/abs/2109.08668), fused and thrifty.

One tensor of (M, F) is kept for backward, beside the arguments: of post = relu(x upᵀ)² and relu(x upᵀ), which the
derivative needs, either follows from the other. The kernels keep post; in PyTorch the other one is kept, since a square
is a pass that costs a CPU a quarter of a root.

Dimensions: M rows, D channels in, F hidden, O channels out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .checks import check_floats, check_one_dtype
from .derivatives import differentiable_once
from .dispatch import autocast_together, fits_triton
from .linear import _product, linear_backend


def relu2_mlp(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """relu(x upᵀ)² down for x (..., D), up (F, D), down (F, O); returns (..., O) in the dtype of x.

    Both matrices have the hidden dimension first, as in modded-nanogpt: the second one of a pair of `nn.Linear` is
    `proj.weight.mT`. Keeps one tensor of (..., F) until backward, where the definition keeps two. Differentiable once.
    In float16 kernels pass no gradient for activations below 2⁻¹², whose square is 0. Follows autocast. Raises
    ValueError for shapes and dtypes that do not fit.
    """
    if x.shape[-1] != up.shape[-1] or up.dim() != 2 or down.dim() != 2 or up.shape[0] != down.shape[0]:
        raise ValueError(
            f"relu2_mlp needs x (..., D), up (F, D) and down (F, O), got {tuple(x.shape)}, {tuple(up.shape)} and "
            f"{tuple(down.shape)}; a weight of nn.Linear(F, O) is passed as weight.mT"
        )
    check_floats("relu2_mlp", x, up, down)
    check_one_dtype("relu2_mlp", x, up, down)
    x, up, down = autocast_together(x, up, down)
    if relu2_mlp_backend(x, up, down) == "triton":
        from ..triton.relu2_mlp import relu2_mlp as fused

        return fused(x.reshape(-1, x.shape[-1]), up, down)[0].view(*x.shape[:-1], down.shape[1])
    return _KeepingOne.apply(x, up, down)


def relu2_mlp_reference(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The definition of `relu2_mlp`."""
    return (x @ up.mT).relu().square() @ down


def relu2_mlp_backend(x: Tensor, up: Tensor, down: Tensor) -> str:
    """Which path `relu2_mlp` takes for these arguments: "triton" (plain CUDA tensors of one 16-bit dtype, dimensions
    multiples of 8) or "torch", which keeps as little and computes in separate steps."""
    fits = fits_triton(x, up, down, dtypes=(torch.bfloat16, torch.float16)) and x.dtype == up.dtype == down.dtype
    return "triton" if fits and all(size % 8 == 0 for size in (*up.shape, down.shape[1])) else "torch"


class _KeepingOne(torch.autograd.Function):
    """In PyTorch, with relu(x upᵀ) kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        active_MF = _times(x.reshape(-1, x.shape[-1]), up).relu_()
        ctx.save_for_backward(x, up, down, active_MF)
        return _times(active_MF.square(), down.mT).view(*x.shape[:-1], down.shape[1])

    @staticmethod
    @differentiable_once("relu2_mlp")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, up, down, active_MF = ctx.saved_tensors
        need_x, need_up, need_down = ctx.needs_input_grad
        grad_MO, x_MD = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_down = _times(active_MF.square().mT, grad_MO.mT) if need_down else None
        if not (need_x or need_up):
            return None, None, grad_down
        half_MF = _times(grad_MO, down).mul_(active_MF)  # the factor 2 goes to the smaller results
        grad_x = _times(half_MF, up.mT).mul_(2).view(x.shape) if need_x else None
        return grad_x, _times(half_MF.mT, x_MD.mT).mul_(2) if need_up else None, grad_down


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ, by the library that `linear` takes."""
    return _product(a, b) if linear_backend(a, b) == "onednn" else a @ b.mT
