"""Causal softmax attention behind one function; `manual` is the definition, the others must agree with it.

Dimensions: B batch, H query heads, G key/value heads (H is a multiple of G), T queries, S keys, K head
dimension.
"""

import importlib
import importlib.util
import itertools
import math
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

_FLASH_MODULES = {
    "flash_attn_2": "flash_attn",
    "flash_attn_3": "flash_attn_interface",
    "flash_attn_4": "flash_attn.cute",
}
ATTENTION_BACKENDS = ("auto", "sdpa", "manual", *_FLASH_MODULES)


class MissingBackendError(ImportError):
    """A backend was asked for by name and its package is not installed."""


def attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float = 0.0,
    scale: float | None = None,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """softmax(cap(q·kᵀ·scale) + mask)·v for every head; returns (B, H, T, K).

    causal   query t sees keys up to its own position. With S > T the queries are the last T positions
             (aligned at the end), as when decoding with a cache.
    window   each query sees `window` keys in all: itself and the window − 1 before it. Needs causal.
    softcap  scores become softcap · tanh(scores / softcap); 0 = off.
    scale    default 1 / sqrt(K).
    mask     bool, broadcastable to (B, H, T, S), True = attend; taken together with causal and window.
             A query that sees no key at all gets zeros.
    cu_seqlens   (D+1,) int32 from 0 to T: the row holds D documents one after the other, and a query sees its own
             only. Documents may be empty. Needs B = 1, T = S and no mask.
    dropout  probability of dropping an attention weight (pass 0.0 when evaluating).
    backend  see `attention_backend`.

    H a multiple of G gives grouped-query attention: query head h reads key head h // (H / G).
    Raises ValueError for arguments that contradict each other or the backend, MissingBackendError for a
    backend whose package is absent.
    """
    chosen = attention_backend(
        q_BHTK, k_BGSK, causal=causal, window=window, softcap=softcap, mask=mask, cu_seqlens=cu_seqlens, backend=backend
    )
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    if cu_seqlens is not None:
        # Lengths are data: a compiled loop over them would be compiled anew for each batch, and on a GPU they are not
        # known here without waiting. There a mask does it, in one graph.
        if chosen == "sdpa" and q_BHTK.device.type == "cpu" and not torch.compiler.is_compiling():
            return _sdpa_by_document(q_BHTK, k_BGSK, v_BGSK, cu_seqlens, causal, window, scale, dropout)
        mask = document_mask(cu_seqlens, T)
    if window is not None and window >= S:
        window = None  # sees everything that causal lets it see
    if chosen == "sdpa":
        return _sdpa(q_BHTK, k_BGSK, v_BGSK, causal, window, scale, mask, dropout)
    if chosen == "manual":
        mask = attention_mask(T, S, causal=causal, window=window, mask=mask, device=q_BHTK.device)
        return _manual(q_BHTK, k_BGSK, v_BGSK, mask, softcap, scale, dropout)
    return _flash(chosen, q_BHTK, k_BGSK, v_BGSK, causal, window, softcap, scale, dropout)


def attention_backend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float = 0.0,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> str:
    """Name of the backend that `attention` runs for these arguments.

    auto      sdpa, or manual where softcap is on (torch's SDPA has no soft cap).
    sdpa      torch.nn.functional.scaled_dot_product_attention.
    manual    the definition, T × S scores in memory.
    flash_attn_2, _3, _4   the flash-attn packages (CUDA, half precision); error when not installed.
    """
    H, G = q_BHTK.shape[1], k_BGSK.shape[1]
    if H % G:
        raise ValueError(f"query heads must be a multiple of key/value heads, got {H} and {G}")
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"window needs causal=True and at least 1 key, got window={window}, causal={causal}")
    if softcap < 0:
        raise ValueError(f"softcap must be 0 (off) or positive, got {softcap}")
    if cu_seqlens is not None and (mask is not None or q_BHTK.shape[0] != 1 or q_BHTK.shape[2] != k_BGSK.shape[2]):
        raise ValueError(
            f"cu_seqlens needs one row (B = 1), as many queries as keys and no mask, got B = {q_BHTK.shape[0]}, "
            f"{q_BHTK.shape[2]} queries, {k_BGSK.shape[2]} keys{'' if mask is None else ' and a mask'}"
        )
    if backend == "auto":
        return "manual" if softcap else "sdpa"
    if backend not in ATTENTION_BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; choose one of {', '.join(ATTENTION_BACKENDS)}")
    if backend == "sdpa" and softcap:
        raise ValueError("attention backend 'sdpa' has no softcap; use backend='auto' or 'manual'")
    if backend in _FLASH_MODULES and (mask is not None or cu_seqlens is not None):
        given = "mask" if mask is not None else "cu_seqlens"
        raise ValueError(f"attention backend {backend!r} takes no {given}; use backend='auto'")
    return backend


def attention_mask(
    T: int,
    S: int,
    *,
    causal: bool = True,
    window: int | None = None,
    mask: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor | None:
    """Bool mask of the keys each query sees, (T, S) or the broadcast with `mask`; None when it hides none."""
    if not causal or (T == 1 and window is None):
        return mask
    query_T1 = torch.arange(S - T, S, device=device).unsqueeze(1)
    key_S = torch.arange(S, device=device)
    seen_TS = key_S <= query_T1
    if window is not None:
        seen_TS = seen_TS & (key_S > query_T1 - window)
    return seen_TS if mask is None else seen_TS & mask


def document_mask(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T, T) bool: which tokens of a packed row belong to the same document."""
    token_T = torch.arange(T, device=cu_seqlens.device)
    document_T = torch.searchsorted(cu_seqlens.to(token_T.dtype), token_T, right=True)
    return document_T.unsqueeze(1) == document_T


def _sdpa_by_document(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    cu_seqlens: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Each document on its own: the scores of different documents are never worked out."""
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != q_BHTK.shape[2] or any(a > b for a, b in itertools.pairwise(ends)):
        raise ValueError(f"cu_seqlens must rise from 0 to the {q_BHTK.shape[2]} tokens of the row, got {cu_seqlens}")
    lengths = [b - a for a, b in itertools.pairwise(ends) if b > a]
    parts = zip(*(x.split(lengths, 2) for x in (q_BHTK, k_BGSK, v_BGSK)), strict=True)
    outs = [_sdpa(q, k, v, causal, _shorter(window, q.shape[2]), scale, None, dropout) for q, k, v in parts]
    return torch.cat(outs, 2)


def _shorter(window: int | None, length: int) -> int | None:
    """None where the window holds the whole document: then nothing needs a mask."""
    return None if window is None or window >= length else window


def _sdpa(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    mask: Tensor | None,
    dropout: float,
) -> Tensor:
    """torch's fused attention; its own is_causal is right only for T == S, other cases pass a mask."""
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    is_causal = causal and T == S and window is None and mask is None and T > 1
    if not is_causal:
        mask = attention_mask(T, S, causal=causal, window=window, mask=mask, device=q_BHTK.device)
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
    )


def _manual(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    mask: Tensor | None,
    softcap: float,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """The definition. Scores and softmax in float32 (float64 for float64)."""
    repeat = q_BHTK.shape[1] // k_BGSK.shape[1]
    if repeat > 1:
        k_BGSK = k_BGSK.repeat_interleave(repeat, 1)
        v_BGSK = v_BGSK.repeat_interleave(repeat, 1)
    scale = 1 / math.sqrt(q_BHTK.shape[-1]) if scale is None else scale
    score_BHTS = (q_BHTK @ k_BGSK.transpose(-2, -1)) * scale
    if score_BHTS.dtype in (torch.float16, torch.bfloat16):
        score_BHTS = score_BHTS.float()
    if softcap:
        score_BHTS = softcap * torch.tanh(score_BHTS / softcap)
    if mask is not None:
        # The most negative number, not -inf: a row that sees nothing stays finite, and is zeroed below.
        score_BHTS = score_BHTS.masked_fill(~mask, torch.finfo(score_BHTS.dtype).min)
    weight_BHTS = score_BHTS.softmax(-1)
    if mask is not None:
        weight_BHTS = weight_BHTS.masked_fill(~mask, 0.0)
    if dropout:
        weight_BHTS = F.dropout(weight_BHTS, dropout)
    return weight_BHTS.to(v_BGSK.dtype) @ v_BGSK


def _flash(
    name: str,
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    causal: bool,
    window: int | None,
    softcap: float,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """flash-attn: (B, T, H, K) layout, windows counted in keys to the left (ours count the query too)."""
    package = _flash_package(name)
    if dropout and name != "flash_attn_2":
        raise ValueError(f"attention backend {name!r} has no dropout, got {dropout}; use backend='auto'")
    options = {"dropout_p": dropout} if name == "flash_attn_2" else {}
    out = package.flash_attn_func(
        q_BHTK.transpose(1, 2),
        k_BGSK.transpose(1, 2),
        v_BGSK.transpose(1, 2),
        softmax_scale=scale,
        causal=causal,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        softcap=softcap,
        **options,
    )
    out_BTHK = out[0] if isinstance(out, tuple) else out  # versions 3 and 4 may add the log-sum-exp
    return out_BTHK.transpose(1, 2)


def _flash_package(name: str) -> ModuleType:
    module = _FLASH_MODULES[name]
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # the package is there, something it needs is not
        raise MissingBackendError(
            f"attention backend {name!r} needs the module {module!r}, which is not installed; "
            "install flash-attn for your GPU or use backend='auto'"
        ) from error
