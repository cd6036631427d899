"""What can be taken out of a speedrun: every trick by name, and the keys that its absence changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt_core.models.speedrun.config import PREREQUISITES

Tree = Mapping[str, Any]
Keys = dict[str, Any]


@dataclass(frozen=True)
class Switch:
    """One trick."""

    about: str
    off: Callable[[Tree], Keys]
    """Of the configuration with everything on: the keys that change without the trick, its own first, and their
    values."""
    needs: tuple[str, ...] = ()
    """Without these it means nothing: they are off, so is it."""
    given: bool = True
    """Whether a configuration that does not name it has it."""


def _model(about: str, name: str, off: Any = False, *, given: bool = True, **more: Any) -> Switch:
    """A field of `SpeedrunConfig`, which says what it needs. more: other fields that change without it."""
    keys = {f"model.module_kwargs.{field}": value for field, value in {name: off, **more}.items()}
    return Switch(about, lambda tree: keys, PREREQUISITES.get(name, ()), given)


def _later(about: str, name: str, off: Any = False) -> Switch:
    """The same of a record after 68: on where a configuration says so."""
    return _model(about, name, off, given=False)


def _optimizer(about: str, **kwargs: Any) -> Switch:
    keys = {f"optimizer.module_kwargs.{name}": value for name, value in kwargs.items()}
    return Switch(about, lambda tree: keys)


def _even_batches(tree: Tree) -> Keys:
    """As many tokens in all: the mean of the stages, by their lengths."""
    stages = tree["stages"]
    lengths = stages["durations"]
    sizes = stages["device_batch_size"] * (len(lengths) if len(stages["device_batch_size"]) == 1 else 1)
    mean = sum(size * length for size, length in zip(sizes, lengths, strict=True)) / sum(lengths)
    return {"stages.device_batch_size": [round(mean)]}


def _last_windows(tree: Tree) -> Keys:
    """Those of the last stage from the beginning."""
    last, block = tree["stages"]["windows"][-1], tree["stages"]["block"]
    model = {f"model.module_kwargs.window_{name}": n * block for name, n in zip(("short", "long"), last, strict=True)}
    return {"stages.windows": [last], **model}


def _plain_momentum(tree: Tree) -> Keys:
    return {f"momentum_scheduler.module_kwargs.{name}": 0 for name in ("warmup_iters", "cooldown_iters")}


def _last_documents(tree: Tree) -> Keys:
    return {"stages.max_document": tree["stages"]["max_document"][-1:]}


def _no_prefix(tree: Tree) -> Keys:
    """The last weight of each stage is the prefix token's."""
    stages = tree["stages"]
    weights = {f"stages.{name}": [row[:-1] for row in stages[name]] for name in ("token_weights", "token_weights_end")}
    return {"loss.module_kwargs.prefix": False, "loss.module_kwargs.weights": [1], **weights}


SWITCHES: Mapping[str, Switch] = {
    "paired_heads": _model("four layers attend with pairs of heads, over twice the positions", "paired_heads"),
    "attention_free_layer": _model("the middle layer has no attention", "attention_free_layer"),
    "windows": _model("attention sees a short window, in two layers a long one", "windows"),
    "yarn": _model("positions are stretched when the long window grows", "yarn"),
    "half_rotary": _model("only half of a head's channels turn with the position", "half_rotary"),
    "key_offset": _model("still channels of a key come from the token before", "key_offset"),
    "attention_gates": _model("a gate per head on what attention gives", "attention_gates"),
    "value_embeddings": _model(
        "embeddings of the token in the values of five layers", "value_embeddings", value_std=0.0
    ),
    "value_gates": _model("a gate per head on the value embeddings", "value_gates"),
    "bigram_embeddings": _model(
        "a hashed embedding of each pair of tokens before every layer",
        "bigram_embeddings",
        bigram_rows=None,
        bigram_dim=None,
    ),
    "smear": _model("a little of the previous token's embedding", "smear"),
    "skip": _model("a gated skip connection over the middle", "skip"),
    "x0_lambdas": _model("the first embedding again before every layer", "x0_lambdas"),
    "backout": _model("part of a middle layer's stream is taken back before the head", "backout"),
    "softcap": _model("logits are bounded", "softcap"),
    "multi_token": Switch(
        "several next tokens in the loss of the first two stages",
        lambda tree: {"stages.token_weights": None, "stages.token_weights_end": None},
    ),
    "fp8_head": Switch("the head's products in float8", lambda tree: {"loss.module_kwargs.fp8": False}, given=False),
    "normuon": _optimizer("rows of matrix updates get equal norms (else Muon)", normuon=False),
    "cautious": _optimizer("only what the update would shrink decays", cautious=False),
    "polar_express": _optimizer("Polar Express (else five Newton-Schulz steps)", orthogonalizer="newton_schulz"),
    "adam_every_2": _optimizer("Adam steps at every second step, on both gradients", adam_every=1),
    "tie": _optimizer("embedding and head are one until the last stage (else never)", tie=False),
    "untie": Switch(
        "embedding and head part for the last stage (else never)",
        lambda tree: {"stages.untie_last": False},
        ("tie",),
    ),
    "mantissa": _optimizer("16 more bits for bfloat16 matrices", mantissa=False),
    "growing_batch": Switch("batches grow from stage to stage (else their mean)", _even_batches),
    "growing_windows": Switch("windows grow (else the last stage's)", _last_windows, ("windows",)),
    "stage_rates": Switch(
        "learning rates grow with the batch (else 1)",
        lambda tree: {"stages.lr": None if tree["stages"]["lr"] is None else [1.0]},
    ),
    "momentum_schedule": Switch("momentum warms up and cools down (else 0.95)", _plain_momentum),
    # records after 68, in their order
    "value_shift": _later("value embeddings in the second and third layer, not the first (70)", "value_shift"),
    "value_gate_token": _later("value gates read the value embedding too (70)", "value_gate_token"),
    "growing_documents": Switch("documents are cut shorter in the first stage (72)", _last_documents),
    "sublayer_lambdas": _later("factors for attention and MLP each (73)", "sublayer_lambdas"),
    "parallel_lanes": _later("two streams in the last third of the layers (73)", "parallel_lanes"),
    "cached_attention": _later("attention of the last layers reads an earlier stream (77)", "cached_attention"),
    "pair_banks": _later("queries and keys are orthogonalised by pairs of heads (80)", "pair_banks"),
    "mudd": _later("what the last layer and the head read is mixed for every token (81)", "mudd"),
    "xsa": _later("attention loses part of what lies along its own value (82)", "xsa"),
    "bigram_signs": _later("bigrams share rows, and differ in signs (83)", "bigram_signs"),
    "fp8_mlp": _later("the MLP's products in float8 (84, 89)", "fp8_mlp", "off"),
    "mudd_gates": _later("gates and factors for every token (85)", "mudd_gates"),
    "dynamic_heads": _later("the last layer mixes its heads' patterns (85)", "dynamic_heads"),
    "prefix": Switch("the next token's prefix is predicted too (88)", _no_prefix, ("multi_token",), given=False),
}

WITHOUT_EFFECT: Mapping[str, Callable[[Tree], bool]] = {
    "mantissa": lambda tree: tree["model"]["module_kwargs"].get("dtype", "float32") == "float32",
}
"""Switches that change nothing in some configurations, by which they are left out there."""


def applicable(tree: Tree, names: Iterable[str] | None = None) -> dict[str, Switch]:
    """The switches of a configuration that has them on; `names` are those to be looked at.

    Raises ValueError for a name that is none, or whose switch is off or without effect in the configuration.
    """
    wanted = list(SWITCHES) if names is None else list(names)
    unknown = [name for name in wanted if name not in SWITCHES]
    if unknown:
        raise ValueError(f"no switch {unknown[0]!r}; there are {', '.join(SWITCHES)}")
    off = {name for name in wanted if is_off(name, tree)}
    if names is not None and off:
        raise ValueError(f"{min(off)} is off, or without effect, in this configuration: nothing to compare")
    return {name: SWITCHES[name] for name in wanted if name not in off}


def is_off(name: str, tree: Tree) -> bool:
    """Whether the configuration does without the switch, or cannot tell it from its absence."""
    if name in WITHOUT_EFFECT and WITHOUT_EFFECT[name](tree):
        return True
    try:
        keys = SWITCHES[name].off(tree)
    except (KeyError, TypeError, IndexError):  # without stages there is no growth to switch off
        return True
    own = next(iter(keys))
    found = _value(tree, own)
    return not SWITCHES[name].given if found is ... else found == keys[own]


def _value(tree: Tree, dotted: str) -> Any:
    """What the configuration says at a dotted key; `...` for a missing one."""
    node: Any = tree
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ...
        node = node[key]
    return node


def with_dependents(name: str, among: Iterable[str]) -> frozenset[str]:
    """A switch and all of `among` that need it."""
    gone = {name}
    while more := {each for each in among if each not in gone and gone & set(SWITCHES[each].needs)}:
        gone |= more
    return frozenset(gone)


def with_needs(name: str) -> frozenset[str]:
    """A switch and all that it needs."""
    return frozenset({name}).union(*(with_needs(each) for each in SWITCHES[name].needs))


def keys_without(off: Iterable[str], tree: Tree) -> Keys:
    """The keys to set where the switches of `off` are off; of two that change one key, the one that the other needs,
    which stands above it, decides."""
    gone = set(off)
    keys: Keys = {}
    for name in reversed(list(SWITCHES)):
        if name in gone:
            keys |= SWITCHES[name].off(tree)
    return keys
