"""The benchmark measures what it says, gives reasons for what it does not, and writes what it found."""

import csv

import pytest
import torch

from gpt_kernels.bench.__main__ import main
from gpt_kernels.bench.case import Case, Setting, peer
from gpt_kernels.bench.measure import Ceiling, Row, ceiling_of, measure, median_seconds
from gpt_kernels.bench.registry import OPS
from gpt_kernels.bench.report import describe, table

CPU = torch.device("cpu")
SETTING = Setting(CPU, torch.float32, full=False)
CEILING = Ceiling("toy", 1e9, 1e12)


def case(**changes):
    x = torch.ones(100, requires_grad=True)
    given = {"op": "double", "shape": "100", "tensors": (x,), "reference": lambda x: x + x, "ours": lambda x: 2 * x}
    return Case(**(given | {"backend": "torch", "bytes": 800, "bytes_both": 1600} | changes))


def rows_of(case, compile=False):
    return {(row.direction, row.side): row for row in measure(case, SETTING, CEILING, compile=compile, repeats=2)}


def test_rates_follow_from_time_and_size():
    rows = rows_of(case(flops=0))
    row = rows["forward", "gpt_kernels"]
    assert row.milliseconds and row.gigabytes_per_second and row.backend == "torch"
    assert row.gigabytes_per_second == pytest.approx(800 / row.milliseconds / 1e6)
    assert row.percent_of_ceiling == pytest.approx(100 * row.gigabytes_per_second)
    assert row.error == 0
    row = rows_of(case(bytes=0, flops=100))["forward", "reference"]
    assert row.teraflops_per_second == pytest.approx(100 / row.milliseconds / 1e9)
    assert row.percent_of_ceiling == pytest.approx(100 * row.teraflops_per_second)


def test_what_is_not_measured_says_why():
    def broken(x):
        raise RuntimeError("no such kernel\nand more")

    rows = rows_of(case(peers={"liger": "liger-kernel is not installed", "broken": broken}, bytes_both=0))
    assert {direction for direction, _ in rows} == {"forward"}
    notes = {side: row.note for (_, side), row in rows.items()}
    assert notes["liger"] == "not measured: liger-kernel is not installed"
    assert notes["broken"] == "not measured: RuntimeError: no such kernel"
    assert notes["compiled reference"] == "not measured: --compile was not given"
    assert notes["triton"] == "not measured: no CUDA device"
    assert notes["reference"] == "" and rows["forward", "liger"].milliseconds is None


def test_a_wrong_implementation_shows_in_its_error():
    rows = rows_of(case(ours=lambda x: 2.02 * x))
    assert rows["forward", "gpt_kernels"].error == pytest.approx(0.01, rel=1e-3)


def test_peers_are_looked_up_by_name():
    assert peer("no-such", "no_such_module:name", SETTING, lambda f: f) == "no-such is not installed"
    assert peer("torch", "torch:add", SETTING, lambda f: f) == "torch needs CUDA"


def test_sides_are_run_in_turn_and_each_comes_first():
    order = []
    median_seconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, 3)
    assert order == ["a", "b", "b", "a"] * 2 + ["a", "b"]


def test_table_and_ceiling():
    rows = [
        Row("op", "1", "float32", "forward", "reference", "", 2.0),
        Row("op", "1", "float32", "forward", "gpt_kernels", "torch", 1.0),
        Row("op", "1", "float32", "forward", "liger", "", note="not measured: liger-kernel is not installed"),
    ]
    lines = table(rows).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[4:7]] == ["gpt_kernels (torch)", "1", "2"]
    assert lines[4].rstrip(" |").endswith("not installed")
    ceiling = ceiling_of(CPU)
    assert ceiling.bytes_per_second > 1e8 and "n/a" in describe(ceiling)


def test_every_operation_has_cases_and_all_their_sides_agree():
    """Shapes shrunk to what runs at once."""

    class Tiny(Setting):
        def pick(self, full, small):
            return tuple(min(size, 16) for size in small)

    for name, cases in OPS.items():
        for one in cases(Tiny(CPU, torch.float32, full=False)):
            rows = rows_of(one)
            ours = rows["forward", "gpt_kernels"]
            assert ours.milliseconds and ours.error is not None and ours.error < 1e-3, name
            assert ("forward + backward", "gpt_kernels") in rows or not (one.bytes_both or one.flops_both)


def test_command_writes_csv_and_picture(tmp_path, capsys):
    files = ["--csv", str(tmp_path / "rows.csv"), "--plot", str(tmp_path / "plot.png")]
    main(["transpose", "--device", "cpu", "--repeats", "1", *files])
    out = capsys.readouterr().out
    assert "transpose_copy" in out and "not measured: no CUDA device" in out
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["milliseconds"]]
    assert {row["side"] for row in measured} >= {"reference", "gpt_kernels"}
    assert all(row["note"].startswith("not measured: ") for row in rows if not row["milliseconds"])
    assert (tmp_path / "plot.png").exists() or "matplotlib is not installed" in out
    with pytest.raises(SystemExit):
        main(["no_such_op"])
    assert "unknown op 'no_such_op'; choose of rms_norm," in capsys.readouterr().err
