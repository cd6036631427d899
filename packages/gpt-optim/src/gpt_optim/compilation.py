"""Update rules compiled by torch, each for one unit of an optimizer, or as they are where that is not possible."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch


def maybe_compiled(function: FunctionType, wanted: bool) -> Callable[..., Any]:
    """`function`, if `wanted` compiled as one graph. Where torch cannot (no compiler, say), a warning, and `function`.

    Recompilations are counted, and limited to 8, per code object: every call of this makes one of its own.
    """
    if not wanted:
        return function
    from torch._dynamo.exc import TorchDynamoException

    def eagerly(error: Exception) -> Callable[..., Any]:
        reason = " ".join(str(error).splitlines()[:2])
        warnings.warn(f"{function.__name__} cannot be compiled, and runs eagerly: {reason}", stacklevel=3)
        return function

    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    own.__kwdefaults__ = function.__kwdefaults__
    try:
        chosen: Callable[..., Any] = torch.compile(own, fullgraph=True, dynamic=False)
    except RuntimeError as error:  # a system or a Python that torch.compile does not know
        return eagerly(error)

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal chosen
        try:
            return chosen(*args, **kwargs)
        except TorchDynamoException as error:  # before anything has run: a graph is compiled as a whole
            chosen = eagerly(error)
            return chosen(*args, **kwargs)

    return call
