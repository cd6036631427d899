"""From rows of conversations to a dataset folder with loss masks.

Two passes, each resumable, neither with more than a batch in memory: rows are encoded in the order of the files into
`staged/`, then the shards are gathered from there in the shuffled order by positional reads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..chat import add_special_tokens, render
from ..chat.conversation import check_conversation
from ..dataset import DTYPES, Boundary, DatasetInfo, check_ids
from ..errors import DatasetError
from ..shards import TokenStream
from ..tokenizers import Tokenizer
from . import tables
from .build import Context, split_infos, table_facts, total, write_facts
from .encode import Encoded
from .mixture import ChatSource, Task, shuffled
from .progress import Progress
from .run import run_parts
from .staging import SOURCES_FILE
from .tables import Run
from .vocabulary import open_tokenizer, save_tokenizer, tokenizer_identity
from .write import Job, PartRecord, file_name

VERSION = 1
RUN_BYTES = 64 << 20
SHARD_TOKENS = 1 << 26
GATHERED_TOKENS = 1 << 20
"""Ids that are copied at once."""
IDS, MASK, LENGTHS = "ids", "mask", "lengths"


def build_chat(context: Context, source: ChatSource) -> None:
    """Write the dataset into the staging folder, or what is missing of it."""
    staging, options, progress = context.staging, context.options, context.progress
    stamps = {table: table.stamp() for task in source.tasks for table in task.tables}
    staging.open(_fingerprint(source, stamps, options))
    base = open_tokenizer(options["tokenizer"], context.gpt2_bpe)
    tokenizer = add_special_tokens(base, options["template"])
    if not staging.tokenizer.exists():
        save_tokenizer(tokenizer, staging.tokenizer)
    dtype = "uint16" if tokenizer.vocab_size < 1 << 16 else "uint32"
    runs = [chosen for task in source.tasks for chosen in _runs(task)]
    rows = [StagedRows(index, *chosen, tokenizer, dtype) for index, chosen in enumerate(runs)]
    folder, records = staging.folder("staged"), staging.folder("records")
    staged = run_parts(rows, folder, records, context.workers, progress, "encoding")
    counts = total(staged)
    for task in source.tasks:
        _check_task(task, rows, counts, progress)
    store = Store.open(folder, dtype, staged)
    gathered = [shard for side in ("train", "val") for shard in _shards(side, source.tasks, store)]
    finished = run_parts(gathered, staging.dataset, records, context.workers, progress, "shuffling")
    splits = split_infos(gathered, finished, counts)
    for side in ("train", "val"):
        if side not in splits:
            raise DatasetError(f"{source.description}: no usable conversation for {side!r}. Give other data.")
    facts = table_facts([table for task in source.tasks for table in task.tables], stamps, context)
    source_sha256 = write_facts(facts, staging.dataset / SOURCES_FILE)
    bos = tokenizer.special_tokens["<|bos|>"]
    DatasetInfo(
        path=staging.dataset,
        name=context.name,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.name,
        splits=splits,
        source={
            "recipe": context.recipe,
            "description": source.description,
            "license": source.license,
            "documents": sum(split.documents for split in splits.values()),
            "left_out": {"malformed": counts["malformed"]},
            "sha256": source_sha256,
            "tasks": [
                {key: counts[f"{task.name}/{task.side}/{key}"] for key in ("conversations", "tokens", "malformed")}
                | {"name": task.name, "split": task.side, "rows": len(task.rows)}
                for task in source.tasks
            ],
            **source.details,
        },
        options=options,
        boundary=Boundary(bos, "start"),
    ).save()


def _check_task(task: Task, staged: Sequence[StagedRows], counts: Mapping[str, int], progress: Progress) -> None:
    """Say how many rows were malformed; DatasetError if all of them were: then the data is not what it should be."""
    malformed = counts.get(f"{task.name}/{task.side}/malformed", 0)
    if not counts.get(f"{task.name}/{task.side}/conversations"):
        reason = next((part.reason() for part in staged if part.task is task and part.chosen.any()), "there are none")
        raise DatasetError(
            f"{task.name} ({task.side}): none of {len(task.rows)} rows is a conversation: {reason} "
            "Fetch the data again, or give the revision that this mixture was made for."
        )
    if malformed:
        progress.say(f"{task.name} ({task.side}): {malformed} of {len(task.rows)} rows are malformed and left out")


def _fingerprint(source: ChatSource, stamps: Mapping[tables.Table, tuple[int, int]], options: dict[str, Any]) -> str:
    files = [(table.key, stamp) for table, stamp in stamps.items()]
    chosen = [(task.name, task.side, hashlib.sha256(task.rows.tobytes()).hexdigest()) for task in source.tasks]
    content = [VERSION, options, tokenizer_identity(options["tokenizer"]), files, chosen]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- first pass: rows in the order of the files -------------------------------------------------------------------


@dataclass(frozen=True)
class StagedRows:
    """The chosen rows of one run, encoded: ids, mask, and the length of each conversation (0: it was malformed)."""

    index: int
    task: Task
    run: Run
    chosen: np.ndarray
    """(rows of the run,) bool"""
    tokenizer: Tokenizer
    dtype: str

    @property
    def name(self) -> str:
        return f"staged_{self.index:06d}"

    @property
    def weight(self) -> int:
        return self.run.weight

    def jobs(self) -> Iterator[Job]:
        first = 0
        for batch in tables.rows(self.run):
            chosen = self.chosen[first : first + len(batch.values)]
            rows = [row for row, wanted in zip(batch.values, chosen, strict=True) if wanted]
            first += len(batch.values)
            yield lambda rows=rows, weight=batch.weight: self._encode(rows, weight)

    def reason(self) -> str:
        """Why the first chosen row is malformed."""
        values = itertools.chain.from_iterable(batch.values for batch in tables.rows(self.run))
        row = next(itertools.compress(values, self.chosen))
        try:
            _text_bytes(self.task.convert(row))
        except ValueError as error:
            return f"{self.run.table.path}: {error}"
        return f"{self.run.table.path} changed meanwhile."

    def _encode(self, rows: Sequence[Mapping[str, Any]], weight: int) -> Encoded:
        ids, masks, lengths = [np.empty(0, np.uint32)], [np.empty(0, np.uint8)], []
        where, counts = f"{self.task.name}/{self.task.side}", Counter[str]()
        for row in rows:
            try:
                conversation = self.task.convert(row)
                size = _text_bytes(conversation)
            except ValueError:  # out of turn, no text: as a few rows of every such dataset are
                counts += Counter({"malformed": 1, f"{where}/malformed": 1})
                lengths.append(0)
                continue
            try:
                found = render(conversation, self.tokenizer)
            except ValueError as error:  # not the row's fault
                raise DatasetError(
                    f"{self.run.table.path}: a conversation cannot be written in tokens: {error}"
                ) from error
            ids.append(found.ids)
            masks.append(found.mask)
            lengths.append(len(found.ids))
            counts[f"{self.task.side}/bytes"] += size
            counts[f"{self.task.side}/documents"] += 1
            counts[f"{where}/conversations"] += 1
            counts[f"{where}/tokens"] += len(found.ids)
        all_ids = np.concatenate(ids)
        check_ids(all_ids, self.tokenizer.vocab_size, self.run.table.key)
        arrays = {
            IDS: all_ids.astype(DTYPES[self.dtype]),
            MASK: np.concatenate(masks).astype(np.uint8),
            LENGTHS: np.array(lengths, "<u4"),
        }
        return Encoded(arrays, counts, weight)


def _runs(task: Task) -> Iterator[tuple[Task, Run, np.ndarray]]:
    """The runs of a task's tables, and which of their rows belong to the mixture."""
    counts = [tables.count_rows(table) for table in task.tables]
    chosen = np.zeros(sum(counts), bool)
    chosen[task.rows] = True
    starts = itertools.accumulate(counts, initial=0)
    for table, start, count in zip(task.tables, starts, counts, strict=False):
        if not count:
            continue
        numbered = tables.cut_with_numbers(table, RUN_BYTES)
        ends = [*(first for _, first in numbered[1:]), count]
        for (run, first), end in zip(numbered, ends, strict=True):
            yield task, run, chosen[start + first : start + end]


def _text_bytes(conversation: Mapping[str, Any]) -> int:
    """UTF-8 bytes of what the messages say. ValueError if that is no conversation, or no Unicode."""
    contents = [message["content"] for message in check_conversation(conversation)]
    texts = (part for c in contents for part in ([c] if isinstance(c, str) else (part["text"] for part in c)))
    return sum(len(text.encode()) for text in texts)


# --- second pass: the shuffled order ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """All staged conversations, in the order of the tasks and their files."""

    folder: Path
    dtype: str
    files: tuple[tuple[int, int], ...]
    """Number and ids of each staged file."""
    starts: np.ndarray
    """(conversations + 1,) the position of the first id of each, and the end."""

    @classmethod
    def open(cls, folder: Path, dtype: str, records: Sequence[PartRecord]) -> Store:
        lengths = [
            np.fromfile(folder / file_name(LENGTHS, index), "<u4")
            for index, record in enumerate(records)
            if LENGTHS in record.files
        ]
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths or [np.empty(0)]), dtype=np.int64)])
        files = tuple((i, record.files[IDS].items) for i, record in enumerate(records) if IDS in record.files)
        return cls(folder, dtype, files, starts)

    def stream(self, kind: str) -> TokenStream:
        """The ids or the mask of all conversations."""
        paths = [self.folder / file_name(kind, index) for index, _ in self.files]
        dtype = DTYPES[self.dtype] if kind == IDS else np.dtype(np.uint8)
        return TokenStream(paths, [items for _, items in self.files], dtype)


@dataclass(frozen=True)
class GatheredShard:
    """Conversations in their final order: one file of ids and one mask."""

    side: str
    index: int
    store: Store
    conversations: np.ndarray
    """Numbers of conversations in the store."""

    @property
    def name(self) -> str:
        return f"{self.side}_{self.index:06d}"

    @property
    def weight(self) -> int:
        return int(self._lengths(self.conversations).sum()) * DTYPES[self.store.dtype].itemsize

    def _lengths(self, conversations: np.ndarray) -> np.ndarray:
        return self.store.starts[conversations + 1] - self.store.starts[conversations]

    def jobs(self) -> Iterator[Job]:
        for group in _cut_by_tokens(self.conversations, self._lengths(self.conversations), GATHERED_TOKENS):
            yield lambda group=group: self._gather(group)

    def _gather(self, group: np.ndarray) -> Encoded:
        lengths = self._lengths(group)
        arrays: dict[str, np.ndarray] = {}
        for kind, key in ((IDS, self.side), (MASK, f"{self.side}_mask")):
            stream = self.store.stream(kind)  # of its own: open files are not shared between threads
            arrays[key] = np.empty(int(lengths.sum()), stream.dtype)
            ends = np.cumsum(lengths)
            for conversation, end, length in zip(group.tolist(), ends.tolist(), lengths.tolist(), strict=True):
                stream.read_into(arrays[key][end - length : end], int(self.store.starts[conversation]))
        return Encoded(arrays, weight=arrays[self.side].nbytes)


def _shards(side: str, tasks: Sequence[Task], store: Store) -> Iterator[GatheredShard]:
    """The conversations of one split in the shuffled order, cut into shards; malformed rows are left out."""
    places: list[np.ndarray] = []
    first = 0
    for task in tasks:
        rank = np.empty(len(task.rows), np.int64)
        rank[np.argsort(task.rows)] = np.arange(len(task.rows))  # rows were staged in the order of the file
        if task.side == side:
            places.append(first + rank)
        first += len(task.rows)
    assert first == len(store.starts) - 1, "a staged row is missing"
    order = np.concatenate(places)[shuffled(sum(map(len, places)))]
    lengths = store.starts[order + 1] - store.starts[order]
    order, lengths = order[lengths > 0], lengths[lengths > 0]
    for index, group in enumerate(_cut_by_tokens(order, lengths, SHARD_TOKENS)):
        yield GatheredShard(side, index, store, group)


def _cut_by_tokens(conversations: np.ndarray, lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive groups of about `size` ids."""
    if not len(conversations):
        return []
    number = (np.cumsum(lengths) - lengths) // size  # of the group in which each begins
    return np.split(conversations, np.flatnonzero(np.diff(number)) + 1)
