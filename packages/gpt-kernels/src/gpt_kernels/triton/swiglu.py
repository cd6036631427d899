"""SwiGLU in one pass each way: reads gate and up, two halves of one projection where they lie; keeps nothing else.

Dimensions: M rows, N columns.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import on_device_of, rows_of


@triton.jit
def forward_kernel(gate, up, out, N, gate_m, up_m, BN: tl.constexpr):
    """out = silu(gate) · up for BN columns of a row; gate_m, up_m: strides from row to row. out is contiguous."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < N
    gate_N = tl.load(gate + row * gate_m + column, mask=inside, other=0.0).to(tl.float32)
    up_N = tl.load(up + row * up_m + column, mask=inside, other=0.0).to(tl.float32)
    out_N = gate_N * tl.sigmoid(gate_N) * up_N
    tl.store(out + row * N + column, out_N.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(grad, gate, up, grad_gate, grad_up, N, grad_m, gate_m, up_m, BN: tl.constexpr):
    """grad_up = grad · silu(gate); grad_gate = grad · up · σ (1 + gate (1 − σ)) with σ = sigmoid(gate)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < N
    grad_N = tl.load(grad + row * grad_m + column, mask=inside, other=0.0).to(tl.float32)
    gate_N = tl.load(gate + row * gate_m + column, mask=inside, other=0.0).to(tl.float32)
    up_N = tl.load(up + row * up_m + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid_N = tl.sigmoid(gate_N)
    up_grad_N = grad_N * gate_N * sigmoid_N
    gate_grad_N = grad_N * up_N * sigmoid_N * (1 + gate_N * (1 - sigmoid_N))
    at = row * N + column
    tl.store(grad_gate + at, gate_grad_N.to(grad_gate.dtype.element_ty), mask=inside)
    tl.store(grad_up + at, up_grad_N.to(grad_up.dtype.element_ty), mask=inside)


def _grid(x_MN: Tensor) -> tuple[tuple[int, int], int]:
    """(rows, blocks of columns) and the size of a block: 16 bytes a thread and load, two of them for 16-bit floats."""
    block = min(triton.next_power_of_2(x_MN.shape[1]), 2048)
    return (x_MN.shape[0], triton.cdiv(x_MN.shape[1], block)), block


@torch.library.custom_op("gpt_kernels::swiglu", mutates_args=())
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See `gpt_kernels.swiglu`."""
    out = gate.new_empty(gate.shape)
    if out.numel():
        gate_MN, up_MN = rows_of(gate), rows_of(up)
        grid, block = _grid(gate_MN)
        with on_device_of(gate):
            forward_kernel[grid](gate_MN, up_MN, out, gate_MN.shape[1], gate_MN.stride(0), up_MN.stride(0), BN=block)
    return out


@swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.custom_op("gpt_kernels::swiglu_backward", mutates_args=())
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    grad_gate, grad_up = gate.new_empty(gate.shape), up.new_empty(up.shape)
    if gate.numel():
        rows = [rows_of(tensor) for tensor in (grad, gate, up)]
        grid, block = _grid(rows[0])
        strides = [tensor.stride(0) for tensor in rows]
        with on_device_of(gate):
            backward_kernel[grid](*rows, grad_gate, grad_up, rows[0].shape[1], *strides, BN=block)
    return grad_gate, grad_up


@swiglu_backward.register_fake
def _(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return swiglu_backward(grad, *ctx.saved_tensors)


swiglu.register_autograd(_backward, setup_context=_setup_context)
