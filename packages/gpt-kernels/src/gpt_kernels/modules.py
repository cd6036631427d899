"""Modules: `FP8Linear`, which takes the place of nn.Linear, and `convert_to_fp8`, which puts it there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .ops.fp8 import E4M3, E5M2, delayed_scale, has_seen, largest_magnitude, record_amax, scale_of_amax
from .ops.fp8_linear import FP8Backend, fp8_linear, fp8_linear_backend


@dataclass(frozen=True)
class FP8Scaling:
    """How the scales of an `FP8Linear` come about: a number is static, "dynamic" looks at each tensor as it comes."""

    x: float | Literal["dynamic", "delayed"] = "dynamic"
    weight: float | Literal["dynamic", "delayed"] = "dynamic"
    grad: float | Literal["dynamic"] = "dynamic"
    history: int = 16
    """Calls that a delayed scale looks back on; it fits the largest magnitude among them."""
    x_headroom: float = 1.0
    weight_headroom: float = 1.0
    """Delayed scales leave room for values this many times as large as those seen (the speedrun: 1.8 and 1.12)."""
    grad_dtype: torch.dtype = E5M2

    def __post_init__(self) -> None:
        for name, words in (("x", ("dynamic", "delayed")), ("weight", ("dynamic", "delayed")), ("grad", ("dynamic",))):
            scale = getattr(self, name)
            if scale not in words and (isinstance(scale, str) or not scale > 0):
                raise ValueError(f"{name} must be a positive number or one of {', '.join(words)}, got {scale!r}")
        if self.history < 1 or self.x_headroom < 1 or self.weight_headroom < 1:
            raise ValueError(f"history and headroom must be at least 1, got {self}")


class FP8Linear(nn.Linear):
    """nn.Linear with the products of `fp8_linear`, and the same parameters and names in its state.

    backend   as in `fp8_linear`: "auto" uses float8 only where that is a gain, and is `linear` elsewhere.

    Delayed scales keep the magnitudes of the last calls in the buffers `x_amax` and `weight_amax` (history,), which are
    part of the state: a run that is resumed quantises as if it had not stopped. They change in training mode only, and
    only where float8 is used. The first call, which has no history, uses the tensor's own. Magnitudes that are not
    finite are not kept. Activation checkpointing runs the forward pass twice: each run counts as a call, and the second
    one scales with what the first has seen; choose static or dynamic scales where both must round alike.
    """

    x_amax: Tensor
    weight_amax: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        scaling: FP8Scaling | None = None,
        backend: FP8Backend = "auto",
    ):
        super().__init__(in_features, out_features, bias, device, dtype)
        self._prepare(scaling or FP8Scaling(), backend)

    def _prepare(self, scaling: FP8Scaling, backend: FP8Backend) -> None:
        self.scaling, self.backend = scaling, backend
        for name in ("x", "weight"):
            if getattr(scaling, name) == "delayed":
                self.register_buffer(f"{name}_amax", torch.zeros(scaling.history, device=self.weight.device))

    @classmethod
    def from_linear(
        cls, module: nn.Linear, *, scaling: FP8Scaling | None = None, backend: FP8Backend = "auto"
    ) -> FP8Linear:
        """One that shares the parameters of `module`."""
        new = cls(module.in_features, module.out_features, bias=False, device="meta")
        new.weight, new.bias = module.weight, module.bias
        new.train(module.training)
        new._prepare(scaling or FP8Scaling(), backend)
        return new

    def forward(self, input: Tensor) -> Tensor:
        backend = fp8_linear_backend(input, self.weight, backend=self.backend)
        scales = (None, None) if backend == "linear" else (self._scale("x", input), self._scale("weight", self.weight))
        return fp8_linear(
            input,
            self.weight,
            self.bias,
            x_scale=scales[0],
            weight_scale=scales[1],
            grad_scale=None if self.scaling.grad == "dynamic" else self.scaling.grad,
            grad_dtype=self.scaling.grad_dtype,
            backend=backend,
        )

    def _scale(self, name: Literal["x", "weight"], tensor: Tensor) -> Tensor | float | None:
        scale = getattr(self.scaling, name)
        if scale == "dynamic":
            return None
        if scale != "delayed":
            return scale
        history, headroom = getattr(self, f"{name}_amax"), getattr(self.scaling, f"{name}_headroom")
        amax = largest_magnitude(tensor)
        delayed = delayed_scale(history, E4M3, headroom=headroom)
        scale = torch.where(has_seen(history), delayed, scale_of_amax(amax, E4M3))
        if self.training:
            record_amax(history, amax)
        return scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scaling={self.scaling}, backend={self.backend!r}"


def convert_to_fp8(
    module: nn.Module,
    filter: Callable[[str, nn.Linear], bool] | None = None,
    *,
    scaling: FP8Scaling | None = None,
    backend: FP8Backend = "auto",
) -> list[str]:
    """Replace linear modules inside `module` by `FP8Linear`s with the same parameters; returns the names of these.

    filter(name, linear) says which; None takes those with inputs and outputs in multiples of 16. Subclasses of
    nn.Linear count, and lose what their own forward adds. A module that stands in two places is replaced by one.
    The optimizer's references stay good. ValueError if nothing is converted, or if `module` itself is the linear one
    (use `FP8Linear.from_linear`).
    """
    if isinstance(module, nn.Linear):
        raise ValueError("the module to convert is itself linear: use FP8Linear.from_linear(module)")
    chosen = filter or (lambda name, linear: linear.in_features % 16 == linear.out_features % 16 == 0)
    made: dict[nn.Linear, FP8Linear] = {}
    names = []
    for path, parent in list(module.named_modules()):
        for name, child in list(parent._modules.items()):
            full = f"{path}.{name}" if path else name
            if not isinstance(child, nn.Linear) or isinstance(child, FP8Linear) or not chosen(full, child):
                continue
            if child not in made:
                made[child] = FP8Linear.from_linear(child, scaling=scaling, backend=backend)
            setattr(parent, name, made[child])
            names.append(full)
    if not names:
        raise ValueError("nothing was converted to float8: no linear module passed the filter")
    return names
