"""apps/speedrun ablate and record: which runs, what they are called with, what is made of them, and after a kill."""

import copy
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from app_modules import app_modules
from gpt_core.config import files, load_config
from gpt_core.models.speedrun import banks
from gpt_core.training.recipe import SCHEMA
from speedruns import APP, TINY, Speedrun
from workbench import process_environment

MODULES = ("switches", "student", "ablation_plan", "ablation_report", "ablate", "record", "training")


@pytest.fixture(scope="module")
def app():
    """The app's own modules."""
    with app_modules("speedrun") as import_:
        yield SimpleNamespace(**{name: import_(name) for name in MODULES})


def load(*arguments):
    return load_config(arguments, schema=SCHEMA, config_dirs=[APP / "configs"])


@pytest.fixture(scope="module")
def desk():
    return load("desk").tree


@pytest.mark.parametrize(("name", "least"), [("desk", 23), ("speedrun-68", 28), ("speedrun-89", 41)])
def test_every_switch_can_be_switched_off(app, monkeypatch, name, least):
    """What is called without it is a configuration that loads, and builds a model; all but schedules change a key."""
    whole = load(name).tree
    found = app.switches.applicable(whole)
    assert len(found) >= least, sorted(found)
    plan = app.ablation_plan.make_plan(name, [], whole, mode="leave-one-out", seeds=1, steps=60, names=None)
    monkeypatch.setattr(banks, "new_signs", lambda config: torch.zeros(1))  # millions of coins, no switch's business
    read = functools.cache(files.read_yaml)  # else fifteen files for each of the variants
    monkeypatch.setattr(files, "read_yaml", lambda *arguments: copy.deepcopy(read(*arguments)))
    recipe = load(*app.ablation_plan.arguments(plan, plan.variants[0], 1, whole, APP)).tree
    for variant in plan.variants[2:]:
        config = load(*app.ablation_plan.arguments(plan, variant, 1, whole, APP))
        tree = config.tree
        tree["general"]["run_name"] = recipe["general"]["run_name"]
        assert tree != recipe, variant.name
        assert not [off for off in variant.off if not app.switches.is_off(off, tree)], variant.name
        with torch.device("meta"):
            config.component("model").build(vocab_size=128, context_length=16)


def test_what_a_configuration_does_not_have_is_no_switch_of_it(app, desk):
    found = app.switches.applicable(desk)
    assert not {"mantissa", "mudd", "fp8_head", "prefix", "growing_documents"} & found.keys()
    later = app.switches.applicable(load("speedrun-80").tree).keys() - app.switches.applicable(desk).keys()
    added = {
        "value_shift",
        "value_gate_token",
        "growing_documents",
        "sublayer_lambdas",
        "cached_attention",
        "pair_banks",
    }
    assert later == added | {"mantissa", "fp8_head", "growing_batch", "stage_rates"}
    gone = app.switches.with_dependents("cached_attention", app.switches.applicable(load("speedrun-89").tree))
    assert gone == {"cached_attention", "mudd", "mudd_gates", "dynamic_heads"}


def test_what_needs_a_switch_goes_with_it(app):
    together = app.switches.with_dependents("windows", app.switches.SWITCHES)
    assert together == {"windows", "yarn", "growing_windows"}
    assert app.switches.with_needs("value_gates") == {"value_gates", "value_embeddings"}


def test_batches_that_do_not_grow_have_as_many_tokens(app):
    record = load("speedrun-68").tree
    assert app.switches.SWITCHES["growing_batch"].off(record) == {"stages.device_batch_size": [16]}
    assert app.switches.SWITCHES["growing_windows"].off(record) == {
        "stages.windows": [[5, 11]],
        "model.module_kwargs.window_short": 640,
        "model.module_kwargs.window_long": 1408,
    }


def test_switches_that_are_off_or_unknown_are_refused(app):
    tree = load("desk", "--model.module_kwargs.smear=false").tree
    assert "smear" not in app.switches.applicable(tree)
    with pytest.raises(ValueError, match="smear is off"):
        app.switches.applicable(tree, ["smear"])
    with pytest.raises(ValueError, match="no switch 'smeer'"):
        app.switches.applicable(tree, ["smeer"])


def test_add_one_compares_with_what_a_switch_needs(app, desk):
    names = ["half_rotary", "key_offset", "smear"]
    plan = app.ablation_plan.make_plan("desk", [], desk, mode="add-one", seeds=2, steps=50, names=names)
    off = {variant.name: variant.off for variant in plan.variants}
    assert off == {
        "recipe": ("half_rotary", "key_offset", "smear"),
        "recipe-shorter": ("half_rotary", "key_offset", "smear"),
        "with-half_rotary": ("key_offset", "smear"),
        "with-key_offset": ("smear",),
        "with-smear": ("half_rotary", "key_offset"),
    }
    pairs = {each.switch: (each.with_it, each.without_it) for each in plan.comparisons}
    assert pairs["key_offset"] == ("with-key_offset", "with-half_rotary")
    assert pairs["smear"] == ("with-smear", "recipe")
    assert [(variant.name, seed) for variant, seed in plan.runs()][5] == ("recipe", 2)


def test_schedules_shrink_with_the_steps(app):
    whole = load("speedrun-68", "--n_embd=96").tree
    plan = app.ablation_plan.make_plan(
        "speedrun-68", ["--n_embd=96"], whole, mode="add-one", seeds=1, steps=311, names=["smear"]
    )
    arguments = app.ablation_plan.arguments(plan, plan.variants[0], 3, whole, APP)
    assert arguments[:2] == ["speedrun-68", "--n_embd=96"]
    config = load(*arguments)
    assert config.section("training").max_steps == 311 and config.section("stages").extension_steps == 8
    assert config.component("momentum_scheduler").kwargs["warmup_iters"] == 60
    assert config.section("general").seed == 3 and config.component("model").kwargs["smear"] is False


@pytest.mark.parametrize(
    ("df", "probability", "t"),
    [(1, 0.975, 12.70620), (2, 0.975, 4.30265), (4, 0.95, 2.13185), (7, 0.975, 2.36462), (30, 0.995, 2.75)],
)
def test_students_t_is_that_of_the_tables(app, df, probability, t):
    assert app.student.quantile(probability, df) == pytest.approx(t, abs=1e-4)
    assert app.student.cdf(-t, df) == pytest.approx(1 - probability, abs=1e-6)


def test_intervals_and_p_values_by_hand(app):
    found = app.student.interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4) and not found.clear
    assert app.student.interval([1.0]).half == math.inf
    # mean 3.278, s 0.001, n 4: t = -4, df 3
    losses = [3.277, 3.279, 3.2770, 3.2790]
    t = (3.278 - 3.28) / (math.sqrt(4 / 3) * 0.001 / 2)
    assert app.student.p_below(losses, 3.28) == pytest.approx(app.student.cdf(t, 3)) and 0 < t + 4 < 1
    assert math.isnan(app.student.p_below([3.2], 3.28))


def made_results(app, plan):
    """Two seeds, made up: without smear 0.1 worse at once, and 10 % faster; an e-fold of steps is worth 0.5."""
    results = []
    for variant, seed in plan.runs():
        loss = 4.0 + 0.01 * seed + (0.1 if variant.name == "without-smear" else 0.0)
        loss += 0.5 * math.log(plan.steps / variant.steps)
        seconds = variant.steps * (1.0 if variant.name == "without-smear" else 1.1)
        both = {"val_loss": loss, "cpu_seconds": seconds, "train_seconds": 2 * seconds, "bits_per_byte": 1.5}
        results.append({"name": variant.name, "seed": seed, "steps": variant.steps, "where": "a desk", **both})
    return results


def test_the_report_has_both_changes(app, desk, tmp_path):
    plan = app.ablation_plan.make_plan("desk", [], desk, mode="leave-one-out", seeds=2, steps=100, names=["smear"])
    results = made_results(app, plan)
    worth, *rest = app.ablation_report.worths(plan, results, "cpu_seconds")
    assert not rest and worth.equal_steps.mean == pytest.approx(0.1)
    assert worth.slower.mean == pytest.approx(0.1)
    assert worth.equal_time.mean == pytest.approx(0.1 - 0.5 * math.log(1.1))
    text = app.ablation_report.write(plan, tmp_path, results, "cpu_seconds")
    assert "| smear |" in text and "+0.1000 ± 0.0000" in text and "helps" in text
    assert "An e-fold of steps is worth 0.500" in text
    assert text.count("Measured on a desk.") == 1, "said once for all seeds"
    assert (tmp_path / "report.md").read_text() == text and (tmp_path / "ablation.png").stat().st_size > 1000
    page = tmp_path / "page.md"
    page.write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.md has no place for the table: write the lines <!-- ablation -->"):
        app.ablation_report.publish(plan, tmp_path, page)
    page.write_text(
        "# Mine, `<!-- ablation -->`\n<!-- ablation -->\nformer\n<!-- end of ablation -->\nbelow\n", encoding="utf-8"
    )
    for _ in range(2):  # the second time changes nothing
        app.ablation_report.publish(plan, tmp_path, page)
        published = page.read_text()
        assert published.startswith(
            "# Mine, `<!-- ablation -->`\n<!-- ablation -->\n\nThe recipe (desk"
        ) and published.endswith("below\n")
        assert published.count("| smear |") == 1 and "former" not in published
    assert (tmp_path / "images/ablation-desk.png").read_bytes() == (tmp_path / "ablation.png").read_bytes()


def test_a_report_on_a_part_says_how_much_there_is(app, desk, tmp_path):
    plan = app.ablation_plan.make_plan("desk", [], desk, mode="leave-one-out", seeds=2, steps=100, names=["smear"])
    results = [result for result in made_results(app, plan) if result["seed"] == 1]
    assert "1 of 2 seeds" in app.ablation_report.table(plan, results, "cpu_seconds")
    uneven = [*results, *(result for result in made_results(app, plan) if result["seed"] == 2)][:-1]
    assert "not clear (1 of 2 seeds) |" in app.ablation_report.table(plan, uneven, "cpu_seconds")
    assert app.ablation_report.table(plan, [], "cpu_seconds").startswith("no run of the recipe")
    no_slope = [result for result in results if result["name"] != "recipe-shorter"]
    assert "| not measured | +10.0 % | not clear |" in app.ablation_report.table(plan, no_slope, "cpu_seconds")


def test_the_interval_at_equal_time_has_the_uncertainty_of_what_steps_are_worth(app, desk):
    plan = app.ablation_plan.make_plan("desk", [], desk, mode="leave-one-out", seeds=2, steps=100, names=["smear"])
    results = made_results(app, plan)
    for result in results:
        if result["name"] == "recipe-shorter":
            result["val_loss"] += 0.02 if result["seed"] == 1 else -0.02
    (worth,) = app.ablation_report.worths(plan, results, "cpu_seconds")
    gains = [0.5 + sign * 0.02 / math.log(100 / 80) for sign in (1, -1)]
    assert worth.equal_steps.half == pytest.approx(0, abs=1e-9)
    assert worth.equal_time == pytest.approx(app.student.interval([0.1 - gain * math.log(1.1) for gain in gains]))


def test_another_plan_does_not_get_into_a_folder(app, desk, tmp_path):
    make = lambda **more: app.ablation_plan.make_plan(
        "desk", [], desk, **({"mode": "leave-one-out", "seeds": 2, "steps": 50, "names": ["smear"]} | more)
    )
    app.ablate.keep(make(), tmp_path)
    app.ablate.keep(make(seeds=5), tmp_path)
    with pytest.raises(ValueError, match=r"holds another ablation \(steps was 50, is 60\)"):
        app.ablate.keep(make(steps=60), tmp_path)


def test_a_dry_run_prints_the_plan_and_makes_nothing(app, tmp_path, capsys):
    out = tmp_path / "abl"
    assert app.ablate.main(["desk", "--leave-one-out", "--seeds", "3", "--dry-run", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    runs = 3 * (len(app.switches.applicable(load("desk").tree)) + 2)
    assert f"seeds = {runs} runs" in printed and "without-key_offset" in printed and not out.exists()


@pytest.mark.slow
def test_an_ablation_that_is_killed_goes_on_where_it_was(app, tmp_path):
    """kill -9 in the middle, then the same command: what was done is not done again."""
    speedrun = Speedrun(tmp_path)
    command = [sys.executable, str(APP), "ablate", *TINY[:1], "--leave-one-out", "--seeds=1", "--steps=7"]
    command += ["--switches=smear", f"--out={tmp_path}/abl", *TINY[1:]]
    options = {"env": process_environment(speedrun.folder), "cwd": tmp_path, "text": True}
    first = subprocess.Popen(command, start_new_session=True, **options)
    done = tmp_path / "abl/runs/recipe-seed1/result.json"
    end = time.monotonic() + 200
    while not done.exists() and first.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert done.exists()
    before = done.stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, timeout=300, check=False, **options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert done.stat().st_mtime_ns == before and "recipe-seed1" not in again.stdout.split("cost:")[1]
    assert "| smear |" in again.stdout and (tmp_path / "abl/ablation.png").exists()
    assert json.loads((tmp_path / "abl/runs/without-smear-seed1/result.json").read_text())["steps"] == 7


def finished_run(folder, number, loss, **more):
    config = {"general": {"seed": number, "run_name": f"run{number}"}, "model": {"width": 8}}
    start = {"event": "start", "max_steps": 4, "world_size": 8, "hardware": {"gpu_name": "H100"}, "config": config}
    rows = [
        start | {"max_steps": 2},  # it was made longer when it was resumed
        start | more,
        {"step": 4, "train/tokens": 2_000_000},
        {"step": 4, "val/loss": loss, "val/train_time_s": 60.0 + number},
    ]
    run = folder / f"run{number}"
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(run)


def test_a_record_is_a_line_of_several_runs(app, tmp_path, capsys):
    runs = [finished_run(tmp_path, number, loss) for number, loss in enumerate((3.277, 3.279))]
    assert app.record.main([*runs, "--name=ours"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| ours | 8 x H100 | 60.5 s | 4 | 2.0 M | 3.2780 (sd 0.0014) | 2 | 0.15 |")


def test_a_record_is_of_runs_that_differ_in_their_seeds_alone(app, tmp_path):
    run = finished_run(tmp_path, 0, 3.277)
    elsewhere = finished_run(tmp_path, 1, 3.277, hardware={"gpu_name": "A100"})
    wider = finished_run(tmp_path, 2, 3.277, config={"general": {"seed": 2}, "model": {"width": 9}})
    for other, message in (
        (run, r"seeds are \[0, 0\]: every run needs one of its own"),
        (elsewhere, r"differ in hardware \(8 x H100, 8 x A100\)"),
        (wider, r"differ in their configurations \(model\)"),
    ):
        with pytest.raises(ValueError, match=message):
            app.record.main([run, other])


def test_a_record_of_a_run_that_has_not_ended_is_refused(app, tmp_path):
    with pytest.raises(ValueError, match=r"no metrics\.jsonl"):
        app.record.main([str(tmp_path)])
    (tmp_path / "metrics.jsonl").write_text('{"event": "start", "max_steps": 4}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="has not come to its end, step 4"):
        app.record.main([str(tmp_path)])


def test_a_run_that_ended_early_is_not_a_result(app, desk, tmp_path):
    plan = app.ablation_plan.make_plan("desk", [], desk, mode="leave-one-out", seeds=1, steps=5, names=["smear"])
    variant, seed = plan.runs()[0]
    for rows, step in (([{"event": "start"}], 0), ([{"step": 2, "val/loss": 5.0}, {"step": 3, "train/loss": 5.0}], 2)):
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        with pytest.raises(ValueError, match=f"ended at step {step} of {variant.steps}: run the command again"):
            app.ablate.result_of(tmp_path, variant, seed, 1.0)
    assert not (tmp_path / "result.json").exists()
