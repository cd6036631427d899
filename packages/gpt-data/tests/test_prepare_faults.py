"""kill -9 at every moment that matters, several preparers, a full disk: nothing is lost, doubled or half there."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gpt_data import DatasetError, prepare
from gpt_data.dataset import read_dataset
from gpt_data.preparation import write

# Kills itself at the Nth sync, rename, or removal: the moments at which the folder changes for good.
SCRIPT = """
import os, shutil, signal, sys
from gpt_data import prepare

left = int(sys.argv[3])

def mortal(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

os.fsync, os.replace, shutil.rmtree = mortal(os.fsync), mortal(os.replace), mortal(shutil.rmtree)
prepare("text", [sys.argv[1]], tokenizer="byte", out=sys.argv[2], workers=1, shard_bytes=1500)
print(1000000 - left)
"""


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text(f"This is document {i}.\n" * 10)
    return folder


def start(texts, out, moment=1_000_000):
    command = [sys.executable, "-c", SCRIPT, str(texts), str(out), str(moment)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode, out, err


def test_killed_at_every_moment_it_ends_with_the_same_dataset(texts, tmp_path):
    """One folder is killed again and again, always a few steps further; it is complete or absent at all times."""
    _, moments, _ = finish(start(texts, tmp_path / "straight"))
    expected = read_dataset(tmp_path / "straight")
    out, kills, moment, code = tmp_path / "killed", 0, 1, -signal.SIGKILL
    while code:
        code, _, err = finish(start(texts, out, moment))
        if code:
            kills, moment = kills + 1, moment + 6
        if out.exists():
            read_dataset(out).verify()
        else:
            assert code, err
    assert kills >= 5 and int(moments) > 20
    info = read_dataset(out)
    assert (info.digest, info.splits, info.source) == (expected.digest, expected.splits, expected.source)
    assert [p.name for p in tmp_path.glob(".killed*")] == [".killed.lock"]


def test_finished_shards_are_kept(texts, tmp_path):
    out = tmp_path / "out"
    assert finish(start(texts, out, moment=25))[0] == -signal.SIGKILL
    finished = {p.stem: p for p in (tmp_path / ".out.partial" / "records").glob("*.json")}
    assert finished
    shards = tmp_path / ".out.partial" / "dataset"
    before = {name: (shards / f"{name}.bin").stat().st_ino for name in finished}
    code, _, err = finish(start(texts, out))
    assert code == 0 and "MB of it already done" in err
    assert {name: (out / f"{name}.bin").stat().st_ino for name in finished} == before


def test_work_for_other_texts_is_not_mixed_in(texts, tmp_path):
    out = tmp_path / "out"
    assert finish(start(texts, out, moment=25))[0] == -signal.SIGKILL
    (texts / "0.txt").write_text("changed in the meantime\n")
    code, _, err = finish(start(texts, out))
    assert code == 0 and "already done" not in err
    fresh = prepare("text", [texts], tokenizer="byte", out=tmp_path / "fresh", shard_bytes=1500)
    assert read_dataset(out).digest == fresh.digest


def test_of_several_preparers_one_works_and_the_others_wait(texts, tmp_path):
    processes = [start(texts, tmp_path / "out") for _ in range(3)]
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [0, 0, 0]
    errors = [err for _, _, err in results]
    assert sum("encoding" in err for err in errors) == 1
    assert sum("already, made from" in err for err in errors) == 2
    read_dataset(tmp_path / "out").verify()


def test_a_waiting_preparer_says_so(texts, tmp_path, capsys):
    import fcntl
    import threading

    with open(tmp_path / ".out.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=prepare, args=("text", [texts]), kwargs={"out": tmp_path / "out"}, daemon=True
        )
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive() and not (tmp_path / "out").exists()
    waiting.join(timeout=30)
    assert (tmp_path / "out" / "dataset.json").exists()
    assert "another process is preparing it, waiting" in capsys.readouterr().err


def test_a_full_disk_stops_every_thread_and_the_next_run_continues(texts, tmp_path, monkeypatch):
    real, calls = os.replace, []

    def full(source, target):
        if str(target).endswith(".bin"):
            calls.append(target)
            if len(calls) == 4:
                raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(write.os, "replace", full)
    arguments = {"tokenizer": "byte", "out": tmp_path / "out", "shard_bytes": 1500}
    with pytest.raises(OSError, match="No space left"):
        prepare("text", [texts], **arguments)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    done = len(list((tmp_path / ".out.partial" / "records").glob("*.json")))
    assert done >= 3
    prepare("text", [texts], **arguments).verify()


def test_a_replacement_killed_between_its_renames_is_finished_by_the_next_run(texts, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", {"out": tmp_path / "out", "shard_bytes": 1500}
    prepare("text", [texts], tokenizer="char", **arguments)
    real = os.replace

    def dies(source, target):
        real(source, target)
        if str(target).endswith("replaced"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare("text", [texts], tokenizer="byte", force=True, **arguments)
    monkeypatch.undo()
    assert not out.exists()
    assert prepare("text", [texts], tokenizer="byte", **arguments).tokenizer == "byte"


def test_a_damaged_dataset_is_made_anew_with_force(texts, tmp_path):
    arguments = {"tokenizer": "byte", "out": tmp_path / "out"}
    first = prepare("text", [texts], **arguments)
    (first.path / "dataset.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(DatasetError, match="--force"):
        prepare("text", [texts], **arguments)
    assert prepare("text", [texts], force=True, **arguments).digest == first.digest
