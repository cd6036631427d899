"""The loop that all datasets share: parts at once, each finished one recorded, finished ones skipped."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .progress import Progress
from .write import Part, PartRecord, write_part

JOBS_PER_WORKER = 3
"""Jobs in memory for each thread that encodes: one at work, one read, one to be written."""
READERS_PER_WORKER = 2
"""Parts at once for each thread that encodes: while one waits for the disk to have its files, another is encoded."""


def run_parts(
    parts: Sequence[Part], folder: Path, records: Path, workers: int | None, progress: Progress, phase: str
) -> list[PartRecord]:
    """Write the files of all parts to `folder` and their records to `records`; those that have one are kept.

    workers: threads that encode (default: one per core). The files do not depend on it.
    """
    workers = workers or os.cpu_count() or 1
    found = {part.name: PartRecord.load(records / f"{part.name}.json") for part in parts}
    todo = [part for part in parts if found[part.name] is None]
    total = sum(part.weight for part in parts)
    progress.phase(phase, total, already=total - sum(part.weight for part in todo))
    stopped = threading.Event()

    def on_weight(count: int) -> None:
        if stopped.is_set():
            raise InterruptedError("stopped because another part failed or Ctrl-C was pressed")
        progress.advance(count)

    readers = max(1, min(READERS_PER_WORKER * workers, len(todo)))
    with ThreadPoolExecutor(workers) as coders, ThreadPoolExecutor(readers) as pool:

        def work(part: Part) -> PartRecord:
            record = write_part(part, folder, coders, max(1, JOBS_PER_WORKER * workers // readers), on_weight)
            record.save(records / f"{part.name}.json")
            return record

        try:
            running = {pool.submit(work, part): part.name for part in todo}
            for future in as_completed(running):
                found[running[future]] = future.result()
        except BaseException:
            stopped.set()  # the pools wait for their threads: let them end at the next job
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [record for part in parts if (record := found[part.name]) is not None]
