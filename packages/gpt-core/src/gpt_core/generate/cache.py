"""The key/value cache of incremental decoding: preallocated, with rings for sliding-window layers.

Dimensions: B rows, G key/value heads, T new tokens, S visible tokens, K head dimension.

A batch of prompts of different lengths is padded on the left, so that every row's next token goes to the
same slot. Row b's tokens then start at slot pads[b]: its positions count from there and its queries never
see the slots before. A batch of equal lengths needs no mask at all, and this class then makes none.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from gpt_core.models.config import GPTConfig


def bounded_windows(config: GPTConfig, max_length: int) -> list[int | None]:
    """For every layer the keys that it keeps per row, or None where that is all of `max_length`."""
    windows = [config.layer_window(layer) for layer in range(config.n_layer)]
    return [window if window is not None and window < max_length else None for window in windows]


class KVCache:
    """Keys (already rotated) and values of every layer, for up to `max_length` slots per row.

    A layer with a sliding window of W keys holds W slots and overwrites its oldest: slot p % W holds the
    token of slot number p. Its keys come back in ring order, which attention does not mind: rotary positions
    are inside the keys, and a single query sees them all.

    Args:
        config: architecture of the model; gives layers, key/value heads, head dimension and windows.
        batch_size: rows B.
        max_length: slots per row, prompt, padding and new tokens together.
        dtype: of the keys and values as the model computes them.
        pads: padding tokens on the left of each row; None or all 0 for prompts of equal length.
    """

    length: int
    """Slots filled so far, padding included; the same in every row."""

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        max_length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        pads: Sequence[int] | None = None,
    ):
        if batch_size < 1 or max_length < 1:
            raise ValueError(f"a cache needs at least one row and one slot, got {batch_size} × {max_length}")
        self._windows = bounded_windows(config, max_length)
        shapes = [(batch_size, config.kv_heads, w or max_length, config.head_dim) for w in self._windows]
        keys = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        values = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        ids_BS = torch.zeros((batch_size, max_length), dtype=torch.int64, device=device)
        self._hold(keys, values, ids_BS, max_length, length=0, pads=pads)

    @classmethod
    def over(cls, config: GPTConfig, keys: list[Tensor], values: list[Tensor], ids_BS: Tensor, length: int) -> Self:
        """A cache on memory that someone else holds, with `length` tokens per row in it already.

        keys, values: per layer (B, G, slots, K), as this class lays them out, and ids of S slots; they are written in
        place.
        """
        cache = cls.__new__(cls)
        cache._windows = bounded_windows(config, ids_BS.shape[1])
        cache._hold(keys, values, ids_BS, ids_BS.shape[1], length, pads=None)
        return cache

    def _hold(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        ids_BS: Tensor,
        max_length: int,
        length: int,
        pads: Sequence[int] | None,
    ) -> None:
        self._keys, self._values, self._ids_BS = keys, values, ids_BS
        self.max_length, self.length = max_length, length
        self._positions = torch.arange(max_length, device=keys[0].device)
        self._pads: list[int] | None = None
        self._masks: dict[int | None, Tensor] = {}
        self._set_pads(pads)

    @property
    def batch_size(self) -> int:
        """Rows."""
        return self._keys[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return sum(x.nbytes for x in (*self._keys, *self._values))

    def positions(self, T: int) -> Tensor:
        """Positions of the next T tokens: (T,), or (B, T) when rows are padded (padding counts as 0).

        ValueError when there is no room for T more tokens.
        """
        if self.length + T > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens per row, got {self.length + T}")
        slots_T = self._positions[self.length : self.length + T]
        if self._pads is None:
            return slots_T
        return (slots_T - self._pads_B1).clamp_(min=0)

    def update(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append to a layer; return its visible keys and values (B, G, S, K) and their mask.

        The mask is None where causal attention aligned at the end is right, with the layer's window for
        T > 1; else bool (B, 1, T, S). The returned tensors are views that the next update may overwrite.
        """
        start, end = self.length, self.length + k_BGTK.shape[2]
        keys, values = self._keys[layer], self._values[layer]
        if end <= keys.shape[2]:  # slots still in order
            keys[:, :, start:end] = k_BGTK
            values[:, :, start:end] = v_BGTK
            mask = None if self._pads is None else self._mask(layer, first=0, end=end)
            return keys[:, :, :end], values[:, :, :end], mask
        assert self._windows[layer] is not None, "positions() checks that there is room"
        if end == start + 1:
            return self._replace_oldest(layer, k_BGTK, v_BGTK)
        return self._append_to_ring(layer, k_BGTK, v_BGTK)

    def before(self, ids_BT: Tensor) -> Tensor:
        """The token before each of the new ones, (B, T), -1 before a row's first."""
        start, end = self.length, self.length + ids_BT.shape[1]
        self._ids_BS[:, start:end] = ids_BT
        before_BT = self._ids_BS[:, (self._positions[start:end] - 1).clamp_(min=0)]
        return before_BT.masked_fill(self.positions(end - start) == 0, -1)

    def advance(self, T: int) -> None:
        """Count T tokens as held: called once per forward pass, after every layer's update."""
        self.length += T
        self._masks.clear()

    def select(self, rows: Sequence[int]) -> None:
        """Make the given rows, in this order, the new batch; a row may occur several times or not at all."""
        index = torch.tensor(rows, device=self._positions.device)
        self._keys = [x.index_select(0, index) for x in self._keys]
        self._values = [x.index_select(0, index) for x in self._values]
        self._ids_BS = self._ids_BS[index]
        self._set_pads(None if self._pads is None else [self._pads[row] for row in rows])

    def _set_pads(self, pads: Sequence[int] | None) -> None:
        self._masks.clear()
        if pads is None or not any(pads):
            self._pads = None
            return
        assert len(pads) == self.batch_size, f"one padding per row: got {len(pads)} for {self.batch_size} rows"
        self._pads = list(pads)
        self._pads_B1 = torch.tensor(self._pads, device=self._positions.device).unsqueeze(1)

    def _replace_oldest(self, layer: int, k_BG1K: Tensor, v_BG1K: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One token into a full ring: every slot is visible, unless it is still padding."""
        keys, values = self._keys[layer], self._values[layer]
        slot = self.length % keys.shape[2]
        keys[:, :, slot : slot + 1] = k_BG1K
        values[:, :, slot : slot + 1] = v_BG1K
        oldest = self.length + 1 - keys.shape[2]
        if self._pads is None or oldest >= max(self._pads):
            return keys, values, None
        return keys, values, self._mask(layer, first=oldest, end=self.length + 1, roll=oldest % keys.shape[2])

    def _append_to_ring(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Several tokens that do not fit: what the first of them still sees, in order, then all of them."""
        keys, values = self._keys[layer], self._values[layer]
        window, T = keys.shape[2], k_BGTK.shape[2]
        first = self.length - min(self.length, window - 1)
        past = self._positions[first : self.length] % window
        all_keys = torch.cat([keys[:, :, past], k_BGTK.to(keys.dtype)], dim=2)
        all_values = torch.cat([values[:, :, past], v_BGTK.to(values.dtype)], dim=2)
        kept = self._positions[self.length + max(0, T - window) : self.length + T] % window
        keys[:, :, kept] = all_keys[:, :, -len(kept) :]
        values[:, :, kept] = all_values[:, :, -len(kept) :]
        mask = None if self._pads is None else self._mask(layer, first=first, end=self.length + T)
        return all_keys, all_values, mask

    def _mask(self, layer: int, *, first: int, end: int, roll: int = 0) -> Tensor:
        """Bool (B, 1, T, S): which of the slots first … end−1 the new tokens see; rolled into ring order.

        A padding token sees itself, so that no softmax is empty. Layers of equal window share the mask.
        """
        window = self._windows[layer]
        if window not in self._masks:
            queries_T1 = self._positions[self.length : end].unsqueeze(1)
            slots_S = self._positions[first:end].roll(roll)
            seen_TS = slots_S <= queries_T1
            if window is not None:
                seen_TS &= slots_S > queries_T1 - window
            real_BS = slots_S >= self._pads_B1
            self._masks[window] = ((seen_TS & real_BS[:, None]) | (slots_S == queries_T1)).unsqueeze(1)
        return self._masks[window]
