"""A linear map whose three products, one forward and two backward, are done in float8.

Dimensions: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from .checks import check_linear
from .derivatives import differentiable_once
from .dispatch import are_plain, autocast_together
from .fp8 import E4M3, E5M2, FLOAT8, Scale, as_scale, dynamic_scale, quantize_both
from .linear import linear
from .scaled_product import check_multiples, emulated_product, scaled_product

FP8Backend = Literal["auto", "scaled_mm", "emulated", "linear"]
FP8_BACKENDS = ("auto", "scaled_mm", "emulated", "linear")


def fp8_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    x_scale: Scale = None,
    weight_scale: Scale = None,
    grad_scale: Scale = None,
    grad_dtype: torch.dtype = E5M2,
    fast_accumulation: bool = True,
    backend: FP8Backend = "auto",
) -> Tensor:
    """x Wᵀ + b, with x and W rounded to float8 before the product, and the gradient before both products of backward.

    x (..., I), weight (O, I), bias (O,); returns (..., O) in the dtype of x, or that of autocast. The bias is added in
    full precision.
    x_scale, weight_scale, grad_scale   what a value is divided by to bring it into range (`gpt_kernels.quantize`);
        values beyond saturate. A number or a 0-d float32 tensor is a static scale, or a delayed one that the caller
        keeps (`FP8Linear` does); None is dynamic: the largest magnitude of the tensor now.
    grad_dtype   float8_e5m2, or float8_e4m3fn: one more bit of mantissa, a far smaller range.
    fast_accumulation   let the forward product add in less than float32; backward never does.
    backend   see `fp8_linear_backend`. x and weight are e4m3.

    The gradient by the weight leaves its product in float32 and is cast to the dtype of the weight. Differentiable
    once. Raises ValueError for sizes or dtypes that the backend cannot take.
    """
    check_linear("fp8_linear", x, weight, bias)
    chosen = fp8_linear_backend(x, weight, backend=backend)
    (x,) = autocast_together(x)
    if chosen == "linear":
        return linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if grad_dtype not in FLOAT8:
        raise ValueError(f"grad_dtype must be one of {', '.join(map(str, FLOAT8))}, got {grad_dtype}")
    emulate = chosen == "emulated"
    x_NI = x.reshape(-1, x.shape[-1])
    x_scale = as_scale(x_scale, x_NI)
    weight_scale = as_scale(weight_scale, weight)
    fixed = None if grad_scale is None else as_scale(grad_scale, x_NI)
    y_NO = _FP8Linear.apply(x_NI, weight, x_scale, weight_scale, fixed, grad_dtype, fast_accumulation, emulate)
    y = y_NO.view(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias.to(y.dtype)


def fp8_linear_backend(x: Tensor, weight: Tensor, *, backend: FP8Backend = "auto") -> FP8Backend:
    """Which path `fp8_linear` takes.

    auto        "scaled_mm" where float8 is a gain: plain CUDA tensors of at most 32 bits on a GPU with float8 units
                (compute capability 8.9 and up), and rows, inputs and outputs in multiples of 16; else "linear".
    scaled_mm   torch._scaled_mm; also on CPUs, where it is right and slow. ValueError where sizes are not multiples of
                16: CUDA asks for it, CPUs would not.
    emulated    the definition: float8 values, products in float32; any size, any device.
    linear      `gpt_kernels.linear` in the dtype of x: no float8 at all.
    """
    if backend not in FP8_BACKENDS:
        raise ValueError(f"unknown backend {backend!r} of fp8_linear; choose one of {', '.join(FP8_BACKENDS)}")
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight must be (O, {x.shape[-1]}) for x {tuple(x.shape)}, got {tuple(weight.shape)}")
    sizes = {"rows": x.numel() // max(x.shape[-1], 1), "inputs": weight.shape[1], "outputs": weight.shape[0]}
    if backend == "scaled_mm":
        check_multiples(**sizes)
    if backend != "auto":
        return backend
    fits = x.is_cuda and are_plain((x, weight)) and all(n % 16 == 0 for n in sizes.values())
    return "scaled_mm" if fits and torch.cuda.get_device_capability(x.device) >= (8, 9) else "linear"


class _FP8Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_OI: Tensor,
        x_scale: Tensor,
        weight_scale: Tensor,
        grad_scale: Tensor | None,
        grad_dtype: torch.dtype,
        fast: bool,
        emulate: bool,
    ) -> Tensor:
        need_x, need_weight = ctx.needs_input_grad[:2]
        # Both orders of a matrix in one go: a product wants its left factor by rows and its right one by columns.
        x_q_NI, x_q_IN = quantize_both(x_NI, x_scale, E4M3, transposed=need_weight)
        w_q_OI, w_q_IO = quantize_both(weight_OI, weight_scale, E4M3, transposed=need_x)
        ctx.save_for_backward(x_q_IN, w_q_IO, x_scale, weight_scale, grad_scale)
        ctx.options = (x_NI.dtype, weight_OI.dtype, grad_dtype, emulate)
        product = emulated_product if emulate else scaled_product
        return product(x_q_NI, w_q_OI.t(), x_scale, weight_scale, x_NI.dtype, fast)

    @staticmethod
    @differentiable_once("fp8_linear")
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_q_IN, w_q_IO, x_scale, weight_scale, grad_scale = ctx.saved_tensors
        x_dtype, weight_dtype, grad_dtype, emulate = ctx.options
        need_x, need_weight = ctx.needs_input_grad[:2]
        product = emulated_product if emulate else scaled_product
        scale = dynamic_scale(grad_NO, grad_dtype) if grad_scale is None else grad_scale
        g_q_NO, g_q_ON = quantize_both(grad_NO, scale, grad_dtype, transposed=need_weight)
        grad_x = grad_weight = None
        if need_x:
            grad_x = product(g_q_NO, w_q_IO.t(), scale, weight_scale, x_dtype, False)
        if need_weight:
            grad_weight = product(g_q_ON, x_q_IN.t(), scale, x_scale, torch.float32, False).to(weight_dtype)
        return grad_x, grad_weight, None, None, None, None, None, None
