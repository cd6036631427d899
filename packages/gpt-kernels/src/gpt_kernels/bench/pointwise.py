"""Cases that memory bounds: norms, rotary positions, gated activation, transposition."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import gpt_kernels as ours

from .case import Case, Goal, Setting, peer

EPS = 1e-5


def rms_norm(setting: Setting) -> Iterator[Case]:
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.rms_norm:LigerRMSNormFunction",
        setting,
        lambda function: lambda x, weight: function.apply(x, weight, EPS, 0.0, "llama", False),
    )
    quack = peer("quack-kernels", "quack:rmsnorm", setting, lambda f: lambda x, weight: f(x, weight, eps=EPS))
    for M, N in (setting.pick((49152, 768), (1024, 768)), setting.pick((16384, 4096), (4096, 64))):
        x, weight = setting.random(M, N), setting.random(N)
        size = x.numel() * x.element_size()
        yield Case(
            "rms_norm",
            f"{M} x {N}",
            (x, weight),
            lambda x, weight: ours.rms_norm_reference(x, weight, EPS),
            lambda x, weight: ours.rms_norm(x, weight, EPS),
            ours.rms_norm_backend(x, weight),
            {"torch": lambda x, weight: F.rms_norm(x, weight.shape, weight, EPS), "liger": liger, "quack": quack},
            bytes=2 * size,
            bytes_both=5 * size,
            goals=(Goal("bandwidth", 0.85),),
        )


def layer_norm(setting: Setting) -> Iterator[Case]:
    M, N = setting.pick((49152, 768), (1024, 768))
    x, weight, bias = setting.random(M, N), setting.random(N), setting.random(N)
    size = x.numel() * x.element_size()
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.layer_norm:LigerLayerNormFunction",
        setting,
        lambda function: lambda x, weight, bias: function.apply(x, weight, bias, EPS),
    )
    yield Case(
        "layer_norm",
        f"{M} x {N}",
        (x, weight, bias),
        lambda x, weight, bias: ours.layer_norm_reference(x, weight, bias, EPS),
        lambda x, weight, bias: ours.layer_norm(x, weight, bias, EPS),
        ours.layer_norm_backend(x, weight, bias),
        {"torch": lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias, EPS), "liger": liger},
        bytes=2 * size,
        bytes_both=5 * size,
    )


def rotary(setting: Setting) -> Iterator[Case]:
    B, H, T, K = setting.pick((24, 12, 2048, 128), (4, 6, 256, 64))
    x = setting.random(B, T, H, K).detach().transpose(1, 2).requires_grad_()
    size = x.numel() * x.element_size()
    full = ours.rotary_table(T, K, device=setting.device)
    frequencies = ours.half_truncated_frequencies(K)
    half = ours.frequency_table(T, frequencies, device=setting.device)

    def by_quack(interleaved: bool) -> Callable[..., Tensor] | str:
        return peer(
            "quack-kernels",
            "quack.rotary:apply_rotary_emb",
            setting,
            lambda f: lambda x, cos, sin: f(x.transpose(1, 2), cos, sin, interleaved=interleaved).transpose(1, 2),
        )

    for style, name, (cos, sin) in (
        ("interleaved", "interleaved", full),
        ("half", "half", full),
        ("interleaved", "half-truncated", half),
    ):
        yield Case(
            "apply_rotary",
            f"{B} x {H} x {T} x {K} {name}",
            (x, cos, sin),
            lambda x, cos, sin, style=style: ours.apply_rotary_reference(x, cos, sin, style=style),
            lambda x, cos, sin, style=style: ours.apply_rotary(x, cos, sin, style=style),
            ours.apply_rotary_backend(x, cos, sin, style=style),
            {"quack": by_quack(style == "interleaved")},
            bytes=2 * size,
            bytes_both=4 * size,
        )


def swiglu(setting: Setting) -> Iterator[Case]:
    M, N = setting.pick((49152, 2048), (1024, 2048))
    gate, up = setting.random(M, N), setting.random(M, N)
    size = gate.numel() * gate.element_size()
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.swiglu:LigerSiLUMulFunction",
        setting,
        lambda function: lambda gate, up: function.apply(gate, up),
    )
    yield Case(
        "swiglu",
        f"{M} x {N}",
        (gate, up),
        ours.swiglu_reference,
        ours.swiglu,
        ours.swiglu_backend(gate, up),
        {"liger": liger},
        bytes=3 * size,
        bytes_both=8 * size,
    )


def transpose(setting: Setting) -> Iterator[Case]:
    M, N = setting.pick((768, 50304), (256, 2048))
    x, y = setting.random(M, N, grad=False), setting.random(N, M, grad=False)
    size = x.numel() * x.element_size()
    yield Case(
        "transpose_copy",
        f"{M} x {N}",
        (x,),
        ours.transpose_copy_reference,
        ours.transpose_copy,
        ours.transpose_backend(x),
        bytes=2 * size,
    )
    yield Case(
        "transpose_add",
        f"{M} x {N}",
        (x, y),
        ours.transpose_add_reference,
        ours.transpose_add,
        ours.transpose_backend(x, y),
        {"torch in place": lambda x, y: torch.add(y, x.mT)},
        bytes=3 * size,
    )
