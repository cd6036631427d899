"""Reading runs back: run.json in the seed's schema, summaries, pictures."""

import json
import math

import pytest

from gpt_core.monitor import (
    JsonlSink,
    RunError,
    RunJsonSink,
    Sinks,
    SummarySink,
    build_run_json,
    comparison,
    flatten,
    latest_runs,
    loss_curve,
    open_sinks,
    read_run,
    summarize,
)
from gpt_core.monitor.compare import compare_runs
from gpt_core.monitor.plots import smooth

CONSTANTS = {"flops_per_token": 1_000_000, "num_gpus": 2, "hardware_peak_flops": None, "architecture": "2L-2H-8D"}


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


def write_run(folder, *, steps=30, level=2.0, clock=None, first=1, start=True, end="completed", mfu=None):
    """A run as the training loop writes it: one step per second, an evaluation every ten."""
    clock = clock or Clock()
    sinks = Sinks([JsonlSink(folder / "metrics.jsonl", clock=clock, resume_step=first - 1 if first > 1 else None)])
    if start:
        model = {"total_params": 1_000_000, "architecture": "2L-2H-8D", "vocab_size": 65}
        hardware = {"gpu_name": None, "num_gpus": 0}
        sinks.event(
            "start",
            {"run_name": folder.name, "config": {"a": 1}, "model": model, "hardware": hardware, "mfu": CONSTANTS},
        )
    for step in range(first, steps + 1):
        clock.now += 1.0
        loss = level + 2 * math.exp(-step / 10)
        metrics = {
            "train/loss": loss,
            "train/lr": 1e-3,
            "train/step_time_ms": 900.0 + step,
            "train/mfu": mfu,
            "train/tokens_per_sec": 5000.0,
            **flatten("memory", {"rss_gb": 1.0}),
            **flatten("grad", {"global_norm": 0.5, "layers": {"h.0": 0.25}}),
        }
        sinks.log(step, metrics)
        if step % 10 == 0:
            values = {"val/loss": loss + 0.1, "val/bits_per_byte": loss / 2}
            sinks.log(step, values)
            sinks.event("eval", {"step": step, "lr": 1e-3, **values})
            sinks.event("checkpoint", {"step": step, "path": f"checkpoints/step_{step:06d}", "val_loss": loss + 0.1})
    if end:
        sinks.close(end)
    return folder


def test_run_json_has_the_whole_schema(tmp_path):
    record = json.loads(json.dumps(build_run_json(write_run(tmp_path / "run")), allow_nan=False))
    keys = (
        "run_name start_time config startup_info training_iterations eval_steps checkpoints metadata end_time summary"
    )
    assert set(keys.split()) <= set(record)
    startup = record["startup_info"]
    assert set(startup) == {"timestamp", "model", "optimizer", "config", "hardware"}
    assert {"total_params", "trainable_params", "non_embedding_params"} <= set(startup["model"])
    assert {"type", "param_groups"} <= set(startup["optimizer"])
    assert {"gpu_name", "num_gpus", "gpu_memory_gb", "precision", "parallelism"} <= set(startup["hardware"])
    assert {"world_size", "device", "dtype", "compile", "use_zero1", "use_fsdp"} <= set(record["metadata"])
    iteration = record["training_iterations"][4]
    assert {"iter", "loss", "time_ms", "mfu", "memory", "gradients"} <= set(iteration)
    assert iteration["iter"] == 5 and iteration["time_ms"] == 905.0
    assert iteration["memory"] == {"rss_gb": 1.0}
    assert iteration["gradients"] == {"global_norm": 0.5, "layers": {"h.0": 0.25}}
    assert iteration["mfu"]["mfu"] is None
    assert iteration["mfu"]["flops_achieved"] == 5e9 and iteration["mfu"]["tokens_per_sec_per_gpu"] == 2500.0
    assert [row["iter"] for row in record["eval_steps"]] == [10, 20, 30]
    assert set(record["eval_steps"][0]) == {"iter", "train_loss", "val_loss", "lr", "timestamp"}
    assert record["eval_steps"][0]["train_loss"] == record["training_iterations"][9]["loss"]
    assert set(record["checkpoints"][0]) == {"iter", "val_loss", "path", "timestamp"}
    assert record["summary"] == {
        "total_iterations": 30,
        "final_iter": 30,
        "final_train_loss": record["training_iterations"][-1]["loss"],
        "best_val_loss": record["eval_steps"][-1]["val_loss"],
        "avg_time_ms": pytest.approx(915.5),
        "avg_mfu": None,
        "total_eval_steps": 3,
        "total_checkpoints": 3,
    }


def test_run_json_of_an_empty_run_still_has_every_key(tmp_path):
    JsonlSink(tmp_path / "metrics.jsonl").event("start", {})
    full = build_run_json(write_run(tmp_path / "run"))
    assert set(build_run_json(tmp_path)) == set(full)


def test_run_json_is_written_in_growing_intervals(tmp_path, monkeypatch):
    jsonl, sink = JsonlSink(tmp_path / "metrics.jsonl"), RunJsonSink(tmp_path, save_interval=10)
    builds = []
    monkeypatch.setattr(
        "gpt_core.monitor.run_json.build_run_json", lambda path: builds.append(0) or build_run_json(path)
    )
    for step in range(1, 1001):
        for each in (jsonl, sink):
            each.log(step, {"train/loss": 1.0})
        if step == 10:
            assert json.loads((tmp_path / "run.json").read_text())["summary"]["final_iter"] == 10
    # 10 per interval at first, a tenth of the length later: far fewer than the 100 of a fixed interval.
    assert 10 < len(builds) < 50
    sink.close("completed")
    assert json.loads((tmp_path / "run.json").read_text())["summary"]["total_iterations"] == 1000


def test_open_sinks_leaves_a_complete_folder(tmp_path, capsys):
    sinks = open_sinks(tmp_path / "r", run_name="r", max_steps=2)
    sinks.event("start", {"run_name": "r"})
    sinks.log(1, {"train/loss": 2.0})
    sinks.log(2, {"train/loss": math.nan, "val/loss": 1.0})
    sinks.summary(summarize(read_run(tmp_path / "r"), status="completed"))
    sinks.close("completed")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "metrics.jsonl",
        "log.txt",
        "run.json",
        "summaries.json",
    }
    summary = json.loads((tmp_path / "r" / "summaries.json").read_text())
    assert summary["status"] == "completed" and summary["val/best_loss"] == 1.0 and summary["val/ppl"] == math.e
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "completed"
    assert "best val loss:" in capsys.readouterr().out


def test_a_new_start_sets_an_earlier_attempt_aside(tmp_path, capsys):
    for attempt in range(3):
        sinks = open_sinks(tmp_path, run_name="r", max_steps=9)
        for step in range(1, 5 - attempt):
            sinks.log(step, {"train/loss": float(attempt)})
    assert [point.step for point in read_run(tmp_path).train] == [1, 2]
    assert (tmp_path / "metrics.1.jsonl").read_text().count("\n") == 4
    open_sinks(tmp_path, run_name="r", max_steps=9, resume_step=1).log(2, {"train/loss": 7.0})
    assert [point.metrics["train/loss"] for point in read_run(tmp_path).train] == [2.0, 7.0]


def test_other_ranks_write_no_metrics(tmp_path):
    sinks = open_sinks(tmp_path / "r", run_name="r", max_steps=2, rank=1)
    sinks.log(1, {"train/loss": 2.0})
    sinks.warning("slow")
    sinks.close("completed")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["log.1.txt"]


def test_summaries_add_up(tmp_path):
    for data in ({"a": 1, "b": 1}, {"b": math.nan}):
        SummarySink(tmp_path).summary(data)
    assert json.loads((tmp_path / "summaries.json").read_text()) == {"a": 1, "b": None, "nonfinite": {"b": "nan"}}


def test_reading_a_run(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert (run.name, run.status, len(run.train), len(run.evals)) == ("run", "completed", 30, 3)
    assert run.best_val.step == 30 and run.best_val_loss == pytest.approx(2.1 + 2 * math.exp(-3))
    assert run.seconds == 30.0
    assert run.mean("train/step_time_ms", skip=5) == pytest.approx(sum(range(906, 931)) / 25)


def test_training_and_validation_numbers_in_one_line(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(1, {"val/loss": 4.0})
    sink.log(2, {"train/loss": 3.0, "val/loss": 3.5})
    run = read_run(tmp_path)
    assert [point.step for point in run.train] == [2] and [point.step for point in run.evals] == [1, 2]
    assert run.last("train/loss") == 3.0 and run.best_val_loss == 3.5


def test_time_between_sessions_does_not_count(tmp_path):
    clock = Clock()
    folder = write_run(tmp_path / "run", steps=10, clock=clock, end=None)  # killed
    assert read_run(folder).status == "unfinished"
    clock.now += 86_400.0
    write_run(folder, steps=20, first=8, clock=clock)
    run = read_run(folder)
    assert [point.step for point in run.train] == list(range(1, 21))
    assert run.seconds == 7 + 13  # steps 8 to 10 of the first session are gone, and the day in between too
    assert run.status == "completed"


def test_run_json_alone_can_be_read(tmp_path):
    folder = write_run(tmp_path / "run", mfu=0.25)
    (tmp_path / "old.json").write_text(json.dumps(build_run_json(folder)))
    old, new = read_run(tmp_path / "old.json"), read_run(folder)
    assert old.best_val_loss == new.best_val_loss and old.last("train/loss") == new.last("train/loss")
    assert old.mean("train/mfu") == 0.25 and old.status == "completed"


def test_reader_says_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no metrics\.jsonl"):
        read_run(tmp_path / "empty")
    with pytest.raises(RunError, match="no such run"):
        read_run(tmp_path / "absent")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.jsonl").write_text("\x00\x01\n")
    with pytest.raises(RunError, match=r"bad.metrics\.jsonl:1"):
        read_run(tmp_path / "bad")
    (tmp_path / "odd.json").write_text("[1, 2]")
    with pytest.raises(RunError, match=r"odd\.json: cannot be read"):
        read_run(tmp_path / "odd.json")
    (tmp_path / "new").mkdir()
    JsonlSink(tmp_path / "new" / "metrics.jsonl").event("start", {})
    with pytest.raises(RunError, match="no measurements"):
        read_run(tmp_path / "new")


def test_latest_runs_newest_first(tmp_path):
    import os

    for age, name in enumerate(("c", "a", "sub/b")):
        folder = write_run(tmp_path / name, steps=1)
        os.utime(folder / "metrics.jsonl", (1000 - age, 1000 - age))
    assert [path.name for path in latest_runs(tmp_path)] == ["c", "a", "b"]
    assert [path.name for path in latest_runs(tmp_path, 2)] == ["c", "a"]
    with pytest.raises(RunError, match="no such folder"):
        latest_runs(tmp_path / "x")


def test_comparison_sorts_and_measures_against_the_worst(tmp_path):
    runs = [read_run(write_run(tmp_path / name, level=level)) for name, level in (("a", 3.0), ("b", 2.0), ("c", 2.5))]
    runs.append(read_run(write_run(tmp_path / "none", steps=5)))  # never evaluated
    rows = compare_runs(runs)
    assert [(row["rank"], row["run"]) for row in rows] == [(1, "b"), (2, "c"), (3, "a"), (4, "none")]
    worst, best = rows[2]["best_val_loss"], rows[0]["best_val_loss"]
    assert rows[0]["improvement"] == pytest.approx((worst - best) / worst) and rows[2]["improvement"] == 0.0
    assert rows[3]["improvement"] is None and rows[0]["mfu"] is None and rows[0]["params"] == 1_000_000


def test_smooth_follows_a_line_and_damps_noise():
    line = [3.0 - 0.01 * i for i in range(100)]
    assert smooth(line)[:90] == pytest.approx(line[:90])
    noisy = [1.0 + (-1) ** i for i in range(300)]
    assert max(abs(value - 1.0) for value in smooth(noisy)[20:-1]) < 0.2
    assert len(smooth([1.0])) == 1


def colours(path):
    from matplotlib.image import imread

    pixels = imread(path)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 500
    return {tuple(pixel) for pixel in (pixels[::2, ::2, :3] * 8).astype(int).reshape(-1, 3).tolist()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_show_curves(tmp_path):
    pytest.importorskip("matplotlib")
    folder = write_run(tmp_path / "cost $5_{x", steps=60)  # would be mathematics if it were not escaped
    sink = JsonlSink(folder / "metrics.jsonl")
    sink.log(61, {"train/loss": math.nan, "train/lr": 1e-3})
    picture = loss_curve(folder)
    assert picture == folder / "report" / "loss.png"
    assert len(colours(picture)) > 10  # white, text, grid, blue and orange lines
    both = comparison([read_run(folder), read_run(write_run(tmp_path / "b"))], tmp_path / "both.png")
    assert len(colours(both)) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "both.png", "cost $5_{x"]


def test_nothing_to_draw_is_said(tmp_path):
    JsonlSink(tmp_path / "metrics.jsonl").log(1, {"train/loss": math.nan})
    with pytest.raises(RunError, match="no finite loss"):
        loss_curve(tmp_path)


def test_the_pace_is_of_all_steps_and_bits_are_those_of_the_best_loss(tmp_path):
    """Two reports of 20 steps at 100 ms, one of a single slow step: 41 steps in 5 s."""
    sinks = Sinks([JsonlSink(tmp_path / "metrics.jsonl", clock=Clock())])
    sinks.event("start", {"run_name": "r", "config": {}})
    for step, milliseconds, rate in ((20, 100.0, 1000.0), (40, 100.0, 1000.0), (41, 1000.0, 100.0)):
        times = {"train/step_time_ms": milliseconds, "train/tokens_per_sec": rate}
        sinks.log(step, {"train/loss": 1.0, **times})
    for step, loss, bits in ((0, 9.0, 1.0), (41, 2.0, 3.0)):
        sinks.event("eval", {"step": step, "val/loss": loss, "val/bits_per_byte": bits})
    sinks.close("completed")
    found = summarize(read_run(tmp_path))
    assert found["train/step_time_ms"] == pytest.approx(5000 / 41)
    assert found["train/tokens_per_sec"] == pytest.approx(4100 / 5)
    assert found["val/best_bits_per_byte"] == 3.0
