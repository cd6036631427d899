"""The head and its loss with float8 products: the speedrun's, in chunks of rows like `linear_cross_entropy`.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), R rows of a chunk, I inputs, V vocabulary, K
targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .chunked_cross_entropy import chunks, rows_per_chunk, wide_dtype
from .cross_entropy import IGNORE, check_arguments, target_weight_tensor, targets_of_rows
from .fp8 import E4M3, E5M2, quantize_both
from .fp8_linear import fp8_linear_backend
from .linear_cross_entropy import linear_cross_entropy
from .scaled_product import check_multiples, emulated_product, scaled_product
from .softcap import SigmoidCap, Softcap, softcap_from_numbers, softcap_numbers
from .softcapped_cross_entropy import gradient_of_rows, losses_and_lse_of_rows


class HeadScales(NamedTuple):
    """Static scales of the head's tensors; the defaults are the speedrun's: |x| ≤ 100, |W| ≤ 1.6, |gradient| ≤ 0.75
    in units of e4m3's largest number, for the gradient of a sum of losses."""

    x: float = 100 / 448
    weight: float = 1.6 / 448
    grad: float = 0.75 / 448


SPEEDRUN_SCALES = HeadScales()
SPEEDRUN_CAP = SigmoidCap()


def fp8_linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = SPEEDRUN_CAP,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    reduction: Literal["mean", "sum"] = "sum",
    scales: HeadScales = SPEEDRUN_SCALES,
    chunk_rows: int | None = None,
    backend: Literal["auto", "scaled_mm", "emulated", "linear"] = "auto",
) -> Tensor:
    """`linear_cross_entropy` with x and W in e4m3 and the gradient by the logits in e5m2; see there for the arguments.

    x (..., T, I), weight (V, I), targets (..., T); a head stored as (I, V) is passed as its transposed view. Logits are
    bfloat16; the gradient by x has the dtype of x, that by W is summed in float32 and cast.
    scales   static; values beyond saturate. `grad` is for the sum of the losses: what multiplies the result (a mean,
             1 / accumulation steps) multiplies gradients after their products, so nothing underflows for it. The
             speedrun puts that factor into grad_s instead, which gives the same float8 numbers.
    backend  as `fp8_linear_backend`; "linear" is `linear_cross_entropy` in the dtype of x.

    Raises ValueError for arguments that contradict each other or the backend.
    """
    check_arguments(x.shape[:-1], targets, softcap, z_loss, reduction, "x (..., T, I)")
    if reduction == "none":
        raise ValueError("reduction 'none' has no float8 form; use linear_cross_entropy")
    chosen = fp8_linear_backend(x, weight, backend=backend)
    options: dict[str, Any] = {"target_weights": target_weights, "softcap": softcap, "ignore_index": ignore_index}
    if chosen == "linear":
        return linear_cross_entropy(
            x, weight.to(x.dtype), targets, z_loss=z_loss, reduction=reduction, chunk_rows=chunk_rows, **options
        )
    if any(not scale > 0 for scale in scales):
        raise ValueError(f"scales must be positive, got {scales}")
    x_NI = x.reshape(-1, x.shape[-1])
    rows = chunk_rows or rows_per_chunk(len(x_NI), weight)
    if chosen == "scaled_mm":
        check_multiples(chunk_rows=rows)
    weights_K = target_weight_tensor(target_weights, x)
    targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    grad = torch.is_grad_enabled()
    total = _FP8Sum.apply(
        x_NI,
        weight,
        targets_NK,
        weights_K,
        softcap_numbers(softcap),
        ignore_index,
        z_loss,
        rows,
        list(scales),
        chosen == "emulated",
        grad and x.requires_grad,
        grad and weight.requires_grad,
    )
    return total if reduction == "sum" else total / (targets != ignore_index).sum()


class _FP8Sum(torch.autograd.Function):
    """The sum of the losses; its gradients are known when it is."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_VI: Tensor, *options: Any) -> Tensor:
        run = fp8_linear_cross_entropy_sum if torch.compiler.is_compiling() else fp8_sum_of_losses
        total, grad_x_NI, grad_weight_VI = run(x_NI, weight_VI, *options)
        ctx.save_for_backward(grad_x_NI, grad_weight_VI)
        ctx.dtypes = (x_NI.dtype, weight_VI.dtype)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_weight = ctx.needs_input_grad[:2]
        found = zip(ctx.saved_tensors, ctx.dtypes, (need_x, need_weight), strict=True)
        return *((saved * grad).to(dtype) if need else None for saved, dtype, need in found), *[None] * 10


def fp8_sum_of_losses(
    x_NI: Tensor,
    weight_VI: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    rows: int,
    scales: list[float],
    emulate: bool,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses, its gradient by x, and by the weight in float32; those not needed are empty."""
    x_scale, weight_scale, grad_scale = (torch.full((), s, dtype=torch.float32, device=x_NI.device) for s in scales)
    product = emulated_product if emulate else scaled_product
    form = softcap_from_numbers(cap)
    w_q_VI, w_q_IV = quantize_both(weight_VI, weight_scale, E4M3, transposed=need_x)
    losses_N = x_NI.new_empty(len(x_NI), dtype=wide_dtype(x_NI))
    grad_x_NI, grad_weight_VI = _new_gradients(x_NI, weight_VI, need_x, need_weight)
    grad_weight_VI.zero_()
    for chunk in chunks(len(x_NI), rows):
        x_q_RI, x_q_IR = quantize_both(x_NI[chunk], x_scale, E4M3, transposed=need_weight)
        logits_RV = product(x_q_RI, w_q_VI.t(), x_scale, weight_scale, torch.bfloat16, True)
        losses_N[chunk], lse_R = losses_and_lse_of_rows(
            logits_RV, targets_NK[chunk], weights_K, form, ignore_index, z_loss
        )
        if not (need_x or need_weight):
            continue
        g_q_RV = gradient_of_rows(
            torch.ones_like(lse_R),
            lse_R,
            logits_RV,
            targets_NK[chunk],
            weights_K,
            form,
            ignore_index,
            z_loss,
            E5M2,
            scales[2],
        )
        del logits_RV
        if need_x:
            grad_x_NI[chunk] = product(g_q_RV, w_q_IV.t(), grad_scale, weight_scale, x_NI.dtype, False)
        if need_weight:
            # (I, R)(R, V) as in the speedrun, shown as (V, I): the right factor is the large one that is stored anew
            grad_weight_VI += product(g_q_RV.t().contiguous(), x_q_IR.t(), grad_scale, x_scale, torch.float32, False)
        del g_q_RV
    return losses_N.sum(), grad_x_NI, grad_weight_VI


fp8_linear_cross_entropy_sum = torch.library.custom_op(
    "gpt_kernels::fp8_linear_cross_entropy_sum", fp8_sum_of_losses, mutates_args=()
)


@fp8_linear_cross_entropy_sum.register_fake
def _(x_NI: Tensor, weight_VI: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x_NI.new_empty((), dtype=wide_dtype(x_NI)), *_new_gradients(x_NI, weight_VI, *options[-2:])


def _new_gradients(x_NI: Tensor, weight_VI: Tensor, need_x: bool, need_weight: bool) -> tuple[Tensor, Tensor]:
    grad_x_NI = torch.empty_like(x_NI, memory_format=torch.contiguous_format) if need_x else x_NI.new_empty(0)
    size = weight_VI.shape if need_weight else (0,)
    return grad_x_NI, weight_VI.new_empty(size, dtype=torch.float32)
