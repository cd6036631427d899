"""What people are shown: nothing that is not a score, and everything that a score needs beside it."""

import io
import re
from dataclasses import replace

import pytest

from gpt_eval.errors import EvaluationError
from gpt_eval.progress import ConsoleProgress, readable
from gpt_eval.report import markdown, plot_bars, plot_radar, table, write_results
from gpt_eval.results import Results, TaskResult, summarize
from gpt_eval.task import Record, Task


def result(name, accuracy, category="", **fields):
    """A task with ten items, one in ten right for every 0.1."""
    records = [Record(i, float(i < accuracy * 10), 0, i % 2) for i in range(10)]
    task = Task(name, "multiple_choice", "f.jsonl", baseline=0.5, category=category)
    made = summarize(task, records, rows=10, data_sha256="d" * 64, details={}, partial=False)
    return replace(made, **fields)


def results(*tasks: TaskResult, **fields):
    settings = {
        "model": {"name": "m|odel", "tokenizer_hash": "t", "max_length": 8},
        "protocol": "foundry",
        "suite": "s",
        "tasks": tasks,
        "averages": {},
        "missing": (),
        "limit": None,
        "bundle": "b",
        "versions": {"gpt-eval": "1"},
    }
    return Results(**(settings | fields))


def test_every_accuracy_has_its_baseline_majority_and_error_beside_it():
    line = table(results(result("copa", 0.7))).splitlines()[3]
    stderr = (0.7 * 0.3 / 9) ** 0.5
    assert line.split() == ["copa", "0", "10", "0.700", f"{stderr:.3f}", "0.500", "0.500", "+0.400"]


def test_where_nothing_could_be_graded_there_is_no_number():
    records = [Record(i, float("nan"), None, 0, unscored="no compiler") for i in range(3)]
    task = Task("cpp", "code", "f.jsonl")
    made = summarize(task, records, rows=3, data_sha256="", details={}, partial=False)
    assert made.accuracy is None and made.centered is None and made.n == 0
    text = table(results(made))
    line = text.splitlines()[3]
    assert line.split() == [
        "cpp",
        "0",
        "0",
        "0.000",
        "no",
        "score;",
        "partial;",
        "3",
        "unscored",
    ]  # K, n and the baseline
    assert "| cpp/0-shot | 3 | no compiler |" in markdown(results(made))


def test_a_withdrawn_score_is_no_number_though_items_have_grades():
    records = [Record(i, 1.0, 0, 0) for i in range(3)]
    task = Task("judged", "judged", "f.jsonl")
    made = summarize(task, records, rows=3, data_sha256="", details={"accuracy": None, "label": "local"}, partial=False)
    assert made.accuracy is None and made.stderr is None and made.details == {"label": "local"}
    assert "no score; local" in table(results(made))


def test_categories_count_the_same_and_so_does_their_error():
    records = [Record(i, float(i < 4), 0, 0, category="large" if i < 8 else "small") for i in range(10)]
    task = Task("t", "language_modeling", "f.jsonl", has_categories=True)
    made = summarize(task, records, rows=10, data_sha256="", details={}, partial=False)
    assert made.accuracy == (4 / 8 + 0 / 2) / 2
    assert made.stderr == pytest.approx((8 / 7 * 0.25 / 8) ** 0.5 / 2)
    assert made.categories == {"large": {"n": 8, "accuracy": 0.5}, "small": {"n": 2, "accuracy": 0.0}}


def test_a_partial_average_is_not_called_by_its_plain_name():
    averages = {"CORE": {"score": 0.12346, "coverage": "14/22", "label": "CORE (partial 14/22)"}, "x": {"score": None}}
    for text in (table(results(result("a", 0.5), averages=averages)), markdown(results(averages=averages))):
        assert "CORE (partial 14/22)" in text and "+0.1235" in text
        assert not re.search(r"CORE(?! \(partial)", text)
        assert "no score" in text


def test_the_page_is_markdown_whatever_the_names(tmp_path):
    page = markdown(results(result("a|b", 0.5), missing=("c/0-shot",)))
    assert r"a\|b" in page and "`c/0-shot`" in page
    rows = [line for line in page.splitlines() if line.startswith("| a")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 11 for line in rows if r"a\|b |" in line and "sha" not in line)


def test_pictures_are_drawn_where_there_is_something_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    three = results(*(result(name, 0.6, category=name) for name in ("reading", "choosing", "saying")))
    written = write_results(three, tmp_path)
    assert [path.name for path in written] == ["report.md", "bars.png", "radar.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[1:])
    assert "![](radar.png)" in written[0].read_text()
    assert plot_radar([results(result("a", 0.6, category="only"))], tmp_path / "no.png") is None
    with pytest.raises(EvaluationError, match="no task has a score"):
        plot_bars([results(result("a", 0.6, centered=None))], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_without_scores_there_is_a_page_and_a_reason_for_no_pictures(tmp_path):
    said = []
    written = write_results(results(result("a", 0.6, centered=None)), tmp_path, notify=said.append)
    assert [path.name for path in written] == ["report.md"] and "no pictures: no task has a score" in said[0]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_progress_tells_the_time_left_by_tokens():
    stream, clock = io.StringIO(), Clock()
    progress = ConsoleProgress(stream, every_seconds=30, clock=clock)
    progress.start(1000)
    for seconds, label, tokens in ((60, "a", 250), (10, "a", 50), (110, "a", 450), (60, "b", 250)):
        clock.now += seconds
        progress.update(label, tokens)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert lines == [" 25%  a  3 min 00 s left", " 75%  a  1 min 00 s left", "100%  b  0 s left"]


def test_durations_are_readable():
    assert [readable(seconds) for seconds in (5, 61, 3725, float("nan"))] == ["5 s", "1 min 01 s", "1 h 02 min", "?"]
