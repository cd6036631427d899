"""From documents and tables to a dataset folder."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..dataset import Boundary, DatasetInfo, SplitInfo
from ..errors import DatasetError
from .build import Context, split_infos, table_facts, total, write_facts
from .documents import Scan, scan
from .encode import TextEncoder
from .plan import EncodedShard, EncodedTable, Plan, make_plan
from .run import run_parts
from .sources import Source
from .staging import SOURCES_FILE
from .vocabulary import make_tokenizer, tokenizer_identity
from .write import Part

DOCUMENTS_AT_ONCE = 64


def build_text(context: Context, source: Source) -> None:
    """Write the dataset into the staging folder, or what is missing of it."""
    with ThreadPoolExecutor(context.workers) as pool:
        scans, left_out = _scan(source, pool, context)
        stamps = {table: table.stamp() for table in source.tables}  # before anything is planned or learned from them
        filled = [table for table in source.tables if table.field is not None]
        left_out["empty"] += len(source.tables) - len(filled)
        if not scans and not filled:
            raise DatasetError(f"no text in {source.description} ({left_out} left out). Give other files.")
        plan = make_plan(scans, context.shard_bytes, filled, source.join, source.val_one_in)
        kind, vocab_size = context.options["tokenizer"], context.options["vocab_size"]
        made_by = {"recipe": context.recipe, "joined": source.join is not None, "files": tokenizer_identity(kind)}
        context.staging.open(plan.fingerprint({**context.options, **made_by}, stamps))
        folder = context.staging.tokenizer
        tokenizer = make_tokenizer(kind, vocab_size, context.gpt2_bpe, plan, folder, context.progress)
        dtype = "uint16" if tokenizer.vocab_size < 1 << 16 else "uint32"
        encoder = TextEncoder(tokenizer, dtype, plan.separate, plan.val_one_in)
        parts: list[Part] = [EncodedShard(shard, encoder) for shard in plan.shards]
        parts += [EncodedTable(part, encoder) for part in plan.table_parts]
        staging, progress = context.staging, context.progress
        records = run_parts(parts, staging.dataset, staging.folder("records"), context.workers, progress, "encoding")
        counts = total(records)
        splits = split_infos(parts, records, counts)
        _check_splits(splits, plan, source)
    for found in plan.scans:
        found.check_unchanged()
    facts = [{"document": s.document.key, "sha256": s.sha256, "bytes": s.bytes} for s in plan.scans]
    if plan.tables:
        left_out["empty"] += counts["empty"]
        facts += table_facts(plan.tables, stamps, context)
    source_sha256 = write_facts(facts, staging.dataset / SOURCES_FILE)
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
            "documents": sum(split.documents for split in splits.values()) if plan.separate else len(plan.scans),
            "left_out": left_out,
            "sha256": source_sha256,
            **_table_source(plan),
            **source.details,
        },
        options=context.options,
        boundary=Boundary(tokenizer.eot_id, "end") if plan.separate and tokenizer.eot_id is not None else None,
    ).save()


def _scan(source: Source, pool: ThreadPoolExecutor, context: Context) -> tuple[list[Scan], dict[str, int]]:
    """Distinct, non-empty texts in order, and how many documents were left out for which reason."""
    distinct: dict[str, Scan] = {}
    left_out = {"duplicate": 0, "empty": 0, "not_text": 0}
    documents = source.documents
    if documents:
        context.progress.phase("reading", sum(document.size() for document in documents))
    groups = [documents[i : i + DOCUMENTS_AT_ONCE] for i in range(0, len(documents), DOCUMENTS_AT_ONCE)]
    scanned = pool.map(lambda group: [scan(document) for document in group], groups)
    for found in itertools.chain.from_iterable(scanned):
        context.progress.advance(found.bytes)
        if not found.is_text and source.strict:
            raise DatasetError(f"{found.document.path}: is not UTF-8 text. Convert it, for example with iconv.")
        if not found.is_text:
            left_out["not_text"] += 1
        elif not found.bytes:
            left_out["empty"] += 1
        elif distinct.setdefault(found.sha256, found) is not found:
            left_out["duplicate"] += 1
    return list(distinct.values()), left_out


def _check_splits(splits: dict[str, SplitInfo], plan: Plan, source: Source) -> None:
    documents = sum(split.documents for split in splits.values())
    if not documents:
        raise DatasetError(f"no text in {source.description}: every document is empty. Give other files.")
    for split in ("train", "val"):
        if split not in splits:
            raise DatasetError(
                f"{source.description}: none of {documents} documents fell to {split!r}, where one in "
                f"{plan.val_one_in} is held out by its hash. Hold out another share: --val-one-in N."
            )


def _table_source(plan: Plan) -> dict[str, Any]:
    if not plan.tables:
        return {}
    by_hash = any(table.split is None for table in plan.tables)
    held_out = f"documents whose sha256 is divisible by {plan.val_one_in}" if by_hash else "the source's own split"
    return {"tables": len(plan.tables), "validation": held_out}
