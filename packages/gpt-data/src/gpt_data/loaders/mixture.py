"""Rows of several loaders in one batch, in given shares.

Source: nanuGPT's Multiplex (spec scaling_midtrain_chat §4f), whose strategies these are.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..dataset import DatasetInfo
from .base import Loader, Rows, draw
from .mixture_corpus import MixtureCorpus, require_same_tokenizer
from .prefetch import Prefetch, prefetched
from .shard_loader import LossOn
from .splits import Corpus, Splits

Strategy = Literal["weighted", "uniform", "proportional"]
OWN_KEYS = ("loader", "name", "weight")
GIVEN_KEYS = ("context_length", "device_batch_size", "rank", "world_size", "prefetch")
DRAW_STREAM, DRAW_LIMIT = 3, 2**53


def mixture(
    sources: Sequence[Mapping[str, Any]],
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    strategy: Strategy = "weighted",
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """Every row of a batch comes from a source that is drawn for it, for training and for evaluation.

    sources: each a dict of `loader` (a factory of gpt_data, default `random_windows`, or a dotted path to one),
    `weight`, `name` (what statistics call it, default its dataset), and the arguments of that factory (`dataset`, ...).
    `seed` (plus the source's number), `data_root` and `loss_on` are passed on where a source has none of its own.
    strategy: `weighted` draws sources by `weight` (normalised; 0 turns one off), `uniform` all alike, `proportional` by
    the tokens of the split. The other two ignore `weight`.
    Errors: ValueError if a source is not understood, weights are missing or no weights, or vocabularies differ.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy is {strategy!r}, expected one of {', '.join(get_args(Strategy))}.")
    if not sources:
        raise ValueError("sources is empty, expected at least one: a dict with `dataset` and `weight`.")
    shape = {"context_length": context_length, "rank": rank, "world_size": world_size}
    built = []
    for number, source in enumerate(sources):
        shared = {"seed": seed + number, "data_root": data_root, "loss_on": loss_on}
        built.append(_build(number, source, {**shape, "device_batch_size": 1, "prefetch": 0}, shared))
    names = _names(sources)
    corpora = [splits.dataset for splits in built]
    require_same_tokenizer(names, corpora)

    def mixed(split: str, loader_seed: int) -> Mixture:
        parts = [
            Part(name, _bare(getattr(splits, split)), share)
            for name, splits, share in zip(names, built, shares[split], strict=True)
        ]
        return Mixture(parts, context_length, device_batch_size, rank, world_size, loader_seed)

    named = ["train", "val"] + ["test"] * all(splits.test is not None for splits in built)
    shares = {split: _shares(strategy, names, sources, corpora, split) for split in named}
    test = mixed("test", 0) if "test" in named else None
    corpus = MixtureCorpus(tuple(names), tuple(corpora))
    return Splits(train=prefetched(mixed("train", seed), prefetch), val=mixed("val", 0), test=test, dataset=corpus)


@dataclass(frozen=True)
class Part:
    """One source of a mixture."""

    name: str
    loader: Loader
    """With one row per batch."""
    share: float
    """Probability that a row is its; they add up to 1."""


class Mixture(Loader):
    """Row j of batch k, on every rank alike, comes from a source drawn by (seed, k·B + j).

    All ranks take their rows from the same sources at the same time, so the sources' states are equal on every rank
    where a source's own is. The stream of one rank does not depend on B. A state belongs to a number of ranks.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        context_length: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(context_length, device_batch_size, rank, world_size, seed)
        self.parts = tuple(parts)
        for part in self.parts:
            if part.loader.batch_shape != (1, context_length) or _hands_out_boundaries(part.loader):
                raise ValueError(
                    f"source {part.name!r} hands out whole batches of packed documents ({type(part.loader).__name__}), "
                    "a mixture takes rows. Use best_fit for it."
                )
        self._edges = np.cumsum([part.share for part in self.parts])[:-1] * DRAW_LIMIT
        self._slots = 0
        self._counts = [0] * len(self.parts)

    @property
    def vocab_size(self) -> int:
        return max(part.loader.vocab_size for part in self.parts)

    @property
    def where(self) -> str:
        return "mixture of " + ", ".join(part.loader.where for part in self.parts)

    @property
    def batches_per_epoch(self) -> int:
        """As many rows as an epoch of every source has together; which sources they are of is drawn."""
        return -(-sum(part.loader.batches_per_epoch for part in self.parts) // self.device_batch_size)

    def next_rows(self) -> Rows:
        drawn = draw(self.seed, self._slots, self.device_batch_size, DRAW_LIMIT, DRAW_STREAM)
        chosen = np.searchsorted(self._edges, drawn, side="right").tolist()
        before = [part.loader.state_dict() for part in self.parts]
        try:
            taken = [self.parts[number].loader.next_rows() for number in chosen]
        except BaseException:
            self._go_to(before)  # the next `next` tries the same batch: no row is left out
            raise
        self._slots += len(chosen)
        for number in chosen:
            self._counts[number] += 1
        ids = np.concatenate([rows.ids for rows in taken])
        if all(rows.mask is None for rows in taken):
            return Rows(ids)
        masks = [np.ones(rows.ids.shape, np.uint8) if rows.mask is None else rows.mask for rows in taken]
        return Rows(ids, np.concatenate(masks))

    def stats(self, state: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """For every source its `name`, `rows` of all ranks so far, their `share`, and the `probability` of a row.

        state: of this loader, default as it is now. While it is prefetched it is ahead of what was handed out; then
        give that state: `train.loader.stats(train.state_dict())`.
        """
        slots, counts = (self._slots, self._counts) if state is None else (state["slots"], state["counts"])
        total = max(slots, 1)
        return [
            {"name": part.name, "rows": count * self.world_size, "share": count / total, "probability": part.share}
            for part, count in zip(self.parts, counts, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        states = [part.loader.state_dict() for part in self.parts]
        return {"slots": self._slots, "counts": list(self._counts), "states": states, **self.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_identity(state)
        slots, counts, states = (state.get(name) for name in ("slots", "counts", "states"))
        if not isinstance(slots, int) or not isinstance(counts, list) or not isinstance(states, list):
            raise ValueError("this loader state has no `slots`, `counts` and `states` of a mixture's sources.")
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"this loader state has counts = {counts!r}, expected how many rows each source gave.")
        if sum(counts) != slots or not len(counts) == len(states) == len(self.parts):
            raise ValueError(f"this loader state is of {len(counts)} sources that gave {counts} of {slots} rows.")
        before = [part.loader.state_dict() for part in self.parts]
        for number, (part, own) in enumerate(zip(self.parts, states, strict=True)):
            try:
                part.loader.load_state_dict(own)
            except (ValueError, TypeError, AttributeError) as error:
                self._go_to(before[:number])
                raise ValueError(f"source {part.name!r}: {error}") from error
        self._slots, self._counts = slots, list(counts)

    def _go_to(self, states: Sequence[dict[str, Any]]) -> None:
        """The first sources to these states of theirs."""
        for part, state in zip(self.parts, states, strict=False):
            part.loader.load_state_dict(state)

    def identity(self) -> dict[str, Any]:
        sources = [[part.name, part.share] for part in self.parts]
        return {**super().identity(), "world_size": self.world_size, "sources": sources}


def _build(number: int, source: Mapping[str, Any], given: dict[str, Any], shared: dict[str, Any]) -> Splits:
    """The loaders of one source, with one row per batch."""
    where = f"source {number}"
    if not isinstance(source, Mapping):
        raise ValueError(f"{where} is {source!r}, expected a dict with `dataset` and `weight`.")
    loader = source.get("loader", "random_windows")
    factory = _factory(where, loader)
    takes = inspect.signature(factory).parameters
    own = {key: value for key, value in source.items() if key not in OWN_KEYS}
    for key in own:
        if key in GIVEN_KEYS:
            raise ValueError(f"{where} has {key}, which is the whole mixture's. Give it to the mixture.")
        if key not in takes:
            wanted = [name for name in takes if name not in GIVEN_KEYS]
            raise ValueError(f"{where} has {key!r}, {loader} takes {', '.join([*OWN_KEYS, *wanted])}.")
    arguments = {**{key: value for key, value in {**shared, **given}.items() if key in takes}, **own}
    missing = [key for key, p in takes.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}, which {loader} needs.")
    return factory(**arguments)


def _factory(where: str, name: Any) -> Callable[..., Splits]:
    module, _, attribute = str(name).rpartition(".")
    try:
        factory = getattr(import_module(module or "gpt_data.loaders"), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where} has loader {name!r}, which cannot be found ({error}).") from error
    if not inspect.isfunction(factory) or not {"context_length", "device_batch_size"} <= {
        *inspect.signature(factory).parameters
    }:
        raise ValueError(f"{where} has loader {name!r}, which is no data factory. Known: {', '.join(_known())}.")
    return factory


def _known() -> list[str]:
    loaders = import_module("gpt_data.loaders")
    functions = {name: value for name, value in vars(loaders).items() if inspect.isfunction(value)}
    return sorted(n for n, f in functions.items() if "device_batch_size" in inspect.signature(f).parameters)


def _names(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the sources are called; those called alike get their number."""
    names = [str(s.get("name", s.get("dataset", s.get("loader")))) for s in sources]
    return [f"{name} ({k})" if names.count(name) > 1 else name for k, name in enumerate(names)]


def _shares(
    strategy: Strategy, names: list[str], sources: Sequence[Mapping[str, Any]], corpora: list[Corpus], split: str
) -> list[float]:
    """Probabilities of the sources, which add up to 1."""
    if strategy == "uniform":
        return [1 / len(sources)] * len(sources)
    if strategy == "proportional":
        weights = [_tokens(name, corpus, split) for name, corpus in zip(names, corpora, strict=True)]
    else:
        weights = [_weight(name, source) for name, source in zip(names, sources, strict=True)]
    if not sum(weights):
        raise ValueError(f"the weights of {', '.join(names)} are all 0, expected at least one above.")
    return [weight / math.fsum(weights) for weight in weights]


def _weight(name: str, source: Mapping[str, Any]) -> float:
    if "weight" not in source:
        raise ValueError(f"source {name!r} has no weight. Give every source one, or use another strategy.")
    weight = source["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 <= weight < math.inf):
        raise ValueError(f"source {name!r} has weight {weight!r}, expected a number from 0 on.")
    return float(weight)


def _tokens(name: str, corpus: Corpus, split: str) -> float:
    if not isinstance(corpus, DatasetInfo):
        raise ValueError(
            f"source {name!r} has no number of tokens, so it has no part in proportion to it. Use strategy 'weighted'."
        )
    return float(corpus.splits[split].tokens)


def _bare(loader: Loader) -> Loader:
    return loader.loader if isinstance(loader, Prefetch) else loader


def _hands_out_boundaries(loader: Loader) -> bool:
    from .document_aligned import PackedLoader

    return isinstance(loader, PackedLoader)
