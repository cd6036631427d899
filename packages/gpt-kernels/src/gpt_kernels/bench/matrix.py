"""Cases that arithmetic bounds: the ReLU² perceptron, symmetric products, orthogonalisation."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

import gpt_kernels as ours

from .case import BOTH, FORWARD, Case, Goal, Setting, peer


def relu2_mlp(setting: Setting) -> Iterator[Case]:
    liger = peer(
        "liger-kernel",
        "liger_kernel.ops.relu_squared:LigerReLUSquaredFunction",
        setting,
        lambda function: lambda x, up, down: function.apply(x @ up.mT) @ down,
    )
    quack = peer(
        "quack-kernels",
        "quack.mlp:mlp_func",
        setting,
        lambda function: lambda x, up, down: function(x, up, down.mT, activation="relu_sq"),
    )
    M, D, F = setting.pick((49152, 768, 3072), (512, 192, 768))
    x, up, down = setting.random(M, D), setting.random(F, D, scale=D**-0.5), setting.random(F, D, scale=F**-0.5)
    yield Case(
        "relu2_mlp",
        f"{M} x {D} x {F}",
        (x, up, down),
        ours.relu2_mlp_reference,
        ours.relu2_mlp,
        ours.relu2_mlp_backend(x, up, down),
        {"liger": liger, "quack": quack},
        flops=4 * M * D * F,
        flops_both=12 * M * D * F,
        goals=(Goal("speed", 1.2, "compiled reference", BOTH),),
    )


def symmetric(setting: Setting) -> Iterator[Case]:
    quack = peer("quack-kernels", "quack.gemm_interface:gemm_symmetric", setting, lambda f: lambda x: _last(f(x, x.mT)))
    shapes = ((768, 768, 8), (384, 384, 2)), ((768, 3072, 8), (384, 768, 2)), ((3072, 3072, 1), (768, 768, 1))
    for S, K, B in (setting.pick(*sizes) for sizes in shapes):
        x = setting.random(B, S, K, scale=K**-0.5, grad=False)
        yield Case(
            "xxt",
            f"{B} x {S} x {K}",
            (x,),
            ours.xxt_reference,
            ours.xxt,
            ours.symmetric_backend(x),
            {"quack": quack},
            flops=2 * B * S * S * K,
            goals=(Goal("speed", 1.5, "reference", FORWARD),),
        )
        a = ours.xxt_reference(x)
        yield Case(
            "ba_plus_caa",
            f"{B} x {S}",
            (a,),
            lambda a: ours.ba_plus_caa_reference(a, b=-2.5, c=0.5),
            lambda a: ours.ba_plus_caa(a, b=-2.5, c=0.5),
            ours.symmetric_backend(a),
            flops=2 * B * S**3,
        )


def _last(result: Tensor | tuple[Tensor | None, Tensor]) -> Tensor:
    return result[-1] if isinstance(result, tuple) else result


def polar_express(setting: Setting) -> Iterator[Case]:
    for B, M, N in (setting.pick((8, 768, 3072), (2, 192, 768)), setting.pick((8, 768, 768), (2, 256, 256))):
        x, S = setting.random(B, M, N, grad=False), min(M, N)
        yield Case(
            "polar_express",
            f"{B} x {M} x {N}",
            (x,),
            ours.polar_express_reference,
            lambda x: ours.polar_express(x, dtype=x.dtype),
            ours.polar_express_backend(x, x.dtype),
            flops=5 * B * (4 * S * M * N + 2 * S**3),
        )
