"""Cases of attention: what `auto` chooses beside every other backend that takes the case."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import gpt_kernels as ours

from .case import Case, Setting

MODULES = {"flash_attn_2": "flash_attn", "flash_attn_3": "flash_attn_interface", "flash_attn_4": "flash_attn"}


def attention(setting: Setting) -> Iterator[Case]:
    B, H, T, K = setting.pick((8, 6, 2048, 128), (2, 4, 256, 64))
    q, k, v = (setting.random(B, H, T, K) for _ in range(3))
    pairs = B * T * (T + 1) // 2
    yield _case(setting, f"{B} x {H} x {T} x {K}, causal", q, k, v, pairs, {})
    window = T // 8
    yield _case(setting, f"{B} x {H} x {T} x {K}, window {window}", q, k, v, B * T * window, {"window": window})
    yield _case(setting, f"{B} x {H} x {T} x {K}, softcap", q, k, v, pairs, {"softcap": 30.0})
    rows = setting.pick((4,), (2,))[0]  # the definition holds the scores of the whole packed row
    packed = [x[:rows].detach().transpose(0, 1).reshape(1, H, rows * T, K).requires_grad_() for x in (q, k, v)]
    length = T // 2
    ends = torch.arange(0, rows * T + 1, length, dtype=torch.int32, device=setting.device)
    options = {"cu_seqlens": ends, "max_seqlen": length}
    shape = f"1 x {H} x {rows * T} x {K}, documents of {length}"
    yield _case(setting, shape, *packed, rows * T * (length + 1) // 2, options)


def _case(setting: Setting, shape: str, q: Tensor, k: Tensor, v: Tensor, pairs: int, options: dict[str, Any]) -> Case:
    """pairs: of a query and a key that it sees, in all rows."""

    def by(backend: str) -> Callable[..., Tensor]:
        return lambda q, k, v: ours.attention(q, k, v, backend=backend, **options)

    choice = {name: value for name, value in options.items() if name != "max_seqlen"}

    def side(backend: str) -> Callable[..., Tensor] | str:
        try:
            ours.attention_backend(q, k, backend=backend, **choice)
        except ValueError as error:
            return str(error).partition(";")[0]
        if backend not in ("sdpa", "banded") and setting.device.type != "cuda":
            return "no CUDA device"
        module = MODULES.get(backend)
        missing = module is not None and importlib.util.find_spec(module) is None
        return f"{module} is not installed" if missing else by(backend)

    flops = 4 * q.shape[1] * q.shape[3] * pairs
    return Case(
        "attention",
        shape,
        (q, k, v),
        by("manual"),
        by("auto"),
        ours.attention_backend(q, k, **choice),
        {name: side(name) for name in ours.ATTENTION_BACKENDS if name not in ("auto", "manual")},
        flops=flops,
        flops_both=7 * flops // 2,
    )
