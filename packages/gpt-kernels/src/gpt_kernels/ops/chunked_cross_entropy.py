"""What is behind `linear_cross_entropy`: a loop over chunks of rows, which the compiler sees as one node.

The functions run as they are; their operators are for compiled graphs, and the first call of one imports the compiler.

Dimensions: N rows, R rows of a chunk, I inputs, V vocabulary, K targets per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .cross_entropy_rows import forward_backward_rows, forward_rows

CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**28}
"""Logits held at a time: on a CPU as much as keeps the products fast, on a GPU enough to fill it."""


def sum_of_losses(
    x_NI: Tensor,
    weight_VI: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    rows: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of the losses, (N,) log-sum-exp, the gradient of the sum by x, and by the weight in float32; gradients
    not needed are empty."""
    losses_N, lse_N, grad_x_NI, grad_weight_VI = _chunked(
        None, x_NI, weight_VI, targets_NK, weights_K, cap, ignore_index, z_loss, rows, need_x, need_weight
    )
    return losses_N.sum(), lse_N, grad_x_NI, grad_weight_VI


linear_cross_entropy_sum = torch.library.custom_op(
    "gpt_kernels::linear_cross_entropy_sum", sum_of_losses, mutates_args=()
)


@linear_cross_entropy_sum.register_fake
def _(x_NI: Tensor, weight_VI: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = wide_dtype(x_NI)
    total, lse_N = x_NI.new_empty((), dtype=dtype), x_NI.new_empty(len(x_NI), dtype=dtype)
    return total, lse_N, *_new_gradients(x_NI, weight_VI, *options[-2:])


def losses_of_chunks(
    x_NI: Tensor,
    weight_VI: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """(N,) losses and (N,) log-sum-exp"""
    losses_N, lse_N, _, _ = _chunked(
        None, x_NI, weight_VI, targets_NK, weights_K, cap, ignore_index, z_loss, rows, False, False
    )
    return losses_N, lse_N


linear_cross_entropy_rows = torch.library.custom_op(
    "gpt_kernels::linear_cross_entropy_rows", losses_of_chunks, mutates_args=()
)


@linear_cross_entropy_rows.register_fake
def _(x_NI: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    losses_N, lse_N = (x_NI.new_empty(len(x_NI), dtype=wide_dtype(x_NI)) for _ in range(2))
    return losses_N, lse_N


def gradients_of_chunks(
    grad_N: Tensor,
    x_NI: Tensor,
    weight_VI: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    rows: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients by x and by the weight, each in its dtype, of the rows' losses weighted with grad_N."""
    _, _, grad_x_NI, grad_weight_VI = _chunked(
        grad_N, x_NI, weight_VI, targets_NK, weights_K, cap, ignore_index, z_loss, rows, need_x, need_weight
    )
    return grad_x_NI, grad_weight_VI.to(weight_VI.dtype)


linear_cross_entropy_rows_backward = torch.library.custom_op(
    "gpt_kernels::linear_cross_entropy_rows_backward", gradients_of_chunks, mutates_args=()
)


@linear_cross_entropy_rows_backward.register_fake
def _(grad_N: Tensor, x_NI: Tensor, weight_VI: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    grad_x_NI, grad_weight_VI = _new_gradients(x_NI, weight_VI, *options[-2:])
    return grad_x_NI, grad_weight_VI.to(weight_VI.dtype)


def _chunked(
    grad_N: Tensor | None,
    x_NI: Tensor,
    weight_VI: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    rows: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) losses, (N,) log-sum-exp and the gradients of Σ grad_N · losses_N (None: of the sum)."""
    losses_N, lse_N = (x_NI.new_empty(len(x_NI), dtype=wide_dtype(x_NI)) for _ in range(2))
    grad_x_NI, grad_weight_VI = _new_gradients(x_NI, weight_VI, need_x, need_weight)
    grad_weight_VI.zero_()
    for chunk in chunks(len(x_NI), rows):
        x_RI = x_NI[chunk]
        logits_RV = x_RI @ weight_VI.t()
        if not (need_x or need_weight):
            losses_N[chunk], lse_N[chunk] = forward_rows(
                logits_RV, targets_NK[chunk], weights_K, cap, ignore_index, z_loss
            )
            continue
        grad_R = None if grad_N is None else grad_N[chunk]
        losses_N[chunk], lse_N[chunk], grad_RV = forward_backward_rows(
            grad_R, logits_RV, targets_NK[chunk], weights_K, cap, ignore_index, z_loss
        )
        del logits_RV
        if need_x:
            torch.mm(grad_RV, weight_VI, out=grad_x_NI[chunk])
        if need_weight:
            _add_product(grad_weight_VI, grad_RV.t(), x_RI)
        del grad_RV  # before the next chunk's logits are made
    return losses_N, lse_N, grad_x_NI, grad_weight_VI


def rows_per_chunk(N: int, weight_VI: Tensor) -> int:
    """A multiple of 64 that holds at most about `CHUNK_ELEMENTS` logits, and on a GPU an eighth of all."""
    rows = CHUNK_ELEMENTS["cuda" if weight_VI.is_cuda else "cpu"] // max(weight_VI.shape[0], 1)
    if weight_VI.is_cuda:
        rows = min(rows, N // 8)
    return max(rows // 64 * 64, 64)


def chunks(N: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, N)) for start in range(0, N, rows))


def wide_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _new_gradients(x_NI: Tensor, weight_VI: Tensor, need_x: bool, need_weight: bool) -> tuple[Tensor, Tensor]:
    grad_x_NI = torch.empty_like(x_NI, memory_format=torch.contiguous_format) if need_x else x_NI.new_empty(0)
    dtype = wide_dtype(weight_VI)
    return grad_x_NI, torch.empty_like(weight_VI, dtype=dtype) if need_weight else weight_VI.new_empty(0, dtype=dtype)


def _add_product(total_VI: Tensor, a_VR: Tensor, b_RI: Tensor) -> None:
    """total += a b, with a float32 total of half-precision factors too."""
    if a_VR.dtype == total_VI.dtype:
        total_VI.addmm_(a_VR, b_RI)
    elif a_VR.is_cuda:
        total_VI += torch.mm(a_VR, b_RI, out_dtype=total_VI.dtype)
    else:
        for rows in chunks(len(total_VI), 8192):
            total_VI[rows] += a_VR[rows] @ b_RI
