"""Which runs an ablation needs, and what each is called with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from switches import applicable, keys_without, with_dependents, with_needs

SHORTER = 0.8
"""The recipe is also run with so many of the steps: what its loss gains by the rest is what time is worth."""
STEPS = (
    "stages.extension_steps",
    "momentum_scheduler.module_kwargs.warmup_iters",
    "momentum_scheduler.module_kwargs.cooldown_iters",
)
"""Keys that count steps, and shrink with them."""


@dataclass(frozen=True)
class Variant:
    """One configuration of the ablation; run once for each seed."""

    name: str
    off: tuple[str, ...]
    steps: int


@dataclass(frozen=True)
class Comparison:
    """What a switch is judged by."""

    switch: str
    with_it: str
    without_it: str


@dataclass(frozen=True)
class Plan:
    """An ablation as it was asked for; equal plans can go on with each other's runs."""

    config: str
    overrides: list[str]
    mode: Literal["leave-one-out", "add-one"]
    seeds: int
    steps: int
    switches: list[str]
    variants: list[Variant] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def runs(self) -> list[tuple[Variant, int]]:
        """Every variant with the first seed, then with the next: a part of them is a whole with fewer seeds."""
        return [(variant, seed) for seed in range(1, self.seeds + 1) for variant in self.variants]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def make_plan(
    config: str,
    overrides: Sequence[str],
    tree: Mapping[str, Any],
    *,
    mode: Literal["leave-one-out", "add-one"],
    seeds: int,
    steps: int | None,
    names: Sequence[str] | None,
) -> Plan:
    """leave-one-out: the whole recipe against itself without one switch and what needs it. add-one: the recipe with
    all `names` off against itself with one of them, and what it needs (against what it needs alone).

    Raises ValueError for switches that cannot be compared, or too few steps or seeds.
    """
    steps = tree["training"]["max_steps"] if steps is None else steps
    if seeds < 1 or steps < 5:
        raise ValueError(f"an ablation takes at least 1 seed and 5 steps, got {seeds} and {steps}")
    switches = list(applicable(tree, names))
    if mode == "leave-one-out":
        variants, comparisons = _leave_one_out(switches, list(applicable(tree)), steps)
    else:
        variants, comparisons = _add_one(switches, steps)
    return Plan(config, list(overrides), mode, seeds, steps, switches, variants, comparisons)


def _leave_one_out(switches: list[str], everything: list[str], steps: int) -> tuple[list[Variant], list[Comparison]]:
    variants = [Variant("recipe", (), steps), Variant("recipe-shorter", (), shorter(steps))]
    for name in switches:
        variants.append(Variant(f"without-{name}", tuple(sorted(with_dependents(name, everything))), steps))
    return variants, [Comparison(name, "recipe", f"without-{name}") for name in switches]


def _add_one(switches: list[str], steps: int) -> tuple[list[Variant], list[Comparison]]:
    everything = set(switches)
    bare = lambda on: tuple(sorted(everything - on))
    found: dict[tuple[str, ...], str] = {bare(frozenset()): "recipe"}
    comparisons = []
    for name in switches:
        before = (with_needs(name) - {name}) & everything
        for on, title in ((before, f"with-{'+'.join(sorted(before))}"), (before | {name}, f"with-{name}")):
            found.setdefault(bare(on), title)
        comparisons.append(Comparison(name, found[bare(before | {name})], found[bare(before)]))
    variants = [Variant(title, off, steps) for off, title in found.items()]
    variants.insert(1, Variant("recipe-shorter", bare(frozenset()), shorter(steps)))
    return variants, comparisons


def shorter(steps: int) -> int:
    return max(4, round(SHORTER * steps))


def arguments(plan: Plan, variant: Variant, seed: int, tree: Mapping[str, Any], runs: Path) -> list[str]:
    """Command line of one run, after the app's name."""
    keys = keys_without(variant.off, tree) if variant.off else {}
    whole = tree["training"]["max_steps"]
    for key in STEPS:
        value = keys.get(key, at(tree, key))
        if value:
            keys[key] = max(1, round(value * variant.steps / whole))
    keys |= {
        "training.max_steps": variant.steps,
        "eval.eval_every": 0,
        "eval.at_start": False,
        "checkpoint.checkpoint_keep_best": False,
        "generate.max_new_tokens": 0,
        "general.seed": seed,
        "general.out_dir": str(runs),
        "general.run_name": run_name(variant, seed),
    }
    return [plan.config, *plan.overrides, *(f"--{key}={_text(value)}" for key, value in keys.items())]


def run_name(variant: Variant, seed: int) -> str:
    return f"{variant.name}-seed{seed}"


def at(tree: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key, None where there is none."""
    node: Any = tree
    for key in dotted.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
