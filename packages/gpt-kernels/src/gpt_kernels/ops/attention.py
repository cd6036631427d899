"""Causal softmax attention behind one function; `manual` is the definition, the others must agree with it.

Dimensions: B batch, H query heads, G key/value heads (H is a multiple of G), T queries, S keys, K head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_backends.banded import banded, block_of
from .attention_backends.manual import manual
from .attention_backends.sdpa import sdpa, sdpa_by_document
from .attention_masks import attention_mask as attention_mask
from .attention_masks import check_cu_seqlens, check_mask, check_window
from .attention_masks import document_mask as document_mask
from .checks import check_floats, check_one_dtype
from .dispatch import HAS_TRITON, are_plain, autocast_dtype, autocast_together

_FLASH = ("flash_attn_2", "flash_attn_3", "flash_attn_4")
ATTENTION_BACKENDS = ("auto", "sdpa", "manual", "banded", "varlen", "flex", *_FLASH)


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
    max_seqlen: int | None = None,
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
    max_seqlen   no document is longer; None is T. It only saves varlen and flash-attn some work: a bound that is too
             low gives wrong results.
    dropout  probability of dropping an attention weight (pass 0.0 when evaluating).
    backend  see `attention_backend`.

    H a multiple of G gives grouped-query attention: query head h reads key head h // (H / G).
    Raises ValueError for arguments that contradict each other or the backend, MissingBackendError for a
    backend whose package is absent.
    """
    _check_tensors(q_BHTK, k_BGSK, v_BGSK)
    q_BHTK, k_BGSK, v_BGSK = autocast_together(q_BHTK, k_BGSK, v_BGSK)
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    if backend == "auto" and v_BGSK.shape[3] != k_BGSK.shape[3]:  # not every kernel has values of another width
        backend = "manual" if softcap else "sdpa"
    chosen = attention_backend(
        q_BHTK,
        k_BGSK,
        causal=causal,
        window=window,
        softcap=softcap,
        scale=scale,
        mask=mask,
        cu_seqlens=cu_seqlens,
        dropout=dropout,
        backend=backend,
    )
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, T)
    if window is not None and window >= S:
        window = None  # sees everything that causal lets it see
    if chosen == "banded" and window is not None:
        return banded(q_BHTK, k_BGSK, v_BGSK, window, scale, cu_seqlens)
    if chosen == "varlen":
        from .attention_backends.varlen import varlen

        return varlen(q_BHTK, k_BGSK, v_BGSK, causal, window, scale, cu_seqlens, max_seqlen)
    if chosen == "flex":
        from .attention_backends.flex import flex

        _check_flex_gradients(q_BHTK, k_BGSK, v_BGSK)
        return flex(q_BHTK, k_BGSK, v_BGSK, causal, window, softcap, scale, mask, cu_seqlens)
    if chosen in _FLASH:
        from .attention_backends.flash import flash

        options = (causal, window, softcap, scale, dropout, cu_seqlens, max_seqlen)
        return flash(chosen, q_BHTK, k_BGSK, v_BGSK, *options)
    if cu_seqlens is not None:
        # Lengths are data: a compiled loop over them would be compiled anew for each batch, and on a GPU they are not
        # known here without waiting. There a mask does it, in one graph.
        if chosen in ("sdpa", "banded") and q_BHTK.device.type == "cpu" and not torch.compiler.is_compiling():
            return sdpa_by_document(q_BHTK, k_BGSK, v_BGSK, cu_seqlens, causal, window, scale, dropout)
        mask = document_mask(cu_seqlens, T)
    if chosen in ("sdpa", "banded"):
        return sdpa(q_BHTK, k_BGSK, v_BGSK, causal, window, scale, mask, dropout)
    mask = attention_mask(T, S, causal=causal, window=window, mask=mask, device=q_BHTK.device)
    return manual(q_BHTK, k_BGSK, v_BGSK, mask, softcap, scale, dropout)


def attention_backend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float = 0.0,
    scale: float | None = None,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> str:
    """Name of the backend that `attention` runs for these arguments, with values as wide as the keys.

    auto      On CUDA (Ampere and later): varlen for packed documents and for windows, in half precision; flex for
              these in float32, and for soft caps; sdpa for the rest, and for decoding. Elsewhere manual where softcap
              is on, banded on CPUs in float32 and float64 where the window is less than half the row, else sdpa.
              With dropout, which neither varlen, flex nor banded has, sdpa or manual everywhere.
    sdpa      torch.nn.functional.scaled_dot_product_attention; no softcap.
    manual    the definition, T × S scores in memory.
    banded    blocks of queries with the keys that their window holds, in plain PyTorch, T × (window + 32) scores in
              memory: no softcap, mask or dropout, as many queries as keys; without a window the same as sdpa.
              Differentiable once.
    varlen    torch.nn.attention.varlen (CUDA, half precision, as many queries as keys): no softcap, mask or dropout.
    flex      torch.nn.attention.flex_attention: no dropout, and on CPUs no gradients. Compiled on first use on CUDA.
    flash_attn_2, _3, _4   the flash-attn packages (CUDA, half precision): no mask; error when not installed.
    """
    _check_heads(q_BHTK, k_BGSK)
    H, G, T, S = q_BHTK.shape[1], k_BGSK.shape[1], q_BHTK.shape[2], k_BGSK.shape[2]
    if H % G:
        raise ValueError(f"query heads must be a multiple of key/value heads, got {H} and {G}")
    check_window(window, causal)
    if not softcap >= 0:
        raise ValueError(f"softcap must be 0 (off) or positive, got {softcap}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is a probability, from 0 (off) to 1, got {dropout}")
    if mask is not None:
        check_mask(mask, T, S)
    if cu_seqlens is not None and (mask is not None or q_BHTK.shape[0] != 1 or T != S):
        raise ValueError(
            f"cu_seqlens needs one row (B = 1), as many queries as keys and no mask, got B = {q_BHTK.shape[0]}, "
            f"{T} queries, {S} keys{'' if mask is None else ' and a mask'}"
        )
    if backend == "auto":
        window = None if window is not None and window >= S else window
        if _fits_band(q_BHTK, k_BGSK, window) and not (softcap or dropout) and mask is None:
            return "banded"
        return _automatic(q_BHTK, S, window is not None or cu_seqlens is not None, softcap, scale, mask, dropout)
    if backend not in ATTENTION_BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; choose one of {', '.join(ATTENTION_BACKENDS)}")
    lacks = {
        "softcap": bool(softcap) and backend in ("sdpa", "varlen", "banded"),
        "mask": mask is not None and (backend in ("varlen", "banded") or backend in _FLASH),
        "dropout": bool(dropout) and backend in ("varlen", "flex", "banded"),
        "way to have more keys than queries": T != S and backend in ("varlen", "banded"),
        "scale that is not positive": scale is not None and not scale > 0 and backend == "varlen",
    }
    for name, lacking in lacks.items():
        if lacking:
            raise ValueError(f"attention backend {backend!r} has no {name}; use backend='auto' or 'manual'")
    return backend


def _automatic(
    q_BHTK: Tensor, S: int, limited: bool, softcap: float, scale: float | None, mask: Tensor | None, dropout: float
) -> str:
    """limited: by documents or by a window, where a kernel that skips what nobody sees is the faster one."""
    T, K = q_BHTK.shape[2:]
    plain = "manual" if softcap else "sdpa"
    if dropout or T == 1 or not _is_ampere(q_BHTK):
        return plain
    if not softcap and (not limited or mask is not None or T != S):
        return plain
    dtype = autocast_dtype(q_BHTK)
    half = dtype in (torch.float16, torch.bfloat16)
    if not softcap and half and K % 8 == 0 and K <= 256 and (scale is None or scale > 0):
        return "varlen"
    fits_flex = HAS_TRITON and 16 <= K <= 256 and dtype != torch.float64
    return "flex" if fits_flex else plain


def _fits_band(q: Tensor, k: Tensor, window: int | None) -> bool:
    """Eagerly on a CPU, where a block and its window are at most half the row; compiled, a mask is one graph."""
    T = q.shape[2]
    if window is None or k.shape[2] != T or 2 * (window + block_of(window)) > T or torch.compiler.is_compiling():
        return False
    autocast = q.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return (
        q.device.type == "cpu" and not (autocast or _is_ampere(q)) and are_plain((q, k), (torch.float32, torch.float64))
    )


def _is_ampere(x: Tensor) -> bool:
    """A plain tensor on a GPU that varlen and flex have kernels for."""
    plain = type(x) in (Tensor, torch.nn.Parameter)
    return plain and x.is_cuda and torch.cuda.get_device_properties(x.device).major >= 8


def _check_heads(q: Tensor, k: Tensor) -> None:
    if q.dim() != 4 or k.dim() != 4 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"attention needs q (B, H, T, K) and k (B, G, S, K), got {tuple(q.shape)} and {tuple(k.shape)}; "
            "(B, T, H, K) is passed as x.transpose(1, 2)"
        )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    _check_heads(q, k)
    if v.dim() != 4 or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v must be (B, G, S, K) beside k {tuple(k.shape)}, got {tuple(v.shape)}")
    check_floats("attention", q, k, v)
    check_one_dtype("attention", q, k, v)


def _check_flex_gradients(*tensors: Tensor) -> None:
    if torch.is_grad_enabled() and any(x.device.type == "cpu" and x.requires_grad for x in tensors):
        raise ValueError("attention backend 'flex' has no gradients on CPUs; use backend='auto'")
