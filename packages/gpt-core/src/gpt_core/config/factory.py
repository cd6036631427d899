"""Factories: `module: a.b.make` with `module_kwargs`, imported and checked before anything is built.

What a factory takes is read from its signature. A factory that passes `**flags` on to a dataclass says so:

    def gpt(vocab_size: int, context_length: int, preset: str = "gpt2", **flags): ...
    gpt.accepts = GPTConfig  # the fields of GPTConfig are valid keyword arguments, with their types

`accepts` is a dataclass, or any class or function whose parameters are meant.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpt_core.config.coerce import hints_of
from gpt_core.config.errors import ConfigError, nearest


@dataclass(frozen=True)
class Parameter:
    """One keyword argument of a factory."""

    name: str
    hint: Any
    default: Any
    required: bool
    positional: bool


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a factory. `open`: takes any others too (`**kwargs` without `accepts`)."""

    parameters: dict[str, Parameter]
    open: bool


@dataclass(frozen=True)
class Factory:
    """An imported factory with its checked arguments."""

    path: str
    kwargs: dict[str, Any]
    target: Callable[..., Any] = field(repr=False)

    def build(self, *args: Any, **runtime: Any) -> Any:
        """Calls the factory with `args`, the kwargs of the configuration, and those `runtime` values that its
        signature names and the configuration does not set."""
        names = signature_of(self.target).parameters
        given = {name: value for name, value in runtime.items() if name in names and name not in self.kwargs}
        return self.target(*args, **given, **self.kwargs)


def load(path: str) -> Callable[..., Any]:
    """The callable at a dotted path. Raises `ConfigError` naming what is missing."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ConfigError(f"{path!r} is not the dotted path of a factory, such as gpt_core.models.gpt")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"importing {module_name!r} failed: {error}") from error
    target = getattr(module, name, None)
    if target is None:
        raise ConfigError(f"module {module_name!r} has no {name!r}{nearest(name, dir(module))}")
    if not callable(target):
        raise ConfigError(f"{path} is a {type(target).__name__}, not a factory that can be called")
    return target


def signature_of(target: Callable[..., Any]) -> Signature:
    """The parameters of a factory, with those of what it `accepts`."""
    try:
        written = inspect.signature(target).parameters.values()
    except ValueError:  # a builtin without a signature
        return Signature({}, open=True)
    hints = hints_of(target)
    parameters, is_open = {}, False
    for each in written:
        if each.kind is each.VAR_KEYWORD:
            is_open = True
        elif each.kind is not each.VAR_POSITIONAL:
            parameters[each.name] = Parameter(
                name=each.name,
                hint=_with_default(hints.get(each.name, Any), each.default),
                default=each.default,
                required=each.default is each.empty,
                positional=each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD),
            )
    accepts = getattr(target, "accepts", None)
    if accepts is None or not is_open:
        return Signature(parameters, is_open)
    inner = signature_of(accepts)
    passed_on = {
        name: dataclasses.replace(parameter, required=False, positional=False)
        for name, parameter in inner.parameters.items()
    }
    return Signature({**passed_on, **parameters}, inner.open)


def _with_default(hint: Any, default: Any) -> Any:
    """`x: int = None` means that None is fine."""
    return hint | None if default is None and isinstance(hint, type) and hint is not Any else hint
