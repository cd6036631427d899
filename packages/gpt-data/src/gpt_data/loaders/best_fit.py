"""Best-fit packed rows for pretraining: every row begins with the first token of a document, none is padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from ..locate import open_dataset
from .packing import LongDocuments, PackingLoader
from .prefetch import prefetched
from .shard_loader import LossOn
from .splits import Splits


def best_fit(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    buffer: int = 1000,
    long_documents: LongDocuments = "wait",
    shuffle: bool = False,
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """Best-fit packing for training and evaluation; other arguments as for `random_windows`.

    buffer: documents to choose from.
    long_documents: what becomes of one longer than T+1. `wait`, as nanochat: it never fits, so long ones fill the
    buffer in time, leave little choice, and only when they are the shortest is the first row of one used. `cut`: the
    first T+1 tokens are used, as one row. `split`: all of it is used, in rows that go on where the last ended, so that
    not every row begins with BOS. On texts much longer than T, `wait` and `cut` leave most of the text out.
    shuffle: the shards of the training split in another order in every epoch, drawn by `seed`.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    options: dict[str, Any] = {"buffer": buffer, "long_documents": long_documents, "loss_on": loss_on}
    train = BestFit(info, "train", *shape, seed=seed, shuffle=shuffle, **options)
    val = BestFit(info, "val", *shape, **options)
    test = BestFit(info, "test", *shape, **options) if "test" in info.splits else None
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=info)


class BestFit(PackingLoader):
    """Rows of T+1 tokens that begin with a document's BOS (boundary at `end`: the end token before the document).

    Into the row goes again and again the longest buffered document that fits; when none does, the shortest buffered
    one is cropped to the gap, and its rest left out. Every document is used once per epoch; at its end the buffer runs
    empty, and the row goes on with the next epoch (for evaluation it is padded, which no loss counts). Documents are
    not told apart (no `cu_seqlens`).
    """

    crop = True
    nothing = "has no document, its boundary token is nowhere in it. Prepare it again, or use random_windows."

    def __init__(self, *args: Any, long_documents: LongDocuments = "wait", **kwargs: Any) -> None:
        if long_documents not in get_args(LongDocuments):
            raise ValueError(
                f"long_documents is {long_documents!r}, expected one of {', '.join(get_args(LongDocuments))}."
            )
        self.long_documents = long_documents
        super().__init__(*args, **kwargs)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "long_documents": self.long_documents}

    def cropped_fraction(self, state: dict[str, Any] | None = None) -> float:
        """Of the tokens of all documents taken so far, by all ranks: the share that was left out.

        state: of this loader, default as it is now. While it is prefetched it is ahead of what was handed out; then
        give that state: `train.loader.cropped_fraction(train.state_dict())`.
        """
        counts = self._packer.state_dict() if state is None else state
        taken = counts["used"] + counts["cropped"]
        return counts["cropped"] / taken if taken else 0.0
