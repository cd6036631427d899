"""From a name to a finished dataset folder.

Work happens in `.NAME.partial/` beside the folder, and one rename makes the folder appear. A shard is the unit of
work: a finished one has a record and survives kill -9, an unfinished one is encoded again. Threads do the work,
because tiktoken, hashing and file reads release the interpreter's lock.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dataset import DESCRIPTION_FILE, TOKENIZER_FOLDER, Boundary, DatasetInfo, ShardInfo, SplitInfo, read_dataset
from ..durable import sync_tree
from ..errors import DatasetError
from ..root import data_root
from ..tokenizers import Tokenizer
from .documents import Scan, scan
from .lock import exclusive
from .plan import Plan, Shard, make_plan
from .progress import Progress
from .recipes import RECIPES
from .sources import Source
from .vocabulary import check_choice, make_tokenizer
from .write import ShardRecord, write_shard

SOURCES_FILE = "sources.jsonl"
OWN_FILES = re.compile(rf"{DESCRIPTION_FILE}|{SOURCES_FILE}|{TOKENIZER_FOLDER}|(train|val)_\d+\.bin")
DOCUMENTS_AT_ONCE = 64
Options = dict[str, Any]


def prepare(
    name: str,
    paths: Sequence[str | Path] = (),
    *,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    gpt2_bpe: str | Path | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    force: bool = False,
    workers: int | None = None,
    shard_bytes: int | None = None,
    quiet: bool = False,
) -> DatasetInfo:
    """Prepare a dataset, or open it if it is there. Any number of processes may call this at once: one works.

    name: one of `RECIPES`; paths: the user's texts, for recipes that take some;
    tokenizer: bpe | char | byte | gpt2; vocab_size: of a trained one; gpt2_bpe: folder with GPT-2's vocabulary files;
    out: the dataset folder (default: `name`, or the name of the first text, below `root`);
    force: replace what is there;
    workers: threads (default: one per core); shard_bytes: text per shard (default: a 16th of all, 1 to 256 MB).
    Errors: DatasetError says what is wrong with a text or with the folder; ValueError names an unknown choice.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}, expected one of {', '.join(RECIPES)}.")
    kind = tokenizer or RECIPES[name].tokenizer
    options: Options = {"tokenizer": kind, "vocab_size": check_choice(kind, vocab_size)}
    chosen = {key: value for key, value in (("tokenizer", tokenizer), ("vocab_size", vocab_size)) if value is not None}
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1.")
    texts = [Path(path) for path in paths]
    folder = Path(out) if out else data_root(root) / _default_name(name, texts)
    staging = folder.parent / f".{folder.name}.partial"
    progress = Progress(f"prepare {name}", quiet)
    with exclusive(folder.parent / f".{folder.name}.lock", progress.say):
        if folder.exists() and not force:
            if not (staging / "dataset").exists():  # published, and killed before this
                shutil.rmtree(staging, ignore_errors=True)
            info = _open_existing(folder, chosen)
            progress.say(f"is in {folder} already, made from {info.source['description']}")
            return info
        _check_replaceable(folder)
        source = RECIPES[name].source(texts, folder.parent / "downloads")
        with ThreadPoolExecutor(os.cpu_count() if workers is None else workers) as pool:
            _Build(name, folder.name, staging, source, options, pool, progress).run(gpt2_bpe, shard_bytes)
        _publish(staging, folder)
        progress.say(f"ready in {folder}")
        return read_dataset(folder)


def _default_name(name: str, texts: Sequence[Path]) -> str:
    """A text's dataset is called like its first file or folder."""
    if name != "text" or not texts:
        return name
    stem = texts[0].resolve().stem
    if stem in RECIPES:
        raise DatasetError(f"{texts[0]}: the dataset would be called {stem!r} like a recipe. Choose a folder: --out.")
    return stem


def _open_existing(folder: Path, chosen: Options) -> DatasetInfo:
    if not (folder / DESCRIPTION_FILE).exists():
        raise DatasetError(f"{folder}: exists and is no dataset. Choose another folder with --out, or remove it.")
    info = read_dataset(folder)
    for key, value in chosen.items():
        if info.options.get(key) != value:
            raise DatasetError(
                f"{folder}: was prepared with {key} = {info.options.get(key)!r}, not {value!r}. Choose another folder "
                "with --out, or replace it with --force."
            )
    return info


def _check_replaceable(folder: Path) -> None:
    """Never delete what `prepare` did not write."""
    foreign = [path.name for path in sorted(folder.glob("*")) if not OWN_FILES.fullmatch(path.name)]
    if foreign:
        raise DatasetError(
            f"{folder}: holds {foreign[0]!r}, which `prepare` did not write, so it is not replaced. Choose another "
            "folder with --out."
        )


@dataclass(frozen=True)
class _Build:
    """One dataset on its way into the staging folder."""

    recipe: str
    name: str
    staging: Path
    source: Source
    options: Options
    pool: ThreadPoolExecutor
    progress: Progress

    def run(self, gpt2_bpe: str | Path | None, shard_bytes: int | None) -> None:
        scans, left_out = self._scan()
        plan = make_plan(scans, shard_bytes)
        self._open_staging(plan.fingerprint(self.options))
        dataset = self.staging / "dataset"
        kind, vocab_size = self.options["tokenizer"], self.options["vocab_size"]
        tokenizer = make_tokenizer(kind, vocab_size, gpt2_bpe, plan, dataset / TOKENIZER_FOLDER, self.progress)
        dtype = "uint16" if tokenizer.vocab_size < 1 << 16 else "uint32"
        records = self._encode(plan, tokenizer, dtype)
        _write_sources(plan, dataset / SOURCES_FILE)
        DatasetInfo(
            path=dataset,
            name=self.name,
            dtype=dtype,
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.name,
            splits={split: _split_info(split, plan, records) for split in ("train", "val")},
            source={
                "recipe": self.recipe,
                "description": self.source.description,
                "license": self.source.license,
                "documents": len(plan.scans),
                "left_out": left_out,
                "sha256": plan.source_sha256,
            },
            options=self.options,
            boundary=Boundary(tokenizer.eot_id, "end") if plan.separate and tokenizer.eot_id is not None else None,
        ).save()

    def _scan(self) -> tuple[list[Scan], dict[str, int]]:
        """Distinct, non-empty texts in order, and how many documents were left out for which reason."""
        distinct: dict[str, Scan] = {}
        left_out = {"duplicate": 0, "empty": 0, "not_text": 0}
        documents = self.source.documents
        self.progress.phase("reading", sum(document.size() for document in documents))
        groups = [documents[i : i + DOCUMENTS_AT_ONCE] for i in range(0, len(documents), DOCUMENTS_AT_ONCE)]
        scanned = self.pool.map(lambda group: [scan(document) for document in group], groups)
        for found in itertools.chain.from_iterable(scanned):
            self.progress.advance(found.bytes)
            if not found.is_text and self.source.strict:
                raise DatasetError(f"{found.document.path}: is not UTF-8 text. Convert it, for example with iconv.")
            if not found.is_text:
                left_out["not_text"] += 1
            elif not found.bytes:
                left_out["empty"] += 1
            elif distinct.setdefault(found.sha256, found) is not found:
                left_out["duplicate"] += 1
        if not distinct:
            raise DatasetError(f"no text in {self.source.description} ({left_out} left out). Give other files.")
        return list(distinct.values()), left_out

    def _open_staging(self, fingerprint: str) -> None:
        """Keep what an earlier run of the same plan left, remove what another one did."""
        mark = self.staging / "fingerprint"
        if self.staging.exists() and not (mark.is_file() and mark.read_text() == fingerprint):
            shutil.rmtree(self.staging)
        for part in ("dataset", "records"):
            (self.staging / part).mkdir(parents=True, exist_ok=True)
        mark.write_text(fingerprint)

    def _encode(self, plan: Plan, tokenizer: Tokenizer, dtype: str) -> dict[str, ShardRecord]:
        paths = {shard.name: self.staging / "records" / f"{shard.name}.json" for shard in plan.shards}
        records = {name: record for name, path in paths.items() if (record := ShardRecord.load(path))}
        already = sum(shard.bytes for shard in plan.shards if shard.name in records)
        self.progress.phase("encoding", plan.bytes(), already)
        stopped = threading.Event()

        def on_bytes(count: int) -> None:
            if stopped.is_set():
                raise InterruptedError("stopped because another shard failed or Ctrl-C was pressed")
            self.progress.advance(count)

        def work(shard: Shard) -> ShardRecord:
            record = write_shard(shard, tokenizer, dtype, plan.separate, self.staging / "dataset", on_bytes)
            record.save(paths[shard.name])
            return record

        todo = [shard for shard in plan.shards if shard.name not in records]
        try:
            for shard, record in zip(todo, self.pool.map(work, todo), strict=True):
                records[shard.name] = record
        except BaseException:
            stopped.set()  # the pool waits for its threads: let them end at the next piece
            raise
        return records


def _split_info(split: str, plan: Plan, records: dict[str, ShardRecord]) -> SplitInfo:
    found = {f"{s.name}.bin": records[s.name] for s in plan.shards if s.split == split}
    return SplitInfo(
        tokens=sum(record.tokens for record in found.values()),
        bytes=sum(record.bytes for record in found.values()),
        documents=sum(record.documents for record in found.values()),
        shards=tuple(ShardInfo(file, record.tokens, record.sha256) for file, record in found.items()),
    )


def _write_sources(plan: Plan, path: Path) -> None:
    """One line per document: what it was called and what was in it."""
    with open(path, "w", encoding="utf-8") as file:
        for s in plan.scans:
            line = {"document": s.document.key, "sha256": s.sha256, "bytes": s.bytes}
            file.write(json.dumps(line) + "\n")


def _publish(staging: Path, folder: Path) -> None:
    """Make the finished dataset appear in one rename; one that is replaced is moved aside first."""
    sync_tree(staging / "dataset")
    if folder.exists():
        os.replace(folder, staging / "replaced")
    os.replace(staging / "dataset", folder)
    sync_tree(folder)
    shutil.rmtree(staging)
