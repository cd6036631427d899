"""Sinks: strict JSON that survives kill -9, a console that reads well anywhere, trackers that cannot end a run."""

import io
import json
import math
import os
import signal
import sys

import pytest
import torch

from gpt_core.monitor import (
    BaseSink,
    ConsoleSink,
    JsonlSink,
    Sinks,
    TensorBoardSink,
    TextLogSink,
    WandbSink,
    flatten,
)
from gpt_core.monitor.jsonl import read_lines
from gpt_core.monitor.strict_json import dumps, write_atomic
from gpt_core.monitor.text import count, duration


def strict(line):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def lines(path):
    return [strict(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Recorder(BaseSink):
    def __init__(self):
        self.calls = []

    def log(self, step, metrics):
        self.calls.append(("log", step, dict(metrics)))

    def event(self, kind, data):
        self.calls.append((kind, dict(data)))

    def close(self, status, error=None):
        self.calls.append(("close", status, error))


class Broken(BaseSink):
    def __init__(self, optional):
        self.optional = optional

    def log(self, step, metrics):
        raise ConnectionError("no route to tracker")

    def close(self, status, error=None):
        raise OSError("disk full")


# metrics.jsonl


def test_jsonl_is_strict_and_names_what_was_not_finite(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl", clock=lambda: 12.34567)
    sink.log(3, {"train/loss": math.nan, "train/grad_norm": -math.inf, "train/mfu": None, "train/tokens": 5})
    sink.event("eval", {"step": 3, "val/loss": 1.5, "per_class": {"a": math.inf}})
    sink.close("completed")
    first, second, end = lines(tmp_path / "metrics.jsonl")
    assert first == {
        "step": 3,
        "time": 12.346,
        "train/loss": None,
        "train/grad_norm": None,
        "train/mfu": None,
        "train/tokens": 5,
        "nonfinite": {"train/loss": "nan", "train/grad_norm": "-inf"},
    }
    assert second["nonfinite"] == {"per_class.a": "inf"}
    assert (end["event"], end["status"]) == ("end", "completed")


def test_jsonl_takes_tensors_and_keeps_integers(tmp_path):
    sink = JsonlSink(tmp_path / "m.jsonl")
    sink.log(1, {"a": torch.tensor(2.5), "b": torch.tensor(7), "c": torch.tensor(math.nan)})
    text = (tmp_path / "m.jsonl").read_text()
    assert '"a": 2.5' in text and '"b": 7,' in text and strict(text)["nonfinite"] == {"c": "nan"}


def test_jsonl_names_what_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match=r"data\.f.*function"):
        JsonlSink(tmp_path / "m.jsonl").event("x", {"data": {"f": lambda: 0}})


def test_every_line_is_on_disk_before_log_returns(tmp_path, fork):
    """A process killed without warning loses nothing it had logged."""
    script = (
        "import os, signal; from gpt_core.monitor import JsonlSink\n"
        f"sink = JsonlSink({str(tmp_path / 'm.jsonl')!r})\n"
        "for step in range(20): sink.log(step, {'train/loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert fork(tmp_path, exec, script, {}).code == -signal.SIGKILL
    assert [line["step"] for line in lines(tmp_path / "m.jsonl")] == list(range(20))


def test_full_disk_leaves_whole_lines(tmp_path, fork):
    """The limit on the file's size makes the last write a partial one, as a full disk does."""
    path = tmp_path / "m.jsonl"
    script = (
        "import resource; from gpt_core.monitor import JsonlSink\n"
        "before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))\n"
        f"sink = JsonlSink({str(path)!r})\n"
        "try:\n"
        "    for step in range(100): sink.log(step, {'train/loss': 1.0})\n"
        "finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)"
    )
    done = fork(tmp_path, exec, script, {})
    assert done.code == 1 and "OSError" in done.stderr and "m.jsonl" in done.stderr
    assert [line["step"] for line in lines(path)] == list(range(len(lines(path)))) and len(lines(path)) > 10


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_torn_last_line_is_repaired(tmp_path, cut):
    path = tmp_path / "m.jsonl"
    first = dumps({"step": 1, "train/loss": 2.0}) + "\n"
    second = dumps({"step": 2, "train/loss": 1.5, "note": "é" * 5}) + "\n"
    path.write_bytes((first + second).encode()[:-cut])
    sink = JsonlSink(path)
    sink.log(3, {"train/loss": 1.0})
    steps = [line["step"] for line in lines(path)]
    assert steps == ([1, 2, 3] if cut == 1 else [1, 3])  # only the newline lost: the record is whole and kept


def test_torn_line_longer_than_the_read_block(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "x": "' + "y" * 200_000)
    JsonlSink(path)
    assert path.read_text() == '{"step": 1}\n'
    path.write_text('{"step')
    JsonlSink(path)
    assert path.read_text() == ""


def test_resume_removes_what_comes_after_the_checkpoint(tmp_path):
    path = tmp_path / "m.jsonl"
    sink = JsonlSink(path)
    sink.event("start", {"run_name": "r"})
    for step in range(1, 8):
        sink.log(step, {"train/loss": float(step)})
        sink.event("eval", {"step": step, "val/loss": float(step)})
    sink.close("interrupted")
    resumed = JsonlSink(path, resume_step=4)
    resumed.log(5, {"train/loss": 50.0})
    records = lines(path)
    assert [r["step"] for r in records if "event" not in r] == [1, 2, 3, 4, 5]
    assert [r["step"] for r in records if r.get("event") == "eval"] == [1, 2, 3, 4]
    assert records[0]["event"] == "start" and records[-1]["train/loss"] == 50.0
    assert "end" not in [r.get("event") for r in records]


def test_damage_inside_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": NaN}\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"m\.jsonl:2: not a JSON object"):
        list(read_lines(path))


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


# fan-out


def test_optional_sink_that_fails_is_reported_once_and_dropped():
    recorder = Recorder()
    sinks = Sinks([Broken(optional=True), recorder])
    sinks.log(1, {"a": 1.0})
    sinks.log(2, {"a": 2.0})
    sinks.close("completed")
    warnings = [call for call in recorder.calls if call[0] == "warning"]
    assert len(warnings) == 1
    assert "Broken failed in log()" in warnings[0][1]["message"] and "no route" in warnings[0][1]["message"]
    assert [call[1] for call in recorder.calls if call[0] == "log"] == [1, 2]


def test_required_sink_that_fails_ends_the_run_but_every_sink_is_closed():
    recorder = Recorder()
    sinks = Sinks([Broken(optional=False), recorder])
    with pytest.raises(ConnectionError):
        sinks.log(1, {})
    with pytest.raises(OSError, match="disk full"):
        sinks.close("failed", "boom")
    assert recorder.calls[-1] == ("close", "failed", "boom")
    sinks.close("completed")  # a second close does nothing
    assert recorder.calls.count(("close", "failed", "boom")) == 1


def test_optional_sink_that_fails_to_close_is_only_reported():
    recorder = Recorder()
    Sinks([recorder, Broken(optional=True)]).close("completed")
    assert [call[0] for call in recorder.calls] == ["warning", "close"]


def test_flatten():
    assert flatten("grad", {"a": 1, "layers": {"h.0": 2}}) == {"grad/a": 1, "grad/layers/h.0": 2}


# console


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding="utf-8", tty=False):
        super().__init__(io.BytesIO(), encoding=encoding)
        self._tty = tty

    def isatty(self):
        return self._tty

    @property
    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


METRICS = {
    "train/loss": 2.34567,
    "train/lr": 6e-4,
    "train/step_time_ms": 500.0,
    "train/tokens_per_sec": 12_345.0,
    "train/mfu": None,
    "train/achieved_tflops": 0.01,
    "memory/rss_gb": 1.5,
    "grad/global_norm": 0.75,
    "grad/value_mean": 1e-5,
    "grad/value_std": 0.01,
}


def test_plain_lines_without_a_tty():
    stream, now = Terminal(), iter([100.5, 105.0])
    console = ConsoleSink(20, stream=stream, clock=lambda: next(now))
    console.log(1, METRICS)
    console.log(10, {**METRICS, "train/mfu": 0.421})
    first, second = stream.text.splitlines()
    assert first == "step  1/20 │ loss 2.3457 │ 12.3k tok/s │ MFU n/a │ left 0:10"
    # 10 steps in 5 s since the beginning of step 1
    assert second == "step 10/20 │ loss 2.3457 │ 12.3k tok/s │ MFU 42.1% │ left 0:05"


def test_time_left_of_a_resumed_run_counts_its_own_steps_only():
    stream, now = Terminal(), iter([10.0, 20.0])
    console = ConsoleSink(1000, start_step=900, stream=stream, clock=lambda: next(now))
    console.log(901, {"train/loss": 1.0, "train/step_time_ms": 1000.0})
    console.log(911, {"train/loss": 1.0})
    assert stream.text.splitlines()[1].endswith("left 1:29")


def test_the_first_report_is_of_several_steps():
    """METRICS: half a second each, on the mean; 20 of 100 took 10 s."""
    stream = Terminal()
    ConsoleSink(100, stream=stream, clock=lambda: 50.0).log(20, METRICS)
    assert stream.text.rstrip().endswith("left 0:40")


def test_ascii_terminal_gets_ascii():
    stream = Terminal("ascii")
    console = ConsoleSink(20, style="blocks", stream=stream)
    console.log(1, METRICS)
    console.event("sample", {"step": 1, "text": "naïve → 日本"})
    text = stream.text
    assert text.isascii()
    assert "Iter      1 | Loss 2.3457 | Time 500.0 ms | LR 6.00e-04" in text
    assert "na\\xefve -> \\u65e5\\u672c" in text


def test_block_shows_what_was_measured():
    stream = Terminal()
    console = ConsoleSink(20, style="blocks", stream=stream)
    console.event("start", {"mfu": {"flops_per_token": 854_654_976, "hardware_peak_tflops": 312.0}})
    console.log(7, METRICS)
    text = stream.text
    assert "MFU n/a │ Achieved 0.01 TF │ Peak 312.0 TF" in text
    assert "Tokens/s 12,345 │ FLOPs/token 0.855 GF" in text
    assert "Memory rss 1.50 GB" in text
    assert "Gradients norm 0.7500 │ mean 1e-05 │ std 0.01" in text
    ConsoleSink(20, style="blocks", stream=(bare := Terminal())).log(1, {"train/loss": 1.0})
    assert "Memory" not in bare.text and "Gradients" not in bare.text


def test_other_ranks_only_warn():
    stream = Terminal()
    console = ConsoleSink(20, rank=3, stream=stream)
    console.log(1, METRICS)
    console.event("eval", {"step": 1, "val/loss": 1.0})
    console.event("warning", {"message": "loss is not finite"})
    console.artifact("x.png", "x")
    console.close("completed")
    assert stream.text == "WARNING: rank 3: loss is not finite\n"


def test_tty_shows_one_live_line_and_keeps_events():
    stream = Terminal(tty=True)
    console = ConsoleSink(3, stream=stream, clock=iter(range(100)).__next__)
    for step in (1, 2, 3):
        console.log(step, METRICS)
    console.event("eval", {"step": 3, "val/loss": 1.25})
    console.close("completed")
    assert "step 3/3" in stream.text and "loss 2.3457" in stream.text
    assert "eval at step 3: val/loss=1.25" in stream.text


@pytest.mark.parametrize(("columns", "bar"), [(120, True), (66, False)])
def test_live_line_fits_the_terminal(monkeypatch, columns, bar):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal(tty=True)
    console = ConsoleSink(1000, stream=stream, clock=iter(range(100)).__next__)
    console.log(500, METRICS)
    console.close("completed")
    line = stream.text[stream.text.rindex("step") :].splitlines()[0]
    assert "left" in line and len(line) <= columns  # the time left is never what is cut
    assert ("█" in stream.text) == bar


def test_failure_names_the_reason():
    stream = Terminal()
    ConsoleSink(20, stream=stream).close("failed", "Traceback …\n  File …\nValueError: token 70 ≥ vocabulary 65")
    assert stream.text == "run failed: ValueError: token 70 ≥ vocabulary 65\n"


def test_steps_prints_lines_that_others_read():
    stream = Terminal()
    console = ConsoleSink(2232, style="steps", stream=stream)
    figures = {"train/tokens_per_sec": 512_000.0, "train/mfu": 0.41, "train/step_time_ms": 1020.0}
    console.log(10, METRICS | figures | {"train/grad_norm": 0.5})
    console.event("eval", {"step": 100, "val/loss": 3.1, "val/bits_per_byte": 1.01, "val/time_s": 2.0})
    console.log(2232, METRICS)
    console.event("eval", {"step": 2232, "test/loss": 3.25})
    assert stream.text.splitlines() == [
        "[Epoch 1/1] [Step    10/2232] (  0.4%) | Loss: 2.3457 | LR: 6.00e-04 | Grad: 0.5000 | Speed: 512.0K tok/s"
        " | MFU: 41.00% | Time: 1.02s",
        "VALIDATION | Step   100 | Val Loss: 3.100000 | BPB: 1.010000 | Time: 2.00s",
        "[Epoch 1/1] [Step  2232/2232] (100.0%) | Loss: 2.3457 | LR: 6.00e-04 | Grad: n/a | Speed: 12.3K tok/s"
        " | MFU: n/a | Time: 0.5s",
        "eval at step 2232: test/loss=3.25",
    ]


def test_unknown_style():
    with pytest.raises(ValueError, match=r"'fancy'.*one of compact, blocks, quiet, speedrun, steps"):
        ConsoleSink(1, style="fancy")  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (65, "1:05"), (3661, "1:01:01"), (90061, "1d 01:01:01"), (None, "?"), (math.inf, "?")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.0, "999"), (12_345.0, "12.3k"), (124_373_760.0, "124.37M"), (None, "n/a"), (math.nan, "n/a")],
)
def test_count(value, text):
    assert count(value) == text


# log.txt


def test_text_log_lines_and_ranks(tmp_path):
    log = TextLogSink(tmp_path, clock=lambda: 0.0)
    log.log(10, {"train/loss": 2.0, "grad/layers/h.0": 1.0})
    log.event("warning", {"message": "careful"})
    log.close("failed", "ValueError: x")
    entries = (tmp_path / "log.txt").read_text().splitlines()
    assert [entry.split("]", 1)[1] for entry in entries] == [
        "[INFO] step 10: train/loss=2",
        "[WARNING] careful",
        "[ERROR] run failed: ValueError: x",
    ]
    assert entries[0].startswith("[1970-01-01 ") or entries[0].startswith("[1969-12-31 ")
    TextLogSink(tmp_path, rank=2).event("warning", {"message": "here"})
    assert "here" in (tmp_path / "log.2.txt").read_text()


# trackers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = TensorBoardSink(tmp_path)
    for step in range(1, 4):
        sink.log(step, {"train/loss": 4.0 / step, "train/mfu": None})
    sink.event("sample", {"step": 3, "text": "hello"})
    sink.summary({"val/loss": 1.0})
    sink.close("completed")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 4.0),
        (2, 2.0),
        (3, pytest.approx(4 / 3)),
    ]
    assert events.Tags()["scalars"] == ["train/loss"]


def test_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"gpt-core\[wandb\]"):
        WandbSink(tmp_path, project="p", name="n")
    with pytest.raises(ImportError, match=r"gpt-core\[tensorboard\]"):
        TensorBoardSink(tmp_path)


WANDB_RUN = """
import wandb
from gpt_core.monitor import WandbSink
for status in ("completed", "failed"):
    sink = WandbSink(folder, project="p", name="unit", mode="offline")
    sink.event("start", {"config": {"lr": 0.5}})
    for step in (1, 2):
        sink.log(step, {"train/loss": 3.0 - step, "train/mfu": None})
    sink.event("warning", {"message": "slow"})
    sink.event("sample", {"step": 2, "text": "<b>"})
    sink.summary({"val/best_loss": 0.5})
    sink.close(status, "ValueError: broken")
    print(sink._run.id, sink._run.name, sink._run.tags)
wandb.teardown()
"""


@pytest.mark.slow
def test_wandb_offline_writes_and_marks_failures(tmp_path, fork):
    pytest.importorskip("wandb")
    environment = {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    done = fork(tmp_path, exec, WANDB_RUN, {"folder": tmp_path}, environment=environment)
    assert done.code == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert " unit " in first and "failed" not in first
    assert "[failed] unit" in second and "'failed'" in second
    assert first.split()[0] == second.split()[0] == (tmp_path / "wandb_run_id.txt").read_text().strip()
    records = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert records and all(record.stat().st_size > 1000 for record in records)
