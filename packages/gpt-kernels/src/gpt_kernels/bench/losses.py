"""Cases of the head: cross-entropy on logits, in chunks of a linear map, and float8 products."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import gpt_kernels as ours

from .case import BOTH, FORWARD, Case, Goal, Setting, peer

COPY_BANDWIDTH = (Goal("bandwidth", 0.85),)


def cross_entropy(setting: Setting) -> Iterator[Case]:
    N, V = setting.pick((16384, 50304), (512, 8192))
    logits, targets = setting.random(N, V), _targets(setting, N, V)
    size = logits.numel() * logits.element_size()
    quack = peer("quack-kernels", "quack:cross_entropy", setting, lambda f: lambda x, y: f(x, y, reduction="mean"))
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.cross_entropy:LigerCrossEntropyFunction",
        setting,
        lambda function: lambda x, y: function.apply(x.clone(), y, None)[0],  # it overwrites the logits
    )
    for name, cap in (("", 0.0), (", tanh cap", 15.0), (", the speedrun's cap", ours.SigmoidCap())):
        plain = {"torch": F.cross_entropy, "quack": quack, "liger and a copy": liger}
        yield Case(
            "cross_entropy",
            f"{N} x {V}{name}",
            (logits, targets),
            lambda x, y, cap=cap: ours.cross_entropy_reference(x, y, softcap=cap),
            lambda x, y, cap=cap: ours.cross_entropy(x, y, softcap=cap),
            ours.cross_entropy_backend(logits),
            {} if cap else plain,
            bytes=size,
            bytes_both=3 * size,
            goals=COPY_BANDWIDTH if cap else (),
        )


def softcapped_cross_entropy(setting: Setting) -> Iterator[Case]:
    """The speedrun's backward: one read of bf16 logits, one write of e5m2 gradients."""
    N, V = setting.pick((16384, 50304), (512, 8192))
    logits, targets = setting.random(N, V, grad=False), _targets(setting, N, V)
    losses, lse = ours.softcapped_cross_entropy(logits, targets)
    grad = torch.ones_like(losses)

    def reference(logits: Tensor, targets: Tensor) -> Tensor:
        return ours.softcapped_cross_entropy_backward_reference(
            grad, lse, logits, targets, grad_dtype=torch.float8_e5m2, grad_scale=1e-3
        )

    def fast(logits: Tensor, targets: Tensor) -> Tensor:
        return ours.softcapped_cross_entropy_backward(
            grad, lse, logits, targets, grad_dtype=torch.float8_e5m2, grad_scale=1e-3
        )

    yield Case(
        "softcapped_cross_entropy_backward",
        f"{N} x {V} to e5m2",
        (logits, targets),
        reference,
        fast,
        ours.softcapped_cross_entropy_backend(logits),
        bytes=logits.numel() * (logits.element_size() + 1),
        goals=COPY_BANDWIDTH,
    )


def linear_cross_entropy(setting: Setting) -> Iterator[Case]:
    N, D, V = setting.pick((16384, 768, 50304), (512, 192, 8192))
    x, weight, targets = setting.random(N, D), setting.random(V, D, scale=D**-0.5), _targets(setting, N, V)
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.fused_linear_cross_entropy:LigerFusedLinearCrossEntropyFunction",
        setting,
        lambda function: lambda x, weight, y: function.apply(x, weight, y)[0],
    )
    quack = peer(
        "quack-kernels",
        "quack.linear_cross_entropy:chunked_linear_cross_entropy",
        setting,
        lambda function: lambda x, weight, y: function(x, weight, y),
    )
    torchs = getattr(F, "linear_cross_entropy", None) or "this torch has no F.linear_cross_entropy"
    yield Case(
        "linear_cross_entropy",
        f"{N} x {D} x {V}",
        (x, weight, targets),
        ours.linear_cross_entropy_reference,
        ours.linear_cross_entropy,
        ours.linear_cross_entropy_backend(x, weight),
        {"torch": torchs, "liger": liger, "quack": quack},
        flops=2 * N * D * V,
        flops_both=6 * N * D * V,
        goals=(Goal("memory", 0.25, "reference", BOTH), Goal("speed", 1 / 1.05, "compiled reference", BOTH)),
    )


def fp8_linear(setting: Setting) -> Iterator[Case]:
    """Beside the same product in the dtype of the setting, which is what float8 has to beat."""
    scales = ours.HeadScales()
    for N, inputs, outputs in (
        setting.pick((49152, 768, 50304), (512, 192, 1024)),
        setting.pick((49152, 768, 3072), (512, 768, 192)),
    ):
        x, weight = setting.random(N, inputs), setting.random(outputs, inputs, scale=inputs**-0.5)
        yield Case(
            "fp8_linear",
            f"{N} x {inputs} x {outputs}",
            (x, weight),
            F.linear,
            lambda x, w: ours.fp8_linear(x, w, x_scale=scales.x, weight_scale=scales.weight, grad_scale=scales.grad),
            ours.fp8_linear_backend(x, weight),
            {"dynamic scales": ours.fp8_linear},
            flops=2 * N * inputs * outputs,
            flops_both=6 * N * inputs * outputs,
            goals=(Goal("speed", 1.5, "reference", FORWARD),) if outputs == 50304 else (),
        )


def fp8_head(setting: Setting) -> Iterator[Case]:
    N, D, V = setting.pick((16384, 768, 50304), (512, 192, 8192))
    x, stored, targets = setting.random(N, D), setting.random(D, V, scale=D**-0.5), _targets(setting, N, V)
    cap = ours.SigmoidCap()
    yield Case(
        "fp8_linear_cross_entropy",
        f"{N} x {D} x {V}",
        (x, stored, targets),
        lambda x, w, y: ours.linear_cross_entropy_reference(x, w.t(), y, softcap=cap, reduction="sum"),
        lambda x, w, y: ours.fp8_linear_cross_entropy(x, w.t(), y),
        ours.fp8_linear_backend(x, stored.t()),
        {"linear_cross_entropy": lambda x, w, y: ours.linear_cross_entropy(x, w.t(), y, softcap=cap, reduction="sum")},
        flops=2 * N * D * V,
        flops_both=6 * N * D * V,
    )


def _targets(setting: Setting, N: int, V: int) -> Tensor:
    generator = torch.Generator(setting.device).manual_seed(0)
    return torch.randint(V, (N,), generator=generator, device=setting.device)
