"""What a hand-written backward does when its own result is to be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def is_differentiated_again() -> bool:
    """Asked in a backward: whether it runs under create_graph=True. Compiled code differentiates once."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def differentiable_once(op: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For a backward: RuntimeError under create_graph=True.

    torch's `once_differentiable` lets second derivatives be wrong in silence: the gradient of a constant has no graph
    at all, and autograd.grad(…, inputs) never reaches its error.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        def checked(ctx: Any, *grads: Any) -> Any:
            if is_differentiated_again():
                raise RuntimeError(
                    f"{op} is differentiable once and cannot run under create_graph=True; "
                    "use its definition in plain PyTorch there"
                )
            return backward(ctx, *grads)

        return checked

    return decorate
