"""Our own GPT, or any callable that gives logits, as a `Network`.

Dimensions: B rows, T tokens fed, S slots held, D width, V vocabulary, G key/value heads, K head dimension.

What a model may offer beyond `model(ids_BT) -> logits_BTV`, by shape and not by type (gpt_core's GPT offers both):

    hidden(ids_BT) -> (B, T, D) and logits(x) -> (..., V)    vectors and head apart: logits only where they are read
    supports_cache = True and hidden(ids_BT, cache=c)        a cache of one's own: c.positions(T) gives positions,
                                                             c.update(layer, k, v) gives k, v and mask, c.advance(T);
                                                             not for a model with looks_back = True, whose tokens want
                                                             to know the one before
    config.layer_window(layer) -> int | None                 sliding windows
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .network import Sight, branches_exactly


class GPTNetwork:
    """Wraps a model that is called with token ids (B, T).

    A compiled model is taken uncompiled: every batch has another shape.
    """

    def __init__(self, model: Any, *, device: torch.device, vocab_size: int, context: int):
        self.model = getattr(model, "_orig_mod", model)
        self.device, self.vocab_size = device, vocab_size
        self.holds_logits = not (hasattr(self.model, "hidden") and hasattr(self.model, "logits"))
        self.can_branch = False
        if not self.holds_logits:
            self.holds_logits = not self._head_is_apart(context)
        looks_back = getattr(self.model, "looks_back", False)
        if not self.holds_logits and getattr(self.model, "supports_cache", False) and not looks_back:
            self.can_branch = branches_exactly(self, context)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT) if self.holds_logits else self.model.hidden(ids_BT)

    def head(self, x_ND: Tensor) -> Tensor:
        return x_ND if self.holds_logits else self.model.logits(x_ND)

    def new_cache(self) -> "TreeCache":
        config = getattr(self.model, "config", None)
        return TreeCache(getattr(config, "layer_window", lambda layer: None), self.device)

    def append(self, cache: "TreeCache", ids_BT: Tensor, sight: Sight | None) -> Tensor:
        cache.sight = sight
        return self.model.hidden(ids_BT, cache=cache)

    def select(self, cache: "TreeCache", rows: Sequence[int]) -> "TreeCache":
        return cache.of_rows(rows)

    @torch.inference_mode()
    def _head_is_apart(self, context: int) -> bool:
        """Whether hidden and logits, one after the other, are the model: a subclass may do something in between."""
        ids_BT = torch.arange(min(4, context), device=self.device)[None] % self.vocab_size
        apart, whole = self.model.logits(self.model.hidden(ids_BT)), self.model(ids_BT)
        return apart.shape == whole.shape and torch.allclose(apart.float(), whole.float(), rtol=1e-4, atol=1e-5)


class TreeCache:
    """Keys and values of every layer, in the order in which they came; the next forward pass may have its own sight."""

    sight: Sight | None = None

    def __init__(self, window_of: Callable[[int], int | None], device: torch.device):
        self._window_of, self._device = window_of, device
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._length = 0
        self._masks: dict[int | None, Tensor] = {}

    def positions(self, T: int) -> Tensor:
        """Of the next T tokens: (T,), or (B, T) where a sight says so."""
        if self.sight is not None:
            return self.sight.positions_BT
        return torch.arange(self._length, self._length + T, device=self._device)

    def update(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """All keys and values (B, G, S, K) of a layer, and the mask bool (B, 1, T, S); None for plain causal."""
        if layer in self._keys:
            k_BGTK = torch.cat([self._keys[layer], k_BGTK], dim=2)
            v_BGTK = torch.cat([self._values[layer], v_BGTK], dim=2)
        self._keys[layer], self._values[layer] = k_BGTK, v_BGTK
        if self.sight is None:
            return k_BGTK, v_BGTK, None
        window = self._window_of(layer)
        if window not in self._masks:
            self._masks[window] = self.sight.windowed(window)[:, None]
        return k_BGTK, v_BGTK, self._masks[window]

    def advance(self, T: int) -> None:
        """Counts T tokens as held, once per forward pass."""
        self._length += T
        self._masks.clear()

    def of_rows(self, rows: Sequence[int]) -> "TreeCache":
        """A cache of these rows; of a single row, views."""
        chosen = TreeCache(self._window_of, self._device)
        chosen._length = self._length
        chosen._keys = {layer: rows_of(k, rows) for layer, k in self._keys.items()}
        chosen._values = {layer: rows_of(v, rows) for layer, v in self._values.items()}
        return chosen


def rows_of(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of a tensor's first dimension, without a copy where it has only one."""
    if x.shape[0] == 1:
        return x.expand(len(rows), *x.shape[1:])
    return x.index_select(0, torch.tensor(rows, device=x.device))
