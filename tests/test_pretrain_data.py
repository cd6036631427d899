"""apps/pretrain trains from every kind of data with every loader, by configuration alone, and resumes exactly."""

import json
import pickle
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from gpt_core.checkpoint import find_checkpoint
from gpt_data import describe_nanogpt, describe_speedrun, prepare
from gpt_data.shard_header import MAGIC
from workbench import WORDS

LOADERS = {
    "random_windows": {"dataset": "documents"},
    "shuffled_windows": {"dataset": "documents"},
    "sequential": {"dataset": "documents"},
    "document_aligned": {"dataset": "documents"},
    "best_fit": {"dataset": "documents", "buffer": 20},
    "packed_chat": {"dataset": "conversations", "buffer": 10},
    "hf_streaming": {"dataset": "PARQUET", "tokenizer": "byte", "val_documents": 20, "shuffle_window": 8},
    "mixture": {
        "sources": [
            {"loader": "random_windows", "dataset": "documents", "weight": 3},
            {"loader": "best_fit", "dataset": "documents", "buffer": 20, "weight": 1},
        ]
    },
}
FORMATS = ("documents", "jsonl", "parquet", "zstd", "nanogpt", "speedrun")


def write_speedrun(path, ids):
    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, 1, len(ids)
    path.write_bytes(header.tobytes() + np.asarray(ids, "<u2").tobytes())


@pytest.fixture(scope="module")
def data(shared_workbench):
    """The folder of datasets: the same documents in every format."""
    root, draw = shared_workbench.folder / "data", random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 40))) for _ in range(300)]
    sources = {name: root / "sources" / name for name in ("documents", "jsonl", "parquet", "zstd")}
    for folder in sources.values():
        folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        (sources["documents"] / f"{i:04d}.txt").write_text(text)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (sources["jsonl"] / "rows.jsonl").write_text(lines)
    pq.write_table(pa.table({"text": texts}), sources["parquet"] / "train-00000.parquet", row_group_size=50)
    with pa.CompressedOutputStream(str(sources["zstd"] / "rows.jsonl.zst"), "zstd") as file:
        file.write(lines.encode())
    for name, folder in sources.items():
        prepare("text", [folder], tokenizer="byte", out=root / name, quiet=True)
    ids = np.frombuffer(" ".join(texts).encode(), np.uint8)
    for folder in (root / "nanogpt", root / "speedrun"):
        folder.mkdir()
    for split, part in (("train", ids[1000:]), ("val", ids[:1000])):
        part.astype("<u2").tofile(root / "nanogpt" / f"{split}.bin")
        write_speedrun(root / "speedrun" / f"fineweb_{split}_000000.bin", np.where(part == ord(" "), 50256, part))
    chars = {i: chr(i) for i in range(128)}
    (root / "nanogpt" / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 128, "itos": chars}))
    describe_nanogpt(root / "nanogpt")
    write_gsm8k(root / "sources" / "tasks" / "gsm8k" / "main", draw)
    prepare("task_mixture", [root / "sources" / "tasks"], tokenizer="byte", allow_missing=True, root=root, quiet=True)
    (root / "task_mixture").rename(root / "conversations")
    describe_speedrun(root / "speedrun")
    return root


def write_gsm8k(folder, draw):
    """A copy of a repository of the hub with sums that look like GSM8K's."""
    folder.mkdir(parents=True)
    for split, count in (("train", 200), ("test", 40)):
        pairs = [(draw.randint(1, 9), draw.randint(1, 9)) for _ in range(count)]
        rows = {
            "question": [f"{a} and {b}?" for a, b in pairs],
            "answer": [f"It is <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}" for a, b in pairs],
        }
        pq.write_table(pa.table(rows), folder / f"{split}-00000-of-00001.parquet")


def configuration(workbench, loader, arguments, name):
    """A file like tiny.yaml with other data."""
    tree = yaml.safe_load(workbench.config.read_text())
    tree["data"] = {"module": f"gpt_data.{loader}", "module_kwargs": {"_inherit": False, **arguments}}
    path = workbench.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def weights(run_dir):
    return load_file(find_checkpoint(run_dir, "latest") / "model.safetensors")


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_trains_and_resumes_exactly(shared_workbench, data, loader):
    arguments = {k: str(data / "sources" / "parquet") if v == "PARQUET" else v for k, v in LOADERS[loader].items()}
    config = configuration(shared_workbench, loader, arguments, loader)
    length = f"--training.context_length={96 if loader == 'packed_chat' else 16}"  # question and answer in one row
    assert shared_workbench.pretrain(f"--run_name={loader}", length, config=config) is None
    straight = shared_workbench.out / loader
    resumed = shutil.copytree(straight, straight.parent / f"{loader}-resumed", symlinks=True)
    shutil.rmtree(resumed / "checkpoints" / "step_000006")
    for link in ("latest", "best"):
        (resumed / "checkpoints" / link).unlink()
        (resumed / "checkpoints" / link).symlink_to("step_000003")
    assert shared_workbench.pretrain(f"--run_name={resumed.name}", length, "--init_from=resume", config=config) is None
    first, second = weights(straight), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    record = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= r["train/data_wait"] < 1 for r in record if "train/data_wait" in r)
    assert any("train/data_wait" in r for r in record) and any("val/loss" in r for r in record)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_trains(shared_workbench, data, name):
    assert shared_workbench.pretrain(f"--run_name=format-{name}", f"--dataset={name}", "--training.max_steps=2") is None
    manifest = json.loads((shared_workbench.out / f"format-{name}" / "manifest.json").read_text())
    assert manifest["data"]["path"] == str(data / name)
