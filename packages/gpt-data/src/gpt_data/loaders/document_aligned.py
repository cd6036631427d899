"""The speedrun's batches: whole documents, each from its first token on, in one row with `cu_seqlens`.

Source: KellerJordan/modded-nanogpt, `distributed_data_generator`; here it is endless and can be resumed.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ..batch import Batch
from ..dataset import DatasetInfo, check_ids
from ..errors import DatasetError
from ..locate import open_dataset
from ..shards import TokenStream
from .base import Rows, to_batch
from .counted import WholeEpochs
from .document_walk import DocumentWalk, Pieces
from .documents import Place, Scanner, place_from
from .prefetch import Prefetch, prefetched
from .shard_loader import IndexedLoader, LossOn, ShardLoader
from .splits import Splits

LENGTHS_MULTIPLE = 128
HEADROOM = 2
"""So many times the average number of documents fit into a batch; more in one is an error."""


def document_aligned(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    max_document: int | None = None,
    max_documents: int | None = None,
    cut_validation: bool = True,
    val_batch_size: int | None = None,
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """Whole documents in one row of B·T tokens for training, contiguous windows with document boundaries to evaluate.

    dataset, context_length (T), device_batch_size (B), data_root, loss_on, prefetch: as for `random_windows`; seed is
    of no effect, documents come in file order.
    max_document: tokens of a document that are used, what is beyond is left out; default T.
    max_documents: length of `cu_seqlens`, which holds one document less; default the largest of n // 300 (upstream's),
    4·B and twice the documents that n tokens of the split have on average, up to a multiple of 128.
    cut_validation: documents of val and test that are longer than T are cut in `cu_seqlens` (no token is left out), so
    that a model made for T takes them; False: as upstream, documents of any length.
    val_batch_size: B of val and test; default device_batch_size.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    val_shape = (context_length, device_batch_size if val_batch_size is None else val_batch_size, rank, world_size)
    options: dict[str, Any] = {"loss_on": loss_on, "max_documents": max_documents}
    train = DocumentAligned(info, "train", *shape, seed=seed, max_document=max_document, **options)
    options["cut"] = cut_validation
    val = DocumentWindows(info, "val", *val_shape, **options)
    test = DocumentWindows(info, "test", *val_shape, **options) if "test" in info.splits else None
    ahead = PrefetchAligned(train, prefetch) if prefetch > 0 else prefetched(train, prefetch)
    return Splits(train=ahead, val=val, test=test, dataset=info)


class PackedLoader(ShardLoader):
    """Hands out one row of n = B·T tokens with `cu_seqlens`. Not for mixtures, whose rows have no boundaries."""

    def __init__(self, *args: Any, max_documents: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check_room(max_documents)
        self.max_documents = max_documents

    @staticmethod
    def _check_room(max_documents: int | None) -> None:
        if max_documents is not None and max_documents < 2:
            raise ValueError(f"max_documents is {max_documents}, expected at least 2: cu_seqlens holds 0 and an end.")

    @property
    def tokens(self) -> int:
        """n: tokens of a batch on one rank."""
        return self.device_batch_size * self.context_length

    @property
    def batch_shape(self) -> tuple[int, int]:
        return 1, self.tokens

    @property
    def lengths(self) -> int:
        """The fixed length of `cu_seqlens`."""
        if self.max_documents is not None:
            return self.max_documents
        split = self.dataset.splits[self.split]
        average = -(-self.tokens * split.documents // split.tokens)
        wanted = max(self.tokens // 300, 4 * self.device_batch_size, HEADROOM * average)
        return -(-wanted // LENGTHS_MULTIPLE) * LENGTHS_MULTIPLE

    def _batch(self, rows: Rows, ends: np.ndarray) -> Batch:
        """ends: where documents end in the row but the last, or where they begin, the first or not."""
        import torch

        needed = len(ends) + 2  # 0, and n after the last document
        if needed > self.lengths:
            raise DatasetError(
                f"{self.where}: the cu_seqlens of a batch are {needed} numbers, one more than documents, and there is "
                f"room for {self.lengths}. Give max_documents={-(-needed // LENGTHS_MULTIPLE) * LENGTHS_MULTIPLE} or "
                "more."
            )
        cu_seqlens = np.full(self.lengths, self.tokens, np.int32)
        cu_seqlens[0] = 0
        cu_seqlens[1 : len(ends) + 1] = ends
        check_ids(rows.ids, self.vocab_size, self.where)
        batch = to_batch(rows)
        return Batch(batch.inputs, batch.targets, torch.from_numpy(cu_seqlens))


class DocumentAligned(PackedLoader):
    """For ranks in order whole documents, at most `max_document` tokens of each, until every rank has n+1 tokens.

    The document that fills a rank is cut there; what is cut is left out, and the next rank, or batch, begins with the
    next document. So every document is taken once per epoch at most. Where the documents that are left do not fill a
    batch of all ranks, they are left out: at the end of every shard with boundary at `start` (the speedrun's rule; a
    document that such a shard cuts ends there, and its rest is left out), at the end of the split with boundary at
    `end`, where shards are one stream. Then the next shard begins, after the last one the first (upstream stops).

    A row is `inputs` = its first n tokens, `targets` = one token on; `cu_seqlens` are 0, where documents end, and n as
    often as it takes. The state is the next document's place, so a run resumes on any number of ranks, and with any
    batch size and `max_document`, with the next document. Sizes are in a state only after `resize`.
    """

    def __init__(self, *args: Any, max_document: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_document = self.context_length if max_document is None else max_document
        self._resized = False
        self._check_sizes()
        self._first_sizes = self._sizes()
        self._walk = self._new_walk(Place())

    @property
    def batches_per_epoch(self) -> int:
        """At most: as many as would hold every token of the split."""
        return max(1, len(self._stream) // (self.world_size * (self.tokens + 1)))

    def resize(
        self,
        device_batch_size: int | None = None,
        max_document: int | None = None,
        max_documents: int | None = None,
    ) -> None:
        """Other sizes from the very next batch on; None: as it is. The first two are part of the state.

        All ranks must do so before the same batch. A default `max_documents` follows the batch size.
        """
        if max_documents is not None:
            self._check_room(max_documents)
            self.max_documents = max_documents
        old = self.device_batch_size, self.max_document
        self.device_batch_size = old[0] if device_batch_size is None else device_batch_size
        self.max_document = old[1] if max_document is None else max_document
        try:
            self._check_sizes()
        except ValueError:
            self.device_batch_size, self.max_document = old
            raise
        self._resized = True

    def _sizes(self) -> dict[str, int]:
        return {"device_batch_size": self.device_batch_size, "max_document": self.max_document}

    def _check_sizes(self) -> None:
        if self.device_batch_size < 1 or self.max_document < 1:
            raise ValueError(
                f"device_batch_size and max_document must be at least 1, got {self.device_batch_size} and "
                f"{self.max_document}."
            )

    def __next__(self) -> Batch:
        place = self._walk.place
        try:
            pieces = self._walk.take(self.rank, self.world_size, self.tokens + 1, self.max_document)
            return self._batch(self._rows(pieces), pieces.ends_in_row()[:-1])
        except BaseException:
            self._walk = self._new_walk(place)  # the next `next` tries the same batch, and leaves out no document
            raise

    def next_rows(self) -> Rows:
        raise NotImplementedError("batches of whole documents have boundaries, which rows do not tell")

    def _rows(self, pieces: Pieces) -> Rows:
        ids = read_pieces(self._stream, pieces, self.tokens + 1)
        if self._mask_stream is None:
            return Rows(ids)
        return Rows(ids, read_pieces(self._mask_stream, pieces, self.tokens + 1))

    def _new_walk(self, place: Place) -> DocumentWalk:
        assert isinstance(self.dataset, DatasetInfo)
        by_shard = self.dataset.boundary is not None and self.dataset.boundary.at == "start"
        return DocumentWalk(Scanner(self.dataset, self.split, by_shard=by_shard), place)

    def state_dict(self) -> dict[str, Any]:
        resized = self._sizes() if self._resized else None
        return {**self._walk.place._asdict(), "resized": resized, **self.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_identity(state)
        place = place_from(state, len(self._stream.starts) - 1)
        resized = state.get("resized")
        self.resize(**(self._first_sizes if resized is None else _sizes_from(resized, self._first_sizes)))
        self._resized = resized is not None
        self._walk = self._new_walk(place)


def _sizes_from(resized: Any, like: dict[str, int]) -> dict[str, int]:
    """What a loader state says of sizes. ValueError if it is not a positive integer for each of the names of `like`."""
    if (
        not isinstance(resized, dict)
        or resized.keys() != like.keys()
        or not all(type(size) is int and size > 0 for size in resized.values())
    ):
        raise ValueError(f"this loader state has resized = {resized!r}, expected None or {' and '.join(like)}.")
    return resized


def read_pieces(stream: TokenStream, pieces: Pieces, count: int) -> np.ndarray:
    """(1, count): the tokens of the pieces, one after the other; pieces that touch are read at once."""
    row, at = np.empty((1, count), stream.dtype), 0
    breaks = np.flatnonzero(pieces.stops[:-1] != pieces.starts[1:]) + 1
    firsts = [0, *breaks.tolist(), len(pieces.starts)]
    for first, last in itertools.pairwise(firsts):
        start, stop = int(pieces.starts[first]), int(pieces.stops[last - 1])
        stream.read_into(row[0, at : at + stop - start], start)
        at += stop - start
    assert at == count
    return row


class DocumentWindows(PackedLoader, WholeEpochs, IndexedLoader):
    """Contiguous windows of n tokens: batch k of rank r is window kW+r of the split, whatever documents are in it.

    So all ranks together take W·n tokens per batch, and in an epoch every window once. Left out is a rest shorter than
    a window; the ranks that the last batch has no window for get one that does not count. `cu_seqlens` are 0 and the
    positions of the boundary token, with `cut` also every T-th position of a longer document.
    """

    def __init__(self, *args: Any, cut: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cut = cut
        self._boundary = Scanner(self.dataset, self.split).boundary.id
        self._windows = (len(self._stream) - 1) // self.tokens
        if not self._windows:
            raise DatasetError(
                f"{self.where}: has {len(self._stream)} tokens, a batch needs {self.tokens + 1} (device_batch_size · "
                "context_length + 1). Use a smaller device_batch_size or more text."
            )

    @property
    def epoch_rows(self) -> int:
        return self._windows

    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        window = int(self._numbers(batch)[0]) % self._windows
        stream.read_into(ids[0], window * self.tokens)

    def __next__(self) -> Batch:
        rows = self.next_rows()
        starts = np.flatnonzero(rows.ids[0, :-1] == self._boundary)
        return self._batch(rows, cut_longer(starts, self.tokens, self.context_length) if self.cut else starts)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "device_batch_size": self.device_batch_size, "cut": self.cut}


def cut_longer(starts: np.ndarray, tokens: int, longest: int) -> np.ndarray:
    """`starts` of sequences in [0, tokens), and every `longest`-th position of those that are longer."""
    edges = np.concatenate([[0], starts, [tokens]])
    inside = [np.arange(a + longest, b, longest) for a, b in itertools.pairwise(edges.tolist()) if b - a > longest]
    return np.sort(np.concatenate([starts, *inside]))


class PrefetchAligned(Prefetch):
    """Training batches made ahead, whose sizes can still be changed for the very next one."""

    loader: DocumentAligned

    def resize(
        self,
        device_batch_size: int | None = None,
        max_document: int | None = None,
        max_documents: int | None = None,
    ) -> None:
        """As the loader's own. What was made ahead in the old size is forgotten; no document is lost."""
        self.close()
        self.loader.resize(device_batch_size, max_document, max_documents)
        self.device_batch_size = self.loader.device_batch_size
        self._state = self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.device_batch_size = self.loader.device_batch_size
