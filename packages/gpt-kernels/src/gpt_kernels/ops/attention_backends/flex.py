"""FlexAttention: soft caps and masks in one fused kernel that skips what nobody sees. CUDA; forward only on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ..attention_masks import document_numbers


def flex(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    causal: bool,
    window: int | None,
    softcap: float,
    scale: float | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Tensor:
    B, H, T, _ = q_BHTK.shape
    S = k_BGSK.shape[2]
    device = q_BHTK.device

    if mask is None and cu_seqlens is None:
        block_mask = _fixed_block_mask(causal, window, T, S, device)
    else:
        rule = _rule(causal, window, T, S, mask if mask is None else mask.expand(B, H, T, S), cu_seqlens)
        sizes = (None, None) if mask is None else (B, H)
        block_mask = _made(rule, *sizes, T, S, device)

    bound = torch.full((), softcap, device=device)  # a tensor: FlexAttention refuses numbers that vary between calls

    def cap(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return bound * torch.tanh(score / bound)

    kind = (bool(softcap), causal, window is None, mask is None, cu_seqlens is None)
    out = _run(device, kind)(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        score_mod=cap if softcap else None,
        block_mask=block_mask,
        scale=scale,
        enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def _rule(
    causal: bool, window: int | None, T: int, S: int, mask_BHTS: Tensor | None, cu_seqlens: Tensor | None
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether query t sees key s, as FlexAttention asks it."""
    document_T = None if cu_seqlens is None else document_numbers(cu_seqlens, T)

    def seen(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        here = t + (S - T)
        answer = s <= here if causal else s >= 0
        if window is not None:
            answer = answer & (s > here - window)
        if document_T is not None:
            answer = answer & (document_T[t] == document_T[s])
        return answer if mask_BHTS is None else answer & mask_BHTS[b, h, t, s]

    return seen


def _fixed_block_mask(causal: bool, window: int | None, T: int, S: int, device: torch.device) -> BlockMask | None:
    if not causal:
        return None
    if torch.compiler.is_compiling():
        return _made(_rule(causal, window, T, S, None, None), None, None, T, S, device)
    return _kept_block_mask(window, T, S, device)


@lru_cache(maxsize=32)
def _kept_block_mask(window: int | None, T: int, S: int, device: torch.device) -> BlockMask:
    """Causal masks depend on sizes alone: every layer and step has the same, an evaluation in inference mode too."""
    with torch.inference_mode(False):
        return _made(_rule(True, window, T, S, None, None), None, None, T, S, device)


def _made(rule: Any, B: int | None, H: int | None, T: int, S: int, device: torch.device) -> BlockMask:
    """On CUDA by a compiled function: the other way holds T × S answers."""
    make = create_block_mask
    if not torch.compiler.is_compiling() and device.type != "cpu":
        make = _compiled(_create, tuple(cell.cell_contents is None for cell in rule.__closure__))
    return make(rule, B, H, T, S, device=device)


def _run(device: torch.device, kind: tuple[bool, ...]) -> Callable[..., Any]:
    if torch.compiler.is_compiling() or device.type == "cpu":
        return flex_attention
    return _compiled(_attend, (*kind, torch.is_grad_enabled()))


def _attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, **options: Any) -> Any:
    attend: Any = flex_attention  # its overloads cannot be told apart by **options
    return attend(q_BHTK, k_BGSK, v_BGSK, **options)


def _create(*args: Any, **options: Any) -> BlockMask:
    return create_block_mask(*args, **options)


@cache
def _compiled(function: Any, kind: tuple[bool, ...]) -> Callable[..., Any]:
    """`function` compiled anew for each kind of call. torch compiles the code of one function at most eight times; from
    then on FlexAttention would run as written, with T × S scores in memory. fullgraph: then it raises instead.
    """
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return torch.compile(copy, fullgraph=True)
