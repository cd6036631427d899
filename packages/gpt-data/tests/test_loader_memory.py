"""Resident memory stays flat while loaders go through a split, whatever they keep and read ahead."""

import os

import numpy as np
import pytest

from gpt_data import best_fit, document_aligned, mixture, packed_chat, shuffled_windows

TOKENS = 24_000_000
FACTORIES = {
    "shuffled_windows": shuffled_windows,
    "document_aligned": document_aligned,
    "best_fit": best_fit,
    "packed_chat": packed_chat,
    "mixture": lambda path, *args, **kwargs: mixture([{"dataset": path, "weight": 1}], *args, **kwargs),
}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_what_was_read(make_documents):
    ids = np.ones(TOKENS, np.uint16)
    ids[::401] = 0
    made = make_documents({"train": [ids], "val": [ids[:100_000]]}, masks={"train": [ids], "val": [ids[:100_000]]})
    del ids
    for name, factory in FACTORIES.items():
        train = factory(made.path, 1024, 64, prefetch=0).train
        batches = TOKENS // (64 * 1024)
        for _ in range(batches // 4):
            next(train)
        before = resident_bytes()
        for _ in range(batches - batches // 4):
            next(train)
        grown = resident_bytes() - before
        assert grown < TOKENS * 3 / 10, f"{name} grew by {grown / 1e6:.0f} MB while it read {TOKENS * 9 / 4e6:.0f} MB"


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
