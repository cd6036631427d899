"""From a backward pass to an optimizer step: loss scaling, the gradient norm, clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.training.sharded_optimizer import ReducingOptimizer


class Scaler(Protocol):
    def scale(self, objective: Tensor) -> Tensor: ...
    def unscale(self, optimizer: Optimizer) -> None: ...
    def clip(self, parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> Tensor | None:
        """Clip the gradients, or those that `optimizer` lets be clipped; returns the global norm of all before, a 0-d
        tensor, equal on all ranks; None if it is not measured."""
        ...

    def step(self, optimizer: Optimizer, finite: bool) -> None:
        """Take the step, or skip it when the gradients are not finite, which is the norm that `clip` returned."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together; a full tensor also for sharded (DTensor) gradients."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # ty: ignore[not-callable]


class AmpGradScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, arXiv:1710.03740); off for every other dtype.

    grad_clip: largest global norm; 0 measures and does not clip.
    """

    def __init__(self, grad_clip: float, enabled: bool, device_type: str):
        self.grad_clip = grad_clip
        self.scaler = torch.amp.GradScaler(device_type, enabled=enabled)

    def scale(self, objective: Tensor) -> Tensor:
        return self.scaler.scale(objective)

    def unscale(self, optimizer: Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def clip(self, parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> Tensor:
        if isinstance(optimizer, ReducingOptimizer):  # where gradients may still be those of this rank alone
            return optimizer.clip_grad_norm_(self.grad_clip)
        kept = [p for p in parameters if p.grad is not None]
        norm = global_norm([p.grad for p in kept if p.grad is not None])
        if self.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(kept, self.grad_clip, norm)
        return norm

    def step(self, optimizer: Optimizer, finite: bool) -> None:
        if finite:
            self.scaler.step(optimizer)
            self.scaler.update()  # raises its scale in the end; does nothing for other dtypes
        elif self.scaler.is_enabled():
            self._back_off()

    def _back_off(self) -> None:
        """As `GradScaler.update` after an overflow, but on every rank.

        `update` goes by what `unscale_` has found in this rank's gradients. Under ZeRO-2 another rank's may be the
        infinite ones, and the scales would differ from then on. `finite` says the same on all ranks.
        """
        state = self.scaler.state_dict()
        self.scaler.update(state["scale"] * state["backoff_factor"])  # forgets what was found, too
        self.scaler.load_state_dict({**self.scaler.state_dict(), "_growth_tracker": 0})

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)


class KellerScaler:
    """Every tensor's gradient is set to the norm `grad_clip`, upwards as well as downwards (K. Jordan's
    normalization)."""

    def __init__(self, grad_clip: float):
        if grad_clip <= 0:
            raise ValueError(
                f"keller_scaler sets each gradient to the norm training.grad_clip: got {grad_clip}, need > 0"
            )
        self.grad_clip = grad_clip

    def scale(self, objective: Tensor) -> Tensor:
        return objective

    def unscale(self, optimizer: Optimizer) -> None:
        pass

    def clip(self, parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = global_norm(gradients)
        norms = torch._foreach_norm(gradients)
        torch._foreach_mul_(gradients, [self.grad_clip / (n + 1e-6) for n in norms])
        return norm

    def step(self, optimizer: Optimizer, finite: bool) -> None:
        if finite:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class PlainScaler:
    """Neither scales the loss nor clips, and does not measure the gradient's norm: no step waits for its number, and an
    optimizer that averages gradients itself begins its work with the first one. A gradient that is not finite is not
    skipped; the loss tells, and then the run ends."""

    def scale(self, objective: Tensor) -> Tensor:
        return objective

    def unscale(self, optimizer: Optimizer) -> None:
        pass

    def clip(self, parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> None:
        pass

    def step(self, optimizer: Optimizer, finite: bool) -> None:
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def clipping_said(scaler: Scaler, optimizer: Optimizer) -> str | None:
    """What a run says at its start where `optimizer` chooses which gradients it clips (`clipping`, in words)."""
    which = getattr(optimizer, "clipping", None)
    if which is None or not isinstance(scaler, AmpGradScaler) or not scaler.grad_clip:
        return None
    return f"clipping at the norm {scaler.grad_clip:g}: {which}"


def amp_grad_scaler(grad_clip: float, dtype: torch.dtype, device_type: str) -> AmpGradScaler:
    """Global-norm clipping, and loss scaling when `dtype` is float16."""
    return AmpGradScaler(grad_clip, enabled=dtype == torch.float16, device_type=device_type)


def plain_scaler(grad_clip: float, dtype: torch.dtype) -> PlainScaler:
    """No clipping, no loss scaling, no norm. ValueError where `grad_clip` or float16 ask for one of them."""
    if grad_clip or dtype == torch.float16:
        raise ValueError(
            f"plain_scaler neither clips nor scales the loss, got training.grad_clip={grad_clip} and {dtype}: use "
            "gpt_core.training.amp_grad_scaler, or training.grad_clip=0 and another dtype"
        )
    return PlainScaler()


def keller_scaler(grad_clip: float, dtype: torch.dtype) -> KellerScaler:
    """Per-tensor gradient normalization; it has no loss scaling, so float16 is refused."""
    if dtype == torch.float16:
        raise ValueError(
            "keller_scaler does not scale the loss, which float16 needs; use bfloat16, float32 or amp_grad_scaler"
        )
    return KellerScaler(grad_clip)
