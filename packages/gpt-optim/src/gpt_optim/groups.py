"""Parameter groups from rules over parameter names; every trainable parameter lands in exactly one group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

INNER_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
"""Names of the attribute in which torch's wrappers of one module keep it: no part of a clean name."""


@dataclass(frozen=True)
class Rule:
    """Which parameters a group takes, by name and number of dimensions, and the group's options."""

    pattern: str
    """Regular expression that a name must contain a match of."""
    options: Mapping[str, Any] = field(default_factory=dict)
    exclude: str | None = None
    """Regular expression that no name of the parameter may contain a match of."""
    ndim: int | None = None
    """Number of dimensions; None takes any."""

    def matches(self, names: Iterable[str], parameter: Tensor) -> bool:
        """Whether the rule takes this parameter, which is known by all of `names`."""
        if self.ndim is not None and parameter.dim() != self.ndim:
            return False
        names = list(names)
        if self.exclude is not None and any(re.search(self.exclude, name) for name in names):
            return False
        return any(re.search(self.pattern, name) for name in names)

    def __str__(self) -> str:
        parts = [repr(self.pattern)]
        parts += [] if self.exclude is None else [f"exclude={self.exclude!r}"]
        parts += [] if self.ndim is None else [f"ndim={self.ndim}"]
        return f"Rule({', '.join(parts)})"


def param_groups(model: nn.Module, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """One group for each rule, in order: its options, "params" and "param_names".

    A parameter shared by several modules is one parameter that answers to each of its names; frozen ones are left out.
    Names are clean: those of the model before DDP, torch.compile or activation checkpointing wrapped it.
    ValueError: a trainable parameter that no rule takes or that two rules take, or a rule that takes none.
    """
    names = clean_names(model)
    groups: list[dict[str, Any]] = [{**rule.options, "params": [], "param_names": []} for rule in rules]
    unmatched = []
    for parameter, aliases in names.items():
        takers = [i for i, rule in enumerate(rules) if rule.matches(aliases, parameter)]
        if len(takers) > 1:
            raise ValueError(_doubly_matched(aliases, [rules[i] for i in takers], names))
        if takers:
            groups[takers[0]]["params"].append(parameter)
            groups[takers[0]]["param_names"].append(aliases[0])
        else:
            unmatched.append(aliases[0])
    if unmatched:
        raise ValueError(f"no rule matches {_listing(unmatched)}; add a rule for it, or widen one")
    for rule, group in zip(rules, groups, strict=True):
        if not group["params"]:
            raise ValueError(_idle(rule, names))
    return groups


def exactly(names: Sequence[str]) -> str:
    """The pattern that matches these names and no others."""
    return f"^(?:{'|'.join(re.escape(name) for name in names)})$"


def clean_names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every trainable parameter with all names it has in the model, without wrappers' parts, in the model's order.

    ValueError: the model has no trainable parameter.
    """
    named = [(name.split("."), p) for name, p in model.named_parameters(remove_duplicate=False)]
    paths = [([part for part in path if part not in INNER_WRAPPERS], p) for path, p in named]
    while all(path[0] == "module" and len(path) > 1 for path, _ in paths) and paths:  # DDP, DataParallel and the like
        paths = [(path[1:], p) for path, p in paths]
    names: dict[nn.Parameter, list[str]] = {}
    for path, parameter in paths:
        if parameter.requires_grad:
            names.setdefault(parameter, []).append(".".join(path))
    if not names:
        raise ValueError("the model has no trainable parameters: unfreeze some before building an optimizer")
    return names


def _doubly_matched(aliases: list[str], takers: list[Rule], names: Mapping[nn.Parameter, list[str]]) -> str:
    """The rule that takes more parameters is the general one: it is the one to narrow."""
    sizes = [sum(rule.matches(others, p) for p, others in names.items()) for rule in takers]
    general = takers[max(range(len(takers)), key=lambda i: (sizes[i], i))]
    special = next(rule for rule in takers if rule is not general)
    known = f"{aliases[0]} (shared, also {', '.join(aliases[1:])})" if len(aliases) > 1 else aliases[0]
    if special.pattern == general.pattern:
        remedy = "give them different patterns, or an ndim each"
    else:
        excluded = special.pattern if general.exclude is None else f"{general.exclude}|{special.pattern}"
        remedy = f"narrow one pattern, or let the general rule leave it out: Rule({general.pattern!r}, ..., "
        remedy += f"exclude={excluded!r})"
    return f"{known} is taken by {' and by '.join(str(rule) for rule in takers)}; {remedy}"


def _idle(rule: Rule, names: Mapping[nn.Parameter, list[str]]) -> str:
    known = [alias for aliases in names.values() for alias in aliases]
    named = [alias for alias in known if re.search(rule.pattern, alias)]
    if named:
        return f"{rule} takes no trainable parameter, though {_listing(named)} fits its pattern: mind exclude and ndim"
    near = get_close_matches(rule.pattern, known, n=3, cutoff=0.3) or known[:3]
    return f"{rule} matches no trainable parameter; names nearest to it: {', '.join(near)}"


def _listing(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
