"""The flash-attn packages 2, 3 and 4, where installed: CUDA, half precision.

They work on (B, T, H, K), or (tokens, H, K) for packed documents, and count windows in keys to the left: ours count the
query too.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from ..attention import MissingBackendError
from .packing import tokens

FLASH_MODULES = {
    "flash_attn_2": "flash_attn",
    "flash_attn_3": "flash_attn_interface",
    "flash_attn_4": "flash_attn.cute",
}


def flash(
    name: str,
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    causal: bool,
    window: int | None,
    softcap: float,
    scale: float | None,
    dropout: float,
    cu_seqlens: Tensor | None,
    max_seqlen: int | None,
) -> Tensor:
    package = flash_package(name)
    if dropout and name != "flash_attn_2":
        raise ValueError(f"attention backend {name!r} has no dropout, got {dropout}; use backend='auto'")
    options: dict[str, Any] = {"dropout_p": dropout} if name == "flash_attn_2" else {}
    options |= {
        "softmax_scale": scale,
        "causal": causal,
        "window_size": (-1, -1) if window is None else (window - 1, 0),
        "softcap": softcap,
    }
    if cu_seqlens is None:
        out = package.flash_attn_func(*(x.transpose(1, 2) for x in (q_BHTK, k_BGSK, v_BGSK)), **options)
        return _first(out).transpose(1, 2)
    longest = q_BHTK.shape[2] if max_seqlen is None else max_seqlen
    ends = cu_seqlens.int()
    out = package.flash_attn_varlen_func(
        *(tokens(x) for x in (q_BHTK, k_BGSK, v_BGSK)),
        cu_seqlens_q=ends,
        cu_seqlens_k=ends,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        **options,
    )
    return _first(out).unsqueeze(0).transpose(1, 2)


def _first(out: Any) -> Tensor:
    """Versions 3 and 4 may add the log-sum-exp."""
    return out[0] if isinstance(out, tuple) else out


def flash_package(name: str) -> ModuleType:
    module = FLASH_MODULES[name]
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
