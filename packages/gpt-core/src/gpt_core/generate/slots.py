"""The key/value cache of rows that come and go: every row has its own length, and rows change places.

Dimensions: N rows taking part, R rows in all, G key/value heads, S visible slots, K head dimension.

A row is a `KVCache` of one row to those who encode a prompt into it, chunk by chunk; to those who add one token to
many rows at once, `together` shows the first N. Both write the same memory, and nothing is copied between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt_core.models.config import GPTConfig

from .cache import KVCache, bounded_windows


@dataclass(frozen=True)
class Snapshot:
    """What a row held when it was copied: keys and values of each layer, (G, slots, K)."""

    keys: list[Tensor]
    values: list[Tensor]
    ids: Tensor
    """Of its tokens, where the model looks back; else zeros."""
    length: int
    """Tokens."""
    rewindable: bool
    """Whether its beginnings can be had too: no sliding window has overwritten anything yet."""

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.keys, *self.values))


class SlotCache:
    """Keys (already rotated) and values of R rows of up to `max_length` tokens each.

    The token at position p of a row lies in slot p of a full layer and in slot p mod W of one with a window of W
    keys. Memory is reserved for R · max_length tokens; on a CPU the system hands it out only as it is written.

    Args: as for `KVCache`; dtype is that of the keys as the model computes them.
    """

    lengths: list[int]
    """Tokens held by each row."""

    def __init__(
        self,
        config: GPTConfig,
        rows: int,
        max_length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if rows < 1 or max_length < 1:
            raise ValueError(f"a cache needs at least one row and one slot, got {rows} × {max_length}")
        self.config, self.max_length, self.lengths = config, max_length, [0] * rows
        windows = bounded_windows(config, max_length)
        shapes = [(rows, config.kv_heads, window or max_length, config.head_dim) for window in windows]
        # Zeros and not empty, for the reason that `wipe` has.
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        self._ids_RS = torch.zeros((rows, max_length), dtype=torch.int64, device=device)
        self._smallest = min((window for window in windows if window), default=max_length)
        self._rows = torch.arange(rows, device=device)
        self._slots = torch.arange(max_length, device=device)

    def row(self, row: int) -> KVCache:
        """One row as a cache for any number of tokens; call `set_length` with its `.length` afterwards."""
        keys, values = ([x[row : row + 1] for x in tensors] for tensors in (self._keys, self._values))
        return KVCache.over(self.config, keys, values, self._ids_RS[row : row + 1], self.lengths[row])

    def set_length(self, row: int, length: int) -> None:
        """Say how many tokens a row holds; 0 empties it."""
        self.lengths[row] = length

    def wipe(self, row: int) -> None:
        """Empty a row whose keys or values may be NaN: what a mask hides is multiplied by 0, and 0 · NaN is NaN."""
        for x in (*self._keys, *self._values):
            x[row].zero_()
        self.lengths[row] = 0

    def together(self, rows: int) -> "Together":
        """The first N rows as a cache for exactly one token each. ValueError when one of them is full."""
        if max(self.lengths[:rows]) >= self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens per row, and one of {rows} rows is full")
        return Together(self, rows)

    def copy(self, source: int, target: int) -> None:
        """Make row `target` hold what row `source` holds."""
        if source != target:
            self.restore(target, self._view(source), self.lengths[source])

    def snapshot(self, row: int) -> Snapshot:
        """A copy of what a row holds, in memory of its own."""
        view = self._view(row)
        keys, values = ([x.clone() for x in tensors] for tensors in (view.keys, view.values))
        return Snapshot(keys, values, view.ids.clone(), view.length, view.rewindable)

    def restore(self, row: int, snapshot: Snapshot, length: int) -> None:
        """Make a row hold the first `length` tokens of a snapshot.

        Beginnings can be had of a snapshot that is `rewindable`; of others only the whole.
        """
        assert length == snapshot.length or (snapshot.rewindable and length < snapshot.length), "ask Prefixes"
        for kept, own in zip((*snapshot.keys, *snapshot.values), (*self._keys, *self._values), strict=True):
            slots = min(length, kept.shape[1])
            own[row, :, :slots] = kept[:, :slots]
        self._ids_RS[row, :length] = snapshot.ids[:length]
        self.lengths[row] = length

    def _view(self, row: int) -> Snapshot:
        """A snapshot that shares the row's memory."""
        length = self.lengths[row]
        keys, values = (
            [x[row, :, : min(length, x.shape[2])] for x in tensors] for tensors in (self._keys, self._values)
        )
        return Snapshot(keys, values, self._ids_RS[row, :length], length, rewindable=length <= self._smallest)


class Together:
    """The first N rows of a `SlotCache`, for a forward pass over one new token of each: `model(ids_N1, cache=...)`.

    Which slots a row sees needs no order: those of its tokens so far, up to the slots that the layer has.
    """

    def __init__(self, cache: SlotCache, rows: int):
        self._cache, self._count = cache, rows
        self._rows_N = cache._rows[:rows]
        self._lengths_N = torch.tensor(cache.lengths[:rows], device=self._rows_N.device)
        self._shortest, self._longest = min(cache.lengths[:rows]), max(cache.lengths[:rows])
        self._masks: dict[int, Tensor] = {}

    def positions(self, T: int) -> Tensor:
        assert T == 1, "rows of different lengths grow by one token at a time"
        return self._lengths_N.unsqueeze(1)

    def update(self, layer: int, k_NG1K: Tensor, v_NG1K: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        keys, values = self._cache._keys[layer], self._cache._values[layer]
        slots = keys.shape[2]
        place = (self._rows_N, slice(None), self._lengths_N if slots > self._longest else self._lengths_N % slots)
        keys[place] = k_NG1K[:, :, 0].to(keys.dtype)
        values[place] = v_NG1K[:, :, 0].to(values.dtype)
        seen = min(self._longest + 1, slots)
        return keys[: self._count, :, :seen], values[: self._count, :, :seen], self._mask(seen)

    def before(self, ids_N1: Tensor) -> Tensor:
        self._cache._ids_RS[self._rows_N, self._lengths_N] = ids_N1[:, 0]
        before_N = self._cache._ids_RS[self._rows_N, (self._lengths_N - 1).clamp(min=0)]
        return before_N.masked_fill(self._lengths_N == 0, -1)[:, None]

    def advance(self, T: int) -> None:
        for row in range(self._count):
            self._cache.lengths[row] += T

    def _mask(self, seen: int) -> Tensor | None:
        """Bool (N, 1, 1, S): the slots that each row has filled, the new token's included; None if that is all."""
        if self._shortest + 1 >= seen:
            return None
        if seen not in self._masks:
            slots_S = self._cache._slots[:seen]
            self._masks[seen] = (slots_S <= self._lengths_N.unsqueeze(1))[:, None, None]
        return self._masks[seen]


def longest_common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # halving compares slices, which runs in C
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
