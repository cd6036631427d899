"""apps/compare as a user runs it."""

import json
import runpy

import pytest

from gpt_core.monitor import JsonlSink
from workspace import ROOT


@pytest.fixture
def compare(capsys):
    """The app in this process: arguments to (exit status, stdout, stderr)."""
    app = runpy.run_path(str(ROOT / "apps/compare/__main__.py"))["main"]

    def run(*arguments):
        status = app([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def out(tmp_path):
    """A folder with two runs, and a third whose metrics are torn."""
    for name, loss in (("slow", 3.0), ("fast", 2.0)):
        sink = JsonlSink(tmp_path / "out" / name / "metrics.jsonl")
        sink.event("start", {"run_name": name, "model": {"vocab_size": 65}})
        for step in (1, 2):
            sink.log(step, {"train/loss": loss / step, "val/loss": loss / step})
        sink.close("completed")
    (tmp_path / "out/torn").mkdir()
    (tmp_path / "out/torn/metrics.jsonl").write_text("oops\n")
    return tmp_path / "out"


def test_the_best_run_comes_first_and_a_torn_one_is_skipped(compare, out):
    status, table, said = compare("--latest", 3, "--out_dir", out)
    assert status == 0
    assert table.index("fast") < table.index("slow")
    assert "torn" in said and "metrics.jsonl:1" in said
    assert (out / "comparison.png").stat().st_size > 10_000


def test_a_named_run_that_cannot_be_read_is_a_failure(compare, out):
    status, rows, said = compare(out / "slow", out / "fast", out / "absent", "--json", "--no_plot")
    assert status == 1 and "absent: no such run" in said
    assert [row["run"] for row in json.loads(rows)] == ["fast", "slow"]


def test_nothing_to_compare_is_one_line(compare, out):
    for arguments, message in (
        (["--out_dir", out / "nowhere"], "no such folder"),
        (["--out_dir", out / "fast"], "no runs below"),
        ([out / "torn"], "none of these runs could be read"),
    ):
        status, table, said = compare(*arguments)
        assert (status, table) == (1, "") and message in said.splitlines()[-1]


@pytest.mark.parametrize(("picture", "reason"), [("runs.movie", "not supported"), ("fast/metrics.jsonl/a.png", "")])
def test_a_picture_that_cannot_be_written_costs_no_table(compare, out, picture, reason):
    status, table, said = compare(out / "fast", "--plot", out / picture)
    assert status == 0 and "fast" in table
    assert said.startswith("no picture: ") and reason in said
