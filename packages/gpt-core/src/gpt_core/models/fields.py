"""Fields of a model's configuration: built from a mapping, and what every architecture asks of its sizes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def from_fields(cls: type[Config], fields: Mapping[str, Any], kind: str) -> Config:
    """`cls(**fields)` for a dataclass; `kind` names it. ValueError for fields that it does not have."""
    known = {field.name for field in dataclasses.fields(cls)}  # ty: ignore[invalid-argument-type]  # a dataclass
    unknown = sorted(set(fields) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
        raise ValueError(f"unknown {kind} fields {', '.join(unknown)}; {hint}")
    return cls(**fields)


def check_counts(config: Any, names: Iterable[str]) -> None:
    """ValueError for one of these fields below 1; None is not looked at."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_heads(config: Any) -> None:
    """ValueError where `n_embd` cannot be shared out to `n_head` heads."""
    if config.n_embd % config.n_head:
        raise ValueError(f"n_embd must be a multiple of n_head, got {config.n_embd} and {config.n_head}")
