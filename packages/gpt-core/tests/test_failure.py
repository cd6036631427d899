"""One rank that fails ends the others soon, and the reason is told once. Two starts of fault_worker.py."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_core.distributed import Distributed, distributed
from gpt_core.training.config import GeneralConfig
from gpt_core.training.recipe import after_restart

WORKER = Path(__file__).parent / "fault_worker.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    command = [sys.executable, str(WORKER), str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize(
    ("case", "error"), [("raise", "ValueError: no such luck"), ("stuck", "ValueError: no such luck")]
)
def test_an_error_is_told_once_by_the_rank_that_has_it(cases, case, error):
    """Whether the others wait for it in a collective or compute on their own."""
    seen = cases[case]
    assert seen["codes"] == [1, 1, 1] and seen["seconds"] < 30
    assert seen["printed"] == ["", f"error: rank 1 failed: {error}\n", ""]


def test_a_bug_comes_with_one_traceback(cases):
    seen = cases["bug"]
    assert seen["codes"] == [1, 1, 1] and seen["seconds"] < 30
    assert seen["printed"][0] == seen["printed"][2] == ""
    assert seen["printed"][1].count("Traceback") == 1
    assert seen["printed"][1].endswith("rank 1 failed: KeyError: 'luck'\n")


def test_a_killed_rank_ends_the_others(cases):
    seen = cases["kill"]
    assert seen["codes"] == [1, -9, 1] and seen["seconds"] < 30
    told = [text for text in seen["printed"] if text]
    assert len(told) == 1 and "lost contact with another rank" in told[0] and told[0].count("\n") == 1


def test_torchrun_starts_again_and_the_launch_keeps_its_name(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, str(WORKER), str(tmp_path), "restart"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 100
    assert done.stderr.count("no such luck") == 1 and "Traceback" not in done.stderr, done.stderr
    names = {path.name: path.read_text() for path in tmp_path.glob("attempt_*")}
    assert sorted(names) == ["attempt_0_0", "attempt_0_1", "attempt_1_0", "attempt_1_1"]
    assert len(set(names.values())) == 1 and names["attempt_0_0"].startswith("torchrun ")


# --- the run that a restarted launch continues -------------------------------------------------------------------


def begin(run_dir, launch, saved=False, earlier=()):
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run_dir.mkdir(parents=True)
    manifest = {"time": now, "launch": launch, "earlier": [{"time": now, "launch": each} for each in earlier]}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    if saved:
        (run_dir / "checkpoints" / "step_000005").mkdir(parents=True)


def test_a_restarted_launch_finds_its_run(tmp_path):
    again = Distributed(launch="torchrun x", restarts=1)
    general = GeneralConfig(out_dir=str(tmp_path))
    assert after_restart(general, Distributed(launch="torchrun x")) is general, "the first attempt begins a run"
    assert after_restart(general, again) is general, "nothing was begun before the failure"
    begin(tmp_path / "gpt-1", "torchrun x", saved=True)
    begin(tmp_path / "gpt-2", "torchrun other", saved=True)
    found = after_restart(general, again)
    assert (found.run_name, found.init_from) == ("gpt-1", "resume")
    assert after_restart(general, Distributed(restarts=1)) is general, "a launcher without a name"


def test_a_restarted_launch_without_a_checkpoint_begins_anew_in_its_folder(tmp_path):
    begin(tmp_path / "mine", "slurm 7")
    general = GeneralConfig(out_dir=str(tmp_path), run_name="mine", init_from="elsewhere")
    found = after_restart(general, Distributed(launch="slurm 7", restarts=2))
    assert (found.run_name, found.init_from) == ("mine", "elsewhere")


def test_a_restarted_launch_leaves_the_run_of_another_alone(tmp_path):
    """The first attempt was refused, since the name is taken: the second must not go on with what is there."""
    begin(tmp_path / "taken", "torchrun yesterday", saved=True)
    general = GeneralConfig(out_dir=str(tmp_path), run_name="taken")
    assert after_restart(general, Distributed(launch="torchrun x", restarts=1)) is general


@pytest.mark.parametrize(
    ("environment", "launch", "restarts"),
    [
        ({}, None, 0),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, "slurm 7", 2),
        ({"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "abc"}, "torchrun abc", 1),
    ],
)
def test_launchers_are_read_from_the_environment(monkeypatch, environment, launch, restarts):
    for name in ("WORLD_SIZE", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with distributed("cpu") as ranks:
        assert (ranks.launch, ranks.restarts) == (launch, restarts)
