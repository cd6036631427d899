"""samples.jsonl: what is written is read back, half lines are dropped, other evaluations are refused."""

import errno
import json
import math

import pytest

from gpt_eval.errors import EvaluationError
from gpt_eval.samples import SampleWriter, from_line, read_samples, resume, to_line
from gpt_eval.task import Record

HEADER = {"format": 1, "model": {"name": "m"}, "limit": None, "probe": [-1.0, -2.0], "tasks": {"a/0-shot": "1"}}


def record(index: int, **fields) -> Record:
    return Record(index=index, correct=float(index % 2), prediction=index, gold=1, **fields)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "run/samples.jsonl"
    writer = SampleWriter(path, HEADER, {})
    writer.append("a/0-shot", [record(1), record(0)])
    writer.close()
    return path


def test_a_record_survives_the_file():
    before = Record(
        3, math.nan, "text \ud83d half\u2028line", ["g"], "cat", {"x": math.nan}, True, "why", "ab", {"sum": [-1.5]}
    )
    line = to_line("t/1-shot", before)
    assert line.endswith("\n") and line.count("\n") == 1
    line.encode()  # half of a surrogate pair must not stop the writing
    label, after = from_line(json.loads(line))
    assert label == "t/1-shot" and math.isnan(after.correct) and math.isnan(after.metrics["x"])
    assert (after.prediction, after.detail, after.unscored) == (before.prediction, before.detail, "why")


def test_what_was_done_is_read_back_whatever_the_order(written):
    kept = resume(written, HEADER)
    assert {index: found.correct for index, found in kept["a/0-shot"].items()} == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("torn", ['{"task": "a/0-sh', "{", '{"task": "a/0-shot", "index": 7}'])
def test_a_line_that_a_kill_cut_short_is_dropped(written, torn):
    with open(written, "a") as file:
        file.write(torn)
    assert resume(written, HEADER)["a/0-shot"].keys() == {0, 1}


def test_a_kill_while_the_first_line_was_written_begins_anew(written):
    written.write_text('{"evaluation": {"for')
    assert resume(written, HEADER) == {}


def test_a_broken_line_in_the_middle_is_an_error_with_its_place(written):
    lines = written.read_text().splitlines(keepends=True)
    written.write_text(lines[0] + "not json\n" + lines[1])
    with pytest.raises(EvaluationError, match=r"samples\.jsonl:2: not a line of samples"):
        read_samples(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "other"}}, "model was"),
        ({"model": {"name": "m", "dtype": "bfloat16"}}, "model was {'dtype': None}, is now {'dtype': 'bfloat16'}"),
        ({"tasks": {"b/0-shot": "9"}}, "it has 2 items of a/0-shot, which this list of tasks would drop"),
        ({"protocol": "core"}, "protocol was None, is now 'core'"),
        ({"tasks": {"a/0-shot": "2"}}, "a/0-shot has other settings or data"),
        ({"probe": [-1.0, -2.1]}, "its weights have changed"),
        ({"probe": None}, "its weights have changed"),
        ({"limit": 10}, "over all rows, and limit 10 would drop some"),
    ],
)
def test_another_evaluation_is_refused_and_says_why(written, change, message):
    with pytest.raises(EvaluationError, match="belongs to another evaluation") as caught:
        resume(written, HEADER | change)
    assert message in str(caught.value) and "no-resume" in str(caught.value)


def test_rounding_further_tasks_and_a_larger_limit_are_the_same_evaluation(written):
    SampleWriter(written, HEADER | {"limit": 2}, resume(written, HEADER))
    same = HEADER | {"limit": 5, "probe": [-1.0004, -2.0], "tasks": {"a/0-shot": "1", "b/0-shot": "9"}}
    assert resume(written, same)["a/0-shot"].keys() == {0, 1}


def test_rewriting_sorts_and_leaves_nothing_beside(written):
    writer = SampleWriter(written, HEADER, resume(written, HEADER))
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert [line["index"] for line in lines[1:]] == [0, 1]
    writer.close()
    assert [path.name for path in written.parent.iterdir()] == ["samples.jsonl"]


def test_a_full_disk_is_named_and_what_was_there_stays(written, monkeypatch):
    writer = SampleWriter(written, HEADER, resume(written, HEADER))

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self): ...

    writer._file = Full()
    with pytest.raises(OSError, match="make room and run the same again") as caught:
        writer.append("a/0-shot", [record(2)])
    assert caught.value.filename == str(written)
    writer.close()
    assert resume(written, HEADER)["a/0-shot"].keys() == {0, 1}


def test_closing_after_a_full_disk_does_not_hide_what_was_said(written):
    writer = SampleWriter(written, HEADER, {})
    writer._file = open("/dev/full", "w")  # noqa: SIM115 (closed by the writer)
    with pytest.raises(OSError, match="make room and run the same again"):
        writer.append("a/0-shot", [record(2)])
    writer.close()
