"""The head and its loss with float8 products: the speedrun's, in chunks of rows like `linear_cross_entropy`.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), R rows of a chunk, I inputs, V vocabulary, K
targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .cross_entropy_rows import (
    IGNORE,
    LossOptions,
    RowLoss,
    check_reduction,
    gradient,
    losses_and_lse,
    reduce_total,
    row_loss,
)
from .fp8 import E4M3, E5M2, quantize_both
from .fp8_linear import fp8_linear_backend
from .linear_cross_entropy import (
    TotalWithGradients,
    check_head,
    chunks,
    linear_cross_entropy,
    needs_gradients,
    new_results,
    rows_per_chunk,
)
from .scaled_product import check_multiples, emulated_product, scaled_product
from .softcap import SigmoidCap, Softcap


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
    extra_targets: Tensor | None = None,
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
    check_head(x, weight, chunk_rows)
    check_reduction(reduction)
    if reduction == "none":
        raise ValueError("reduction 'none' has no float8 form; use linear_cross_entropy")
    if any(not scale > 0 for scale in scales):
        raise ValueError(f"scales must be positive, got {scales}")
    options: LossOptions = {
        "target_weights": target_weights,
        "extra_targets": extra_targets,
        "softcap": softcap,
        "ignore_index": ignore_index,
        "z_loss": z_loss,
    }
    chosen = fp8_linear_backend(x, weight, backend=backend)
    if chosen == "linear":
        weight = weight.to(x.dtype)
        return linear_cross_entropy(x, weight, targets, reduction=reduction, chunk_rows=chunk_rows, **options)
    loss = row_loss((*x.shape[:-1], weight.shape[0]), x, targets, **options)
    x_NI = x.reshape(-1, x.shape[-1])
    rows = chunk_rows or rows_per_chunk(len(x_NI), weight)
    if chosen == "scaled_mm":
        check_multiples(chunk_rows=rows)
    run = fp8_linear_cross_entropy_chunks if torch.compiler.is_compiling() else fp8_losses_in_chunks
    arguments = (*loss, rows, *needs_gradients(x, weight), list(scales), chosen == "emulated")
    losses_N, *known = run(x_NI.detach(), weight.detach(), *arguments)
    total = TotalWithGradients.apply(losses_N.sum(), x_NI, weight, *known)
    return reduce_total(total, targets, ignore_index, reduction)


def fp8_losses_in_chunks(
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
    scales: list[float],
    emulate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) losses, the gradient of their sum by x, and by the weight in float32; those not needed are empty."""
    loss = RowLoss(targets_NK, weights_K, cap, ignore_index, z_loss)
    x_scale, weight_scale, grad_scale = (torch.full((), s, dtype=torch.float32, device=x_NI.device) for s in scales)
    product = emulated_product if emulate else scaled_product
    w_q_VI, w_q_IV = quantize_both(weight_VI, weight_scale, E4M3, transposed=need_x)
    losses_N, _, grad_x_NI, grad_weight_VI = new_results(x_NI, weight_VI, need_x, need_weight)
    for chunk in chunks(len(x_NI), rows):
        of_chunk = loss.of_rows(chunk)
        x_q_RI, x_q_IR = quantize_both(x_NI[chunk], x_scale, E4M3, transposed=need_weight)
        logits_RV = product(x_q_RI, w_q_VI.t(), x_scale, weight_scale, torch.bfloat16, True)
        losses_N[chunk], lse_R = losses_and_lse(logits_RV, of_chunk)
        if not (need_x or need_weight):
            continue
        g_q_RV = gradient(torch.ones_like(lse_R), lse_R, logits_RV, of_chunk, E5M2, scales[2])
        del logits_RV
        if need_x:
            grad_x_NI[chunk] = product(g_q_RV, w_q_IV.t(), grad_scale, weight_scale, x_NI.dtype, False)
        if need_weight:
            # (I, R)(R, V) as in the speedrun, shown as (V, I): the right factor is the large one that is stored anew
            grad_weight_VI += product(g_q_RV.t().contiguous(), x_q_IR.t(), grad_scale, x_scale, torch.float32, False)
        del g_q_RV
    return losses_N, grad_x_NI, grad_weight_VI


fp8_linear_cross_entropy_chunks = torch.library.custom_op(
    "gpt_kernels::fp8_linear_cross_entropy_chunks", fp8_losses_in_chunks, mutates_args=()
)


@fp8_linear_cross_entropy_chunks.register_fake
def _(x_NI: Tensor, weight_VI: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    losses_N, _, grad_x_NI, grad_weight_VI = new_results(x_NI, weight_VI, *options[6:8])
    return losses_N, grad_x_NI, grad_weight_VI
