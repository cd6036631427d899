"""apps/scaling fit and plot: optima and power laws that are known, logs of every kind, figures."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest

from app_modules import app_modules
from gpt_core import scaling
from gpt_core.config import load_config
from gpt_core.monitor import ConsoleSink
from gpt_core.training.recipe import SCHEMA
from scaling_runs import HEADER, bowl, vibe_log, write_run
from workspace import ROOT

APP = ROOT / "apps" / "scaling"
MODULES = ("measurement", "isoflop", "power_law", "log_lines", "run_logs", "fit", "plot", "scaling_figures")


@pytest.fixture(scope="module")
def app():
    """The app's own modules."""
    with app_modules("scaling") as import_:
        yield SimpleNamespace(**{name: import_(name) for name in MODULES})


def points(app, sizes, losses, budget=1e18):
    return app.isoflop.Points.of(budget, sizes, [budget / 6 / size for size in sizes], losses)


def study(app, *, a=0.52, k=0.05, budgets=(1e18, 3e18, 9e18), noise=0.0):
    """Rows of a world where N* = k·C^a, D = C / 6N, and half of all parameters are not multiplied."""
    draw = random.Random(3)
    rows = []
    for budget in budgets:
        best = k * budget**a
        for factor in (0.3, 0.5, 0.9, 1.4, 2.2, 3.5):
            size = round(best * factor)
            rows.append(
                app.measurement.Measurement(
                    flops_budget=budget,
                    params_lm_head=0,
                    params_transformer=size,
                    params_total=2 * size,
                    num_iterations=100,
                    tokens_trained=round(budget / 6 / size),
                    val_bpb=bowl(size, best) + draw.gauss(0, noise),
                    train_time_sec=60.0,
                )
            )
    return rows


def test_the_minimum_of_a_parabola(app):
    sizes = [3e7, 6e7, 1.2e8, 2.4e8]
    best = app.isoflop.find_optimum(points(app, sizes, [bowl(size, 1e8) for size in sizes]))
    assert best.flag is None and best.runs == 4
    assert best.params == pytest.approx(1e8, rel=1e-6) and best.bpb == pytest.approx(0.9, abs=1e-9)
    assert best.tokens == pytest.approx(1e18 / 6 / 1e8, rel=1e-6), "interpolated between the tokens of the runs"
    a, b, c = best.curve
    assert a * 49 + b * 7 + c == pytest.approx(bowl(1e7, 1e8)), "the curve is in log10 N, not in what was fitted"


@pytest.mark.parametrize(
    ("losses", "flag", "params"),
    [
        ([0.9, 1.0, 1.0, 0.95], "UPWARDS", 3e7),  # opens downwards
        ([bowl(size, 1e9) for size in (3e7, 6e7, 1.2e8, 2.4e8)], "OUTSIDE", 2.4e8),
        ([1.0, 0.9, 0.8, 0.7 + 1e-15], "OUTSIDE", 2.4e8),  # nearly straight: the parabola's minimum is no float
        ([1.0, 0.9, 0.95], "FEW", 6e7),
    ],
)
def test_a_minimum_that_is_none_is_flagged(app, losses, flag, params):
    sizes = [3e7, 6e7, 6e7] if len(losses) == 3 else [3e7, 6e7, 1.2e8, 2.4e8]
    best = app.isoflop.find_optimum(points(app, sizes, losses))
    assert best.flag == getattr(app.isoflop, flag) and best.params == pytest.approx(params, rel=1e-6)


def test_flagged_budgets_are_in_no_law(app):
    sizes = [3e7, 6e7, 2e8]
    good = points(app, sizes, [bowl(size, 1e8) for size in sizes])
    bad = points(app, sizes, [1.0, 1.1, 1.0], 4e18)
    law = app.power_law.fit_law("N_scaling", [good, bad])
    assert law.params is None and len(law.usable) == 1 and len(law.optima) == 2


def test_power_laws_are_recovered_in_both_conventions(app):
    laws, warnings = app.fit.fit_laws(study(app))
    assert [law.convention for law in laws] == ["N_scaling", "all parameters"] and not warnings
    for law, counted in zip(laws, (1, 2), strict=True):
        assert law.params.exponent == pytest.approx(0.52, abs=1e-6)
        assert law.tokens.exponent == pytest.approx(0.48, abs=1e-6)
        assert law.params.coefficient == pytest.approx(0.05 * counted, rel=1e-5)
        assert law.middle == pytest.approx(3e18)
        ratio = 3e18 / 6 / (0.05 * 3e18**0.52) ** 2 / counted
        assert law.ratio_at_middle == pytest.approx(ratio, rel=1e-6)
        for edge in (*law.over_points.a, *law.over_budgets.a):
            assert edge == pytest.approx(0.52, abs=1e-6), "points on their curves leave no room for an interval"


def test_intervals_hold_the_truth_and_repeat_by_seed(app):
    law, again = (app.fit.fit_laws(study(app, noise=5e-4), seed=7)[0][0] for _ in range(2))
    assert law == again
    low, high = law.over_points.a
    assert low < 0.52 < high and 0.005 < high - low < 0.3
    wide = law.over_budgets.a
    assert wide[1] - wide[0] > high - low and law.over_budgets.kept < law.over_budgets.draws, "one budget has no slope"


def test_intervals_of_95_percent_hold_the_truth_that_often(app):
    """Of 200 studies of five sizes and three budgets 181 (the normal limit of three standard deviations) or more do."""
    draw, held = np.random.default_rng(5), 0
    for number in range(200):
        groups = []
        for budget in (1e18, 3e18, 6e18):
            x = 0.5 * np.log10(budget) + np.linspace(-0.55, 0.55, 5)
            losses = 0.9 + 0.1 * (x - 0.5 * np.log10(budget)) ** 2 + draw.normal(0, 1e-3, 5)
            groups.append(points(app, 10**x, losses, budget))
        spread = app.power_law.fit_law("N", groups, draws=200, seed=number).over_points
        held += spread is not None and spread.a[0] <= 0.5 <= spread.a[1]
    assert held >= 181


def test_a_tied_head_is_the_embedding(app):
    row = app.measurement.Measurement(
        flops_budget=1e18,
        num_iterations=1,
        tokens_trained=1,
        val_bpb=1,
        params_wte=5,
        params_lm_head=0,
        params_transformer=7,
    )
    assert row.params_scaling == 12


def test_a_run_whose_steps_were_given_is_of_no_budget(app, tmp_path):
    write_run(tmp_path / "r", budget=1e18, depth=2, steps_by="max_steps")
    with pytest.raises(app.run_logs.Unusable, match="does not say flops_budget"):
        app.run_logs.from_run(tmp_path / "r")


def test_intervals_need_data(app):
    two = app.fit.fit_laws(study(app, budgets=(1e18, 3e18), noise=5e-4))[0][0]
    assert two.over_points is not None and two.over_budgets is None
    few = [row for row in study(app) if 0.4 < row.params_transformer / (0.05 * row.flops_budget**0.52) < 2]
    law = app.fit.fit_laws(few)[0][0]
    assert {best.runs for best in law.optima} == {3} and law.over_points is None and law.params is not None


def test_the_report_stands_beside_what_others_found(app, tmp_path):
    app.measurement.write_results(tmp_path / "results.csv", study(app, noise=5e-4))
    assert app.fit.main(["--logs", str(tmp_path), "--draws", "50"]) == 0
    record = json.loads((tmp_path / "fit.json").read_text())
    assert record["laws"][0]["params"]["exponent"] == pytest.approx(0.52, abs=0.1) and record["runs"] == 18
    text = (tmp_path / "fit.md").read_text()
    assert "| nanochat, January 2026 | N_scaling | 1e18 to 1e19 | 0.54 | 0.49 |" in text
    assert "| 1e+18 | 6 |" in text and "inside the sizes" in text


@pytest.mark.parametrize(
    ("name", "budget", "depth"),
    [
        ("scaling_1e18_d12", 1e18, 12),
        ("scaling_1e+18_d6", 1e18, 6),
        ("depth10_flops2.15e18", 2.15e18, 10),
        ("d8-4.64E18", 4.64e18, 8),
        ("scaling_laws_N12_F2.15e18", 2.15e18, 12),
        ("step_000500", None, None),
    ],
)
def test_budget_and_depth_in_a_name(app, name, budget, depth):
    assert app.log_lines.named_budget(name) == budget and app.log_lines.named_depth(name) == depth


def test_lines_of_vibenanochat(app, tmp_path):
    log = tmp_path / "scaling_1e+18_d12.log"
    log.write_text(vibe_log())
    (row,), warnings = app.run_logs.gather(tmp_path)
    assert (row.flops_budget, row.depth, row.num_iterations, row.batch) == (1e18, 12, 2232, 2**19)
    assert row.params_total == 162_201_600 and row.tokens_trained == 2232 * 2**19
    assert row.val_bpb == 0.8972, "the last step's, not the lowest"
    assert row.mfu == pytest.approx(0.41), "the first ten steps are left out"
    assert row.train_time_sec is None, "two of 2,232 steps do not tell the time"
    assert any("params_transformer" in warning for warning in warnings), "what is missing is named"
    assert app.fit.fit_laws([row])[1] == ["1 of 1 runs do not say N_scaling: left out there"]


def test_lines_of_nanochat(app, tmp_path):
    (tmp_path / "scaling_2.15e18_d12_train.log").write_text(HEADER)
    (row,), _ = app.run_logs.gather(tmp_path)
    assert (row.flops_budget, row.params_scaling, row.params_total) == (2.15e18, 110_100_480, 135_266_342)
    assert (row.val_bpb, row.core_score, row.tokens_trained) == (0.912345, 0.1234, 10_485_760)
    assert row.mfu == pytest.approx(0.41) and row.flops_per_token == 854_655_000


def test_lines_of_our_own(app, tmp_path):
    """What `make ddp-train DEPTH=12 TARGET_FLOPS=1e18` leaves in logs/."""
    argv = ["depth", "--depth=12", "--target-flops=1e18"]
    config = load_config(argv, schema=SCHEMA, config_dirs=[ROOT / "apps/pretrain/configs"])
    plan = scaling.resolve(config, world_size=8, device_type="cuda", data=scaling.Data(50257, None))
    with open(tmp_path / "scaling_laws_N12_F1e18.log", "w", encoding="utf-8") as log:
        console = ConsoleSink(plan.steps, style=config.section("logging").style, stream=log)
        console.event("info", {"message": scaling.report(plan)})
        for step, seconds, mfu in ((10, 9.0, 0.1), (1000, 1.0, 0.4), (2232, 2.0, 0.5)):
            console.log(step, {"train/loss": 3.0, "train/step_time_ms": 1000 * seconds, "train/mfu": mfu})
        console.event("eval", {"step": 2232, "val/loss": 2.9, "val/bits_per_byte": 0.8972, "val/time_s": 2.0})
        console.event("info", {"message": "step 2232: core score +0.1234 (22 tasks)"})
    (row,), warnings = app.run_logs.gather(tmp_path)
    assert (row.flops_budget, row.depth, row.model_dim, row.num_iterations) == (1e18, 12, 768, 2232)
    assert (row.params_total, row.params_scaling, row.batch) == (162_201_600, 123_568_128, 2**19)
    assert (row.val_bpb, row.core_score, row.tokens_trained) == (0.8972, 0.1234, 2232 * 2**19)
    assert row.train_time_sec == 10 * 9 + 990 * 1 + 1232 * 2 and row.mfu == pytest.approx(0.45)
    assert row.flops_per_token == 854_654_976 and warnings == []


def test_unfinished_runs_are_named_and_left_out(app, tmp_path):
    (tmp_path / "a_1e18_d6.log").write_text(vibe_log(last=2000))
    (tmp_path / "b_1e18_d8.log").write_text(vibe_log())
    (tmp_path / "c_d8.log").write_text(vibe_log())
    (tmp_path / "notes.txt").write_text("hello")
    write_run(tmp_path / "d", budget=1e12, depth=2, ended_at=15)
    write_run(tmp_path / "e", budget=1e12, depth=2, status=None)
    rows, warnings = app.run_logs.gather(tmp_path)
    assert [row.run for row in rows] == ["b_1e18_d8"]
    text = "\n".join(warnings)
    assert "last validation at step 2000 of 2232" in text and "step 15 of 20" in text
    assert "c_d8.log: does not say flops_budget" in text and "notes.txt: no line with the number of iterations" in text


def test_metrics_are_read_before_logs(app, tmp_path):
    write_run(tmp_path / "runs" / "x", budget=2.5e12, depth=3, seed=4, bpb=1.25)
    (tmp_path / "runs" / "x" / "printed.txt").write_text(vibe_log())
    (tmp_path / "y.log").write_text(vibe_log())
    write_run(tmp_path / "y", budget=1e12, depth=2)
    (tmp_path / "y" / "metrics.jsonl").rename(tmp_path / "y.jsonl")
    rows, _ = app.run_logs.gather(tmp_path)
    assert [(row.flops_budget, row.val_bpb) for row in rows] == [(2.5e12, 1.25), (1e12, 1.5)]
    first = rows[0]
    assert (first.model_dim, first.params_lm_head, first.seed, first.lr_scale) == (192, 512 * 192, 4, 0.5)
    assert (first.batch, first.tokens_trained, first.cpu_time_sec) == (2048, 40960, 3.0)
    assert first.train_time_sec == pytest.approx(4.0), "10 steps of 0.1 s, 10 of 0.3 s"
    assert first.mfu == pytest.approx(0.4)


def test_nothing_to_read_is_an_error(app, tmp_path):
    with pytest.raises(app.measurement.ResultsError, match="no finished run"):
        app.run_logs.gather(tmp_path)
    with pytest.raises(app.measurement.ResultsError, match="no such file"):
        app.run_logs.gather(tmp_path / "nowhere")


def test_results_survive_the_disk_and_nanochats_are_read(app, tmp_path):
    rows = study(app)
    app.measurement.write_results(tmp_path / "results.csv", rows)
    assert app.measurement.read_results(tmp_path / "results.csv") == (rows, [])
    header = ",".join(app.measurement.COLUMNS[:14])
    assert header.endswith("num_iterations,tokens_trained,val_bpb,core_score,train_time_sec")
    (tmp_path / "theirs.csv").write_text(f"{header}\n1e18,12,768,25,0,25,84,38,135,10,5242880,0.91,0.0,100\n")
    (row,), (warning,) = app.run_logs.gather(tmp_path / "theirs.csv")
    assert row.params_scaling == 109 and "no column seed, batch" in warning
    (tmp_path / "bad.csv").write_text(f"{header}\n1e18,12,768,25,0,25,84,38,135,10,5242880,nan,0.0,100\n")
    with pytest.raises(app.measurement.ResultsError, match=r"bad.csv:2: val_bpb is nan"):
        app.run_logs.gather(tmp_path / "bad.csv")


@pytest.mark.slow
def test_figures_and_their_numbers(app, tmp_path, capsys):
    rows = study(app, noise=5e-4)
    app.measurement.write_results(tmp_path / "results.csv", rows)
    assert app.plot.main(["--logs", str(tmp_path), "--draws", "50"]) == 0
    printed = capsys.readouterr()
    assert "core: no figure" in printed.err and "18 runs" in printed.out
    made = {path.name for path in (tmp_path / "figures").iterdir()}
    names = ("isoflop", "optimum", "tokens", "time")
    assert made == {f"scaling-{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")}
    for path in (tmp_path / "figures").iterdir():
        start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".csv": b"flops_budget"}[path.suffix]
        assert path.read_bytes().startswith(start) and path.stat().st_size > 200
    table = (tmp_path / "figures" / "scaling-optimum.csv").read_text().splitlines()
    assert len(table) == 4 and float(table[1].split(",")[1]) == pytest.approx(0.05 * 1e18**0.52, rel=0.1)
