"""Linear map y = x Wᵀ + b.

torch sends float32 matrix products on CPUs to MKL, which leaves the AVX-512 units of AMD processors unused: there,
oneDNN is twice as fast at the same precision, forward and backward. On AMD processors without AVX-512 MKL is the faster
one. Both compute in IEEE float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_linear, check_one_dtype
from .derivatives import is_differentiated_again
from .dispatch import are_plain

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has oneDNN; a fact of the build, not of the machine."""

PREFER_ONEDNN = HAS_ONEDNN and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether oneDNN is the faster library on this processor."""

MIN_ROWS = 16
"""Below this many rows (decoding) both read the weights once and are as slow as memory; torch's path starts faster."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b, for x (..., I), weight (O, I), bias (O,); returns (..., O).

    The same as `torch.nn.functional.linear`, which is the reference. Under autocast the dtype follows autocast.
    Differentiable as often as that one. Raises ValueError for shapes and dtypes that do not fit.
    """
    check_linear("linear", x, weight, bias)
    check_one_dtype("linear", x, weight)
    if linear_backend(x, weight) == "onednn":
        return _OneDNNLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def linear_backend(x: Tensor, weight: Tensor) -> str:
    """Which path `linear` takes for these arguments: "onednn" (float32 on a CPU with AVX-512) or "torch"."""
    fits = x.device.type == "cpu" and x.dim() >= 2 and are_plain((x, weight), (torch.float32,))
    if not fits or x.numel() < MIN_ROWS * x.shape[-1]:
        return "torch"
    if torch.is_autocast_enabled("cpu") or not PREFER_ONEDNN:
        return "torch"
    return "onednn"


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a bᵀ + bias by oneDNN; a and b may be transposed views."""
    if torch.compiler.is_compiling():  # Inductor's own lowering of the operator demands constant weights
        return _opaque_product(a, b, bias)
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


@torch.library.custom_op("gpt_kernels::onednn_product", mutates_args=())
def _opaque_product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


@_opaque_product.register_fake
def _(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(*a.shape[:-1], b.shape[0])


class _OneDNNLinear(torch.autograd.Function):
    """oneDNN's operator has no derivative of its own."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        need_x, need_weight, _ = ctx.needs_input_grad
        grad_NO, x_NI = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        product = F.linear if is_differentiated_again() else _product
        grad_x = product(grad_NO, weight.t()).view_as(x) if need_x else None
        grad_weight = product(grad_NO.t(), x_NI.t()) if need_weight else None
        return grad_x, grad_weight, grad_NO.sum(0) if ctx.has_bias else None
