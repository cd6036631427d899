"""Next-token logits of growing sequences, two ways: recomputed every time, or with a key/value cache.

Dimensions: B rows, T tokens, V vocabulary.  Both classes answer the same question, and in exact arithmetic
with the same numbers: `Recompute` is the definition, `Cached` the fast one.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .cache import KVCache

Sequences = list[list[int]]


class Decoder(Protocol):
    """What the generation loop asks for."""

    def logits(self, sequences: Sequences) -> Tensor:
        """Logits (B, V) of the token after each sequence; sequences only ever grow, by one token."""
        ...

    def select(self, rows: list[int]) -> None:
        """The rows that the next call will bring, as indices into the last one's; repeats allowed."""
        ...


class Recompute:
    """Encodes every sequence anew, cropped to its last `context` tokens: no state, nothing to get wrong.

    This is what nanoGPT does. Rows of equal length share a forward pass, so no padding is needed.
    """

    def __init__(self, model: nn.Module, context: int):
        self._model, self._context = model, context
        self._device = next(model.parameters()).device

    def logits(self, sequences: Sequences) -> Tensor:
        cropped = [sequence[-self._context :] for sequence in sequences]
        rows_by_length: dict[int, list[int]] = {}
        for row, sequence in enumerate(cropped):
            rows_by_length.setdefault(len(sequence), []).append(row)
        logits_by_row: dict[int, Tensor] = {}
        for rows in rows_by_length.values():
            ids_BT = torch.tensor([cropped[row] for row in rows], device=self._device)
            logits_BV = self._model(ids_BT, only_last=True)[:, -1]
            logits_by_row.update(zip(rows, logits_BV, strict=True))
        return torch.stack([logits_by_row[row] for row in range(len(sequences))])

    def select(self, rows: list[int]) -> None:
        pass


class Cached:
    """Encodes each different prompt once, then one token per row and call.

    Args:
        max_length: tokens that the longest sequence may reach while this decoder is used.
    """

    def __init__(self, model: nn.Module, max_length: int):
        self._model, self._max_length = model, max_length
        self._device = next(model.parameters()).device
        self._cache: KVCache | None = None

    def logits(self, sequences: Sequences) -> Tensor:
        if self._cache is None:
            return self._prefill(sequences)
        ids_B1 = torch.tensor([sequence[-1:] for sequence in sequences], device=self._device)
        return self._model(ids_B1, cache=self._cache, only_last=True)[:, -1]

    def select(self, rows: list[int]) -> None:
        if self._cache is not None:  # before the first logits there is nothing to select from
            self._cache.select(rows)

    def _prefill(self, sequences: Sequences) -> Tensor:
        """Every different sequence once, padded on the left to equal length, then copied to its rows."""
        unique = list(dict.fromkeys(map(tuple, sequences)))
        longest = max(map(len, unique))
        pads = [longest - len(sequence) for sequence in unique]
        self._cache = KVCache(
            config_of(self._model),
            len(unique),
            # The longest row may end early; the shortest then grows to max_length on top of its padding.
            self._max_length + max(pads),
            dtype=compute_dtype(self._model, self._device),
            device=self._device,
            pads=pads,
        )
        padded = [[0] * pad + list(sequence) for pad, sequence in zip(pads, unique, strict=True)]
        ids_BT = torch.tensor(padded, device=self._device)
        logits_BV = self._model(ids_BT, cache=self._cache, only_last=True)[:, -1]
        if len(unique) == len(sequences):
            return logits_BV
        place = {sequence: row for row, sequence in enumerate(unique)}
        rows = [place[tuple(sequence)] for sequence in sequences]
        self._cache.select(rows)
        return logits_BV[rows]


def config_of(model: nn.Module) -> Any:
    """The model's `.config`, a `GPTConfig` or another. ValueError if it does not tell context and vocabulary."""
    config = getattr(model, "config", None)
    if not all(isinstance(getattr(config, name, None), int) for name in ("context_length", "vocab_size")):
        raise ValueError(
            f"{type(model).__name__} has no `config` with context_length and vocab_size, got {type(config).__name__}"
        )
    return config


def compute_dtype(model: nn.Module, device: torch.device) -> torch.dtype:
    """The dtype that the model's keys come out in: autocast's where it is on, else the weights'."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return next(model.parameters()).dtype
