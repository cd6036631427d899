"""Parameter groups from rules over parameter names; every trainable parameter lands in exactly one group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import nn

EMBEDDING = r"(?i)embed|position|wte|wpe"
HEAD = r"^(?!.*\.\d+\.)(.*\.)?(lm_head|head|output|embed_out|unembed|classifier|score)\.weight$"


@dataclass(frozen=True)
class Rule:
    """The parameters whose name contains a match of the regular expression `pattern`, and their group's options."""

    pattern: str
    options: Mapping[str, Any] = field(default_factory=dict)


def param_groups(model: nn.Module, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """One group for each rule, in order; the first rule that matches a parameter takes it.

    A parameter shared by several modules is one parameter that answers to each of its names; frozen ones are left out.
    ValueError: a trainable parameter that no rule takes, or a rule that takes none.
    """
    names = _names(model)
    groups: list[dict[str, Any]] = [{"params": [], **rule.options} for rule in rules]
    unmatched = []
    for parameter, aliases in names.items():
        taker = next((i for i, rule in enumerate(rules) if any(re.search(rule.pattern, a) for a in aliases)), None)
        if taker is None:
            unmatched.append(aliases[0])
        else:
            groups[taker]["params"].append(parameter)
    if unmatched:
        raise ValueError(f"no rule matches {_listing(unmatched)}; add a rule, or end with Rule('.*', ...)")
    for rule, group in zip(rules, groups, strict=True):
        if not group["params"]:
            raise ValueError(_idle(rule, [alias for aliases in names.values() for alias in aliases]))
    return groups


def default_rules(
    model: nn.Module,
    muon: Mapping[str, Any] | None = None,
    adamw: Mapping[str, Any] | None = None,
    head: str = HEAD,
) -> list[Rule]:
    """Rules for `Muon` on any module; empty ones are left out.

    Muon: two-dimensional weights, except for embeddings (nn.Embedding, or a name like one) and the head: a weight
    whose name matches `head`, or the model's last matrix when it has the shape of an embedding. AdamW: everything
    else; tensors of one dimension or none do not decay.
    """
    tables = {m.weight for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    names = _names(model)
    last = [p for _, p in model.named_parameters(remove_duplicate=False) if p.dim() == 2][-1:]
    outside = tables | {p for p in last if p.shape in {table.shape for table in tables}}
    hidden, outer, vectors = [], [], []
    for parameter, aliases in names.items():
        named_outside = any(re.search(EMBEDDING, a) or re.search(head, a) for a in aliases)
        if parameter.dim() < 2:
            vectors.append(aliases[0])
        elif parameter.dim() > 2 or parameter in outside or named_outside:
            outer.append(aliases[0])
        else:
            hidden.append(aliases[0])
    adamw = {"kind": "adamw", **(adamw or {})}
    rules = [
        (hidden, {"kind": "muon", **(muon or {})}),
        (outer, adamw),
        (vectors, {**adamw, "weight_decay": 0.0}),
    ]
    return [Rule(exactly(names), options) for names, options in rules if names]


def exactly(names: Sequence[str]) -> str:
    """The pattern that matches these names and no others."""
    return f"^(?:{'|'.join(re.escape(name) for name in names)})$"


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every trainable parameter with all names it has in the model, in the model's order."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(parameter, []).append(name)
    if not names:
        raise ValueError("the model has no trainable parameters: unfreeze some before building an optimizer")
    return names


def _idle(rule: Rule, names: list[str]) -> str:
    taken = [name for name in names if re.search(rule.pattern, name)]
    if taken:
        return f"rule {rule.pattern!r} is left without parameters: earlier rules take {_listing(taken)}; move it up"
    near = get_close_matches(rule.pattern, names, n=3, cutoff=0.3) or names[:3]
    return f"rule {rule.pattern!r} matches no trainable parameter; names nearest to it: {', '.join(near)}"


def _listing(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
