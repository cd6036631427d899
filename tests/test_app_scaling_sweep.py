"""apps/scaling sweep: the plan, what is run and what is not, failed runs, kill -9."""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from app_modules import app_modules
from gpt_core import scaling
from scaling_runs import write_run
from workbench import Workbench, process_environment
from workspace import ROOT

APP = ROOT / "apps" / "scaling"
MODULES = tuple(path.stem for path in sorted(APP.glob("*.py")) if path.stem != "__main__")
GRID = ["--depths", "1,2", "--budgets", "4e8,1e9"]
SMALL = """
__include__: {configs}/scaling-desk.yaml
general: {{project_name: small}}
data: {{module_kwargs: {{dataset: tiny}}}}
scaling: {{total_batch_size: 64}}
training: {{context_length: 16, device_batch_size: 4}}
eval: {{eval_iters: 2}}
logging: {{style: quiet}}
"""


@pytest.fixture(scope="module")
def app():
    """The app's own modules."""
    with app_modules("scaling") as import_:
        yield SimpleNamespace(**{name: import_(name) for name in MODULES})


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A tiny corpus, and a configuration that names it."""
    made = Workbench(tmp_path_factory.mktemp("scaling"))
    made.small = made.folder / "small.yaml"
    made.small.write_text(SMALL.format(configs=APP / "configs"))
    return made


@pytest.fixture(scope="module")
def steps(app, bench):
    """Of every budget and depth that is run here."""
    study = app.scaling_grid.Study(str(bench.small), (), (4e8, 1e9), (1, 2, 3), (1,))
    planned = app.scaling_grid.plan_all(study, 1, "cpu", scaling.Data(9, None))
    return {(cell.budget, cell.depth): plan.steps for cell, plan in planned}


@pytest.fixture
def pretend(app, bench, steps, monkeypatch, tmp_path):
    """sweep without training: `runs` records the command lines; a depth in `broken` fails, one in `short` stops."""
    state = SimpleNamespace(runs=[], broken=set(), short=set(), out=tmp_path / "out")
    monkeypatch.setenv("DATA_ROOT", str(bench.folder / "data"))

    def run_app(app_folder, arguments, run_dir, processes):
        keys = dict(each.removeprefix("--").split("=", 1) for each in arguments if "=" in each)
        depth, budget = int(keys["scaling.depth"]), float(keys["scaling.target_flops"])
        state.runs.append(run_dir.name)
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "printed.txt").write_text("first\nerror: out of memory\n")
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        if depth in state.broken:
            return -9
        whole = steps[budget, depth]
        at = whole // 2 if depth in state.short else whole
        seed = int(keys["general.seed"])
        sizes = {"depth": depth, "seed": seed, "steps": whole, "batch": 64}
        write_run(run_dir, budget=budget, bpb=1 + depth / 10, ended_at=at, **sizes)
        return 0

    monkeypatch.setattr(app.sweep, "run_app", run_app)
    monkeypatch.setattr(app.sweep, "list_checkpoints", lambda run_dir: [])

    def run(*arguments):
        state.runs.clear()
        return app.sweep.main([str(bench.small), "--out", str(state.out), *(arguments or GRID)])

    state.run = run
    return state


def rows_of(app, folder):
    return [(row.flops_budget, row.depth, row.seed) for row in app.sweep.results(folder)]


ALL = ["c4e+08-d1-s1", "c4e+08-d2-s1", "c1e+09-d1-s1", "c1e+09-d2-s1"]


def test_the_seeds_grid_as_planned(app, capsys):
    """Steps of the spec's table at 2**19 tokens, cost at a declared rate; nothing is opened or run."""
    arguments = [
        "depth",
        "--dry-run",
        "--vocab-size",
        "50257",
        "--scaling.total_batch_size=524288",
        "--flop-rate",
        "4e15",
    ]
    assert app.sweep.main([*arguments, "--depths", "6,12", "--budgets", "1e18,6e18"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {line[0]: line[1:] for line in lines}
    assert table["c1e+18-d6-s1"][:3] == ["29,933,568", "524,288", "9,174"]
    assert table["c1e+18-d12-s1"] == ["123,568,128", "524,288", "2,232", "1.17B", "9.5", "1e+18", "?", "4:10"]
    assert table["c6e+18-d12-s1"][2] == "13,390"
    assert lines[-1][:4] == ["4", "runs,", "0", "done"] and "58:20" in lines[-1], "14e18 FLOPs at 4e15 per second"


def test_more_than_an_epoch_is_said(app):
    study = app.scaling_grid.Study("depth", ("--scaling.total_batch_size=524288",), (6e18,), (6,), (1,))
    planned = app.scaling_grid.plan_all(study, 1, "cpu", scaling.Data(50257, 10**10))
    text = app.scaling_grid.describe(planned, [], None, ROOT)
    assert "2.89" in text and "warning: c6e+18-d6-s1: 28,858" in text and "2.89 epochs" in text


def test_a_run_that_would_not_spend_its_budget_is_refused(app):
    study = app.scaling_grid.Study("depth", ("--training.max_steps=10",), (1e18,), (6,), (1,))
    with pytest.raises(ValueError, match=r"training.max_steps .*leave it out"):
        app.scaling_grid.plan_all(study, 1, "cpu", scaling.Data(50257, None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budgets", "1e18,-1"], "expected a positive number such as 1e18"),
        (["--budgets", "much"], "expected a positive number such as 1e18"),
        (["--depths", "6,0"], "expected whole numbers of at least 1"),
    ],
)
def test_grids_that_are_none(app, capsys, arguments, message):
    with pytest.raises(SystemExit):
        app.sweep.main(arguments)
    assert message in capsys.readouterr().err


def test_every_run_once_the_cheapest_first(app, pretend, capsys):
    assert pretend.run() == 0 and pretend.runs == ALL
    assert rows_of(app, pretend.out) == [(4e8, 1, 1), (4e8, 2, 1), (1e9, 1, 1), (1e9, 2, 1)]
    assert not (pretend.out / "runs" / ALL[0] / "checkpoints").exists()
    assert pretend.run() == 0 and pretend.runs == [], "rows that are there are not run again"
    assert "4 runs, 4 done" in capsys.readouterr().out
    assert pretend.run("--depths", "1,2,3", "--budgets", "4e8") == 0 and pretend.runs == ["c4e+08-d3-s1"]


def test_a_failed_run_is_reported_and_the_others_go_on(app, pretend, capsys):
    pretend.broken, pretend.short = {1}, {2}
    assert pretend.run() == 1 and pretend.runs == ALL and rows_of(app, pretend.out) == []
    errors = capsys.readouterr().err
    assert "failed: c4e+08-d1-s1: ended with status -9" in errors and "error: out of memory" in errors
    assert "failed: c4e+08-d2-s1: stopped before its" in errors
    pretend.broken = pretend.short = set()
    assert pretend.run() == 0 and pretend.runs == ALL, "the same command mends it"


def test_a_finished_run_without_a_row_is_read(app, pretend):
    """What a sweep that is killed between the two leaves behind."""
    assert pretend.run() == 0
    rows = app.sweep.results(pretend.out)
    app.measurement.write_results(pretend.out / "results.csv", rows[1:])
    assert pretend.run() == 0 and pretend.runs == [] and app.sweep.results(pretend.out) == rows


def test_another_study_and_a_second_sweep_are_refused(app, pretend, bench):
    assert pretend.run() == 0
    with pytest.raises(ValueError, match="holds another sweep"):
        pretend.run(*GRID, "--learning_rate=1e-3")
    with open(pretend.out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another sweep is writing"):
            pretend.run()


def test_rows_of_other_steps_and_keys_of_the_sweep_are_refused(app, pretend):
    assert pretend.run() == 0
    results = pretend.out / "results.csv"
    rows = app.sweep.results(pretend.out)
    app.measurement.write_results(results, [dataclasses.replace(rows[0], batch=128), *rows[1:]])
    with pytest.raises(ValueError, match=r"steps of 128 tokens, the plan is .* of 64: another configuration"):
        pretend.run()
    for given, option in ((["--seed", "7"], "--seeds"), (["--scaling.target-flops=1e9"], "--budgets")):
        with pytest.raises(ValueError, match=f"a sweep sets it for every run; use {option}"):
            pretend.run(*GRID, *given)


def test_what_a_run_is_called_with(app, bench, tmp_path):
    study = app.scaling_grid.Study("scaling-desk", ("--scaling.head_dim=4",), (1e9,), (3,), (7,))
    command = app.scaling_grid.arguments(study, study.cells()[0], tmp_path)
    assert command[0] == str(APP / "configs" / "scaling-desk.yaml") and command[1] == "--scaling.head_dim=4"
    assert {"--scaling.depth=3", "--scaling.target_flops=1000000000.0", "--general.seed=7"} <= set(command)


@pytest.mark.slow
def test_a_killed_sweep_goes_on(bench, tmp_path):
    """Real runs: kill -9 in the middle, the same command, fit and plot at the end."""
    environment = process_environment(bench.folder)
    out = tmp_path / "out"

    def command(name, *arguments):
        return [sys.executable, str(APP), name, *map(str, arguments)]

    sweep = command("sweep", bench.small, "--depths", "1,2,3", "--budgets", "4e8,1e9", "--out", out)
    with subprocess.Popen(sweep, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        until = time.monotonic() + 200
        while not (out / "results.csv").exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    first = (out / "results.csv").read_text().splitlines()
    assert 2 <= len(first) < 7, "killed in the middle"
    again = subprocess.run(sweep, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    rows = (out / "results.csv").read_text().splitlines()
    assert len(rows) == 7 and set(first) <= set(rows), "what was measured stays as it was"
    for name, made in (("fit", "fit.md"), ("plot", "figures/scaling-isoflop.png")):
        done = subprocess.run(
            command(name, "--logs", out), env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0 and (out / made).exists(), done.stderr
    nothing = subprocess.run(
        command("fit", "--logs", tmp_path / "empty"), env=environment, capture_output=True, text=True, check=False
    )
    assert nothing.returncode == 1 and nothing.stderr.startswith("error: ") and "Traceback" not in nothing.stderr
