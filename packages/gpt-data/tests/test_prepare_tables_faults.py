"""Tables and kill -9, a full disk, files that change: the dataset is the same as without, or there is none."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from gpt_data import DatasetError, prepare
from gpt_data.dataset import read_dataset
from gpt_data.preparation import write

# Kills itself at the Nth sync, rename or removal, or after so many seconds whatever it does.
SCRIPT = """
import os, shutil, signal, sys, threading, time
from gpt_data import prepare

left, seconds = int(sys.argv[3]), float(sys.argv[4])

def mortal(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

def die():
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)

os.fsync, os.replace, shutil.rmtree = mortal(os.fsync), mortal(os.replace), mortal(shutil.rmtree)
if seconds:
    threading.Thread(target=die, daemon=True).start()
began = time.monotonic()
prepare("text", [sys.argv[1]], tokenizer="byte", out=sys.argv[2], workers=2, shard_bytes=3000)
print(time.monotonic() - began)
"""
OPTIONS = {"tokenizer": "byte", "shard_bytes": 3000, "quiet": True}


@pytest.fixture
def folder(tmp_path):
    """300 documents in three formats."""
    folder = tmp_path / "in"
    folder.mkdir()
    texts = [f"This is document {i} of many.\n" * (1 + i % 9) for i in range(300)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:100])
    (folder / "a.jsonl").write_text(lines)
    with pyarrow.CompressedOutputStream(str(folder / "b.jsonl.zst"), "zstd") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in texts[100:200]).encode())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts[200:]}), folder / "c.parquet", row_group_size=7)
    return folder


def start(folder, out, moment=1_000_000, seconds=0.0):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(out), str(moment), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout, done.stderr


def contents(folder):
    """Every file of a dataset folder; the name of the folder is in its description."""
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    own_name = f'"name": "{folder.name}"'.encode()
    return {str(name): content.replace(own_name, b"") for name, content in files.items()}


def test_killed_again_and_again_it_ends_with_the_same_bytes(folder, tmp_path):
    prepare("text", [folder], out=tmp_path / "straight", **OPTIONS)
    expected = contents(tmp_path / "straight")
    out, kills, moment, code = tmp_path / "killed", 0, 2, -signal.SIGKILL
    while code:
        code, _, err = start(folder, out, moment)
        kills, moment = kills + (code != 0), moment + 13
        if out.exists():
            read_dataset(out).verify()
        else:
            assert code, err
    assert kills >= 3
    assert contents(out) == expected
    assert [p.name for p in tmp_path.glob(".killed*")] == [".killed.lock"]


@pytest.mark.slow  # the quick one above is killed at the moments that matter
def test_killed_at_random_times_it_ends_with_the_same_bytes(folder, tmp_path):
    code, took, _ = start(folder, tmp_path / "straight")
    assert code == 0
    expected, draw, out = contents(tmp_path / "straight"), random.Random(7), tmp_path / "random"
    for _ in range(3):
        start(folder, out, seconds=draw.uniform(0.05, max(0.1, float(took))))
    assert start(folder, out)[0] == 0
    assert contents(out) == expected


def test_finished_parts_are_kept_and_counted_as_done(folder, tmp_path):
    out = tmp_path / "out"
    assert start(folder, out, moment=30)[0] == -signal.SIGKILL
    finished = {p.stem: json.loads(p.read_text()) for p in (tmp_path / ".out.partial" / "records").glob("*.json")}
    assert finished
    shards = tmp_path / ".out.partial" / "dataset"
    before = {p.name: p.stat().st_ino for p in shards.glob("*.bin")}
    kept = {f"{key}_{name[-6:]}.bin" for name, record in finished.items() for key in record["files"]}
    code, _, err = start(folder, out)
    assert code == 0 and "MB of it already done" in err
    assert kept and {name: (out / name).stat().st_ino for name in kept} == {name: before[name] for name in kept}


def test_a_table_that_changed_since_starts_over(folder, tmp_path):
    out = tmp_path / "out"
    assert start(folder, out, moment=30)[0] == -signal.SIGKILL
    (folder / "a.jsonl").write_text(json.dumps({"text": "other text"}) + "\n")
    code, _, err = start(folder, out)
    assert code == 0 and "already done" not in err
    fresh = prepare("text", [folder], out=tmp_path / "fresh", **OPTIONS)
    assert read_dataset(out).digest == fresh.digest


def test_a_table_that_changes_meanwhile_is_noticed(folder, tmp_path, monkeypatch):
    real = write.write_part

    def slow(part, *args):
        record = real(part, *args)
        time.sleep(0.002)  # another time of change
        (folder / "c.parquet").touch()
        return record

    monkeypatch.setattr("gpt_data.preparation.run.write_part", slow)
    with pytest.raises(DatasetError, match=r"c\.parquet: changed while it was being prepared"):
        prepare("text", [folder], out=tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_stops_every_thread_and_the_next_run_continues(folder, tmp_path, monkeypatch):
    real, calls = os.replace, []

    def full(source, target):
        if str(target).endswith(".bin"):
            calls.append(target)
            if len(calls) == 6:
                raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(write.os, "replace", full)
    with pytest.raises(OSError, match=r"No space left.* run the same command again: '.*_\d+\.tmp'"):
        prepare("text", [folder], out=tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    done = len(list((tmp_path / ".out.partial" / "records").glob("*.json")))
    assert done >= 1
    prepare("text", [folder], out=tmp_path / "out", **OPTIONS).verify()
    straight = prepare("text", [folder], out=tmp_path / "straight", **OPTIONS)
    assert contents(tmp_path / "out") == contents(straight.path)


# Every document takes 20 ms, 24 s in all, which Ctrl-C must not wait for.
SLOW = """
import sys, time
from gpt_data import prepare
from gpt_data.tokenizers import ByteTokenizer

real = ByteTokenizer.encode_documents

def slow(self, texts):
    time.sleep(0.02 * len(texts))
    return real(self, texts)

ByteTokenizer.encode_documents = slow
prepare("text", [sys.argv[1]], tokenizer="byte", out=sys.argv[2], workers=1, shard_bytes=3000)
"""


def test_ctrl_c_ends_within_a_moment_and_the_next_run_continues(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    texts = [f"This is document {i} of many.\n" * 5 for i in range(1200)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "t.parquet", row_group_size=15)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(folder), str(out)], stderr=subprocess.PIPE, text=True)
    records = tmp_path / ".out.partial" / "records"
    try:
        deadline = time.monotonic() + 40
        while len(list(records.glob("*.json"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0 and "KeyboardInterrupt" in err and not out.exists()
    kept = [json.loads(path.read_text())["files"] for path in records.glob("*.json")]
    indices = [path.stem[-6:] for path in records.glob("*.json")]
    shards = tmp_path / ".out.partial" / "dataset"
    names = [f"{key}_{index}.bin" for index, files in zip(indices, kept, strict=True) for key in files]
    before = {name: (shards / name).stat().st_ino for name in names}
    assert 2 <= len(kept) < 40 and took < 10
    prepare("text", [folder], out=out, **OPTIONS).verify()
    assert {name: (out / name).stat().st_ino for name in names} == before
