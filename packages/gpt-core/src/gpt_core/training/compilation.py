"""torch.compile, with a fallback that says so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


def compile_module(
    forward: nn.Module,
    mode: Literal["off", "block", "model"],
    *,
    example: Callable[[], Sequence[Tensor | None]],
    autocast: Callable[[], AbstractContextManager],
) -> str | None:
    """Compile `forward` (a `ModelWithLoss`) in place and try it on one batch; returns why it was not possible, or None.

    "block" compiles each block by itself: they share code, so one compilation serves all. The trial runs forward and
    backward, so that a broken compiler is found before the first step, where eager execution can still take over.
    example: gives what `forward` is called with, on its device.
    """
    if mode == "off":
        return None
    modules = [forward] if mode == "model" else list(getattr(forward.model, "blocks", []))
    if not modules:
        return f"{type(forward.model).__name__} has no .blocks to compile; use general.compile=model"
    inputs = example()  # what is wrong with the data is no failure of the compiler
    try:
        for module in modules:
            module.compile()  # fails at once where torch.compile does not know the platform or the Python
        device = next(iter(forward.parameters())).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), autocast():
            forward(*inputs).objective.backward()
    except torch.OutOfMemoryError:  # no failure of the compiler; a smaller batch may fit
        return None
    except Exception as error:  # compilers fail in many ways; each of them leaves eager execution intact
        for module in modules:
            module._compiled_call_impl = None
        cause = " ".join(str(error).strip().partition("\n\n")[0].split())  # what follows is advice for compiler authors
        return f"{type(error).__name__}: {cause[:300] or 'no message'}"
    finally:
        forward.zero_grad(set_to_none=True)
    return None


@contextmanager
def eager(model: nn.Module) -> Generator[None]:
    """Run `model` without its compiled parts: generation's ever-changing lengths would recompile them again and
    again."""
    compiled = {module: module._compiled_call_impl for module in model.modules()}
    for module in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call
