"""The benchmark measures what it says, gives reasons for what it does not, and writes what it found."""

import csv
import sys
from types import ModuleType

import pytest
import torch

from gpt_kernels.bench import measure as bench_measure
from gpt_kernels.bench.__main__ import main
from gpt_kernels.bench.case import BOTH, FORWARD, Case, Goal, Setting, peer
from gpt_kernels.bench.goals import judge
from gpt_kernels.bench.measure import Ceiling, Row, ceiling_of, measure, median_seconds
from gpt_kernels.bench.registry import OPS
from gpt_kernels.bench.report import describe, table

CPU = torch.device("cpu")
SETTING = Setting(CPU, torch.float32, full=False)
CEILING = Ceiling("toy", 1e9, 1e12)


@pytest.fixture(autouse=True)
def small_caches(monkeypatch):
    """64 MiB written before every run is most of the time of a small case."""
    monkeypatch.setitem(bench_measure.FLUSH_BYTES, "cpu", 2**20)


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


GPU = Setting(torch.device("cuda"), torch.bfloat16, full=True)


def sides_of(direction=BOTH, **milliseconds):
    """Rows of a pass; peak memory as many megabytes as milliseconds, half of the ceiling's bandwidth."""
    return [
        Row("op", "1", "bfloat16", direction, side, "", ms, percent_of_ceiling=50.0, peak_megabytes=ms)
        for side, ms in milliseconds.items()
    ]


@pytest.mark.parametrize(
    ("goal", "answer"),
    [
        (Goal("speed", 1.5, "reference"), "speed >= 1.5 x reference: met (2)"),
        (Goal("speed", 2.5, "reference", BOTH), "speed >= 2.5 x reference: missed (2)"),
        (Goal("memory", 0.5, "reference"), "memory <= 0.5 x reference: met (0.5)"),
        (Goal("memory", 0.25, "reference"), "memory <= 0.25 x reference: missed (0.5)"),
        (Goal("bandwidth", 0.85), "bandwidth >= 0.85 x copies: missed (0.5)"),
        (Goal("speed", 1.0, "quack"), "speed >= 1 x quack: not measured"),
        (Goal("speed", 1.0, "reference", FORWARD), ""),
    ],
)
def test_goals_are_judged(goal, answer):
    rows = sides_of(gpt_kernels=1.0, reference=2.0, liger=3.0)
    assert judge(case(goals=(goal,)), rows, GPU) == answer
    on_cpu = judge(case(goals=(goal,)), rows, SETTING)
    assert "met" not in on_cpu and on_cpu.endswith("not measured" if answer else "")


def test_no_operation_may_be_slower_than_ligers():
    rows = sides_of(gpt_kernels=2.0, liger=1.0)
    assert judge(case(peers={"liger": lambda x: x}), rows, GPU) == "speed >= 1 x liger: missed (0.5)"


def test_the_goals_of_the_project_are_asked_for_at_their_sizes():
    """Shapes alone: the arguments would not fit on a small machine."""

    class Shapes(Setting):
        def random(self, *shape, scale=1.0, grad=True):
            return torch.empty(shape, device="meta", dtype=torch.bfloat16)

    full = Shapes(torch.device("meta"), torch.bfloat16, full=True)
    asked = {}
    for op in ("relu2_mlp", "symmetric"):
        for one in OPS[op](full):
            asked[one.op, one.shape] = one.goals
    assert asked["relu2_mlp", "49152 x 768 x 3072"] == (Goal("speed", 1.2, "compiled reference", BOTH),)
    for shape in ("8 x 768 x 768", "8 x 768 x 3072", "1 x 3072 x 3072"):
        assert asked["xxt", shape] == (Goal("speed", 1.5, "reference", FORWARD),)
    goals = {one.op: one.goals for name in ("rms_norm", "linear_cross_entropy") for one in OPS[name](SETTING)}
    assert goals["rms_norm"] == (Goal("bandwidth", 0.85),)
    assert [goal.bound for goal in goals["linear_cross_entropy"]] == [0.25, 1 / 1.05]


# --- Peers: stand-ins with the signatures of liger-kernel 0.8.5 and quack-kernels 0.6.5 -----------------------------


class Liger:
    """Classes with `apply`; their parameters, but for those that only have defaults here."""

    class LigerRMSNormFunction:
        def apply(X, W, eps, offset=0.0, casting_mode="llama", in_place=True, row_mode=None):
            assert not in_place  # it would overwrite the gradient that the other sides get
            return torch.nn.functional.rms_norm(X, W.shape, W, eps) + offset

    class LigerLayerNormFunction:
        def apply(X, W, B, eps):
            return torch.nn.functional.layer_norm(X, W.shape, W, B, eps)

    class LigerSiLUMulFunction:
        def apply(a, b, gate_multiplier=1.0, down_multiplier=1.0):
            return torch.nn.functional.silu(a) * b

    class LigerReLUSquaredFunction:
        def apply(X):
            return X.relu().square()

    class LigerCrossEntropyFunction:
        def apply(_input, target, weight, ignore_index=-100, lse_square_scale=0.0, label_smoothing=0.0):
            loss = torch.nn.functional.cross_entropy(_input, target)
            return loss, None, None, None

    class LigerFusedLinearCrossEntropyFunction:
        def apply(_input, weight, target, bias=None, ce_weight=None, ignore_index=-100):
            return torch.nn.functional.cross_entropy(_input @ weight.T, target), None, None, None


def rotary_by_quack(x, cos, sin, interleaved=False, inplace=False):
    """x (batch, tokens, heads, channels)"""
    from gpt_kernels import apply_rotary_reference

    return apply_rotary_reference(
        x.transpose(1, 2), cos, sin, style="interleaved" if interleaved else "half"
    ).mT.mT.transpose(1, 2)


def mlp_by_quack(x, weight1, weight2, activation, bias1=None, bias2=None):
    assert activation == "relu_sq"
    return (x @ weight1.T).relu().square() @ weight2.T


def symmetric_by_quack(A, B, C=None, out=None, out_dtype=None):
    return None, A @ B


PEERS = {
    "liger_kernel.ops.rms_norm": Liger.LigerRMSNormFunction,
    "liger_kernel.ops.layer_norm": Liger.LigerLayerNormFunction,
    "liger_kernel.ops.swiglu": Liger.LigerSiLUMulFunction,
    "liger_kernel.ops.relu_squared": Liger.LigerReLUSquaredFunction,
    "liger_kernel.ops.cross_entropy": Liger.LigerCrossEntropyFunction,
    "liger_kernel.ops.fused_linear_cross_entropy": Liger.LigerFusedLinearCrossEntropyFunction,
    "quack:rmsnorm": lambda x, weight=None, bias=None, residual=None, out_dtype=None, residual_dtype=None, eps=1e-6: (
        torch.nn.functional.rms_norm(x, weight.shape, weight, eps)
    ),
    "quack:cross_entropy": lambda x, target, lse_partial=None, weight=None, ignore_index=-100, reduction="mean": (
        torch.nn.functional.cross_entropy(x, target, reduction=reduction)
    ),
    "quack.rotary:apply_rotary_emb": rotary_by_quack,
    "quack.mlp:mlp_func": mlp_by_quack,
    "quack.gemm_interface:gemm_symmetric": symmetric_by_quack,
    "quack.linear_cross_entropy:chunked_linear_cross_entropy": lambda x, weight, target, chunk_size=4096: (
        torch.nn.functional.cross_entropy(x @ weight.T, target)
    ),
}


def test_peers_are_called_as_they_are_published(monkeypatch):
    """Each adapter computes the operation, and none is left out of the comparison by mistake."""
    for path, function in PEERS.items():
        module, _, name = path.partition(":")
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            full = ".".join(parts[:depth])
            if full not in sys.modules or not hasattr(sys.modules[full], "standin"):
                made = ModuleType(full)
                made.standin, made.__spec__ = True, True
                monkeypatch.setitem(sys.modules, full, made)
        setattr(sys.modules[module], name or function.__name__, function)

    class WithPeers(Setting):
        takes_peers = True

        def pick(self, full, small):
            return tuple(min(size, 16) for size in small)

    measured = set()
    for name in (
        "rms_norm",
        "layer_norm",
        "rotary",
        "swiglu",
        "relu2_mlp",
        "symmetric",
        "cross_entropy",
        "linear_cross_entropy",
    ):
        for one in OPS[name](WithPeers(CPU, torch.float32, full=False)):
            for (_, side), row in rows_of(one).items():
                if side.split()[0] in ("liger", "quack"):
                    assert row.note == "" and row.error < 1e-5, (row.op, side, row.note)
                    measured.add((one.op, side))
    assert measured == {
        *((op, "liger") for op in ("rms_norm", "layer_norm", "swiglu", "relu2_mlp", "linear_cross_entropy")),
        ("cross_entropy", "liger and a copy"),
        *(
            (op, "quack")
            for op in ("rms_norm", "apply_rotary", "relu2_mlp", "xxt", "cross_entropy", "linear_cross_entropy")
        ),
    }


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
