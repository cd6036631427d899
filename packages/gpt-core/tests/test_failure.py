"""One rank that fails ends the others soon, and the reason is told once."""

import json
import time
from dataclasses import replace

import fault_worker
import pytest

from gpt_core.distributed import Distributed, distributed
from gpt_core.training.config import GeneralConfig
from gpt_core.training.recipe import after_restart


@pytest.fixture
def three(tmp_path, fork_ranks):
    """Exit codes of three ranks, and what each printed."""

    def run(case):
        ended = fork_ranks(tmp_path, 3, fault_worker.main, case, timeout=30)
        return [rank.code for rank in ended], [rank.stderr for rank in ended]

    return run


@pytest.mark.parametrize("case", ["raise", "stuck"])
def test_an_error_is_told_once_by_the_rank_that_has_it(three, case):
    """Whether the others wait for it in a collective or compute on their own."""
    assert three(case) == ([1, 1, 1], ["", "error: rank 1 failed: ValueError: no such luck\n", ""])


def test_a_bug_comes_with_one_traceback(three):
    codes, printed = three("bug")
    assert codes == [1, 1, 1]
    assert printed[0] == printed[2] == ""
    assert printed[1].count("Traceback") == 1
    assert printed[1].endswith("rank 1 failed: KeyError: 'luck'\n")


def test_a_killed_rank_ends_the_others(three):
    codes, printed = three("kill")
    assert codes == [1, -9, 1]
    told = [text for text in printed if text]
    assert len(told) == 1 and "lost contact with rank 1," in told[0] and told[0].count("\n") == 1


def test_torchrun_starts_again_and_the_launch_keeps_its_name(tmp_path, fork):
    done = fork(tmp_path, fault_worker.torchrun, tmp_path, 1, fault_worker.attempt, timeout=100)
    assert done.code == 0, done.stderr
    printed = [path.read_text() for path in sorted((tmp_path / "logs").glob("**/stderr.log"))]
    assert printed == ["", "error: rank 1 failed: ValueError: no such luck\n", "", ""], "of both attempts"
    names = {path.name: path.read_text() for path in tmp_path.glob("attempt_*")}
    assert sorted(names) == ["attempt_0_0", "attempt_0_1", "attempt_1_0", "attempt_1_1"]
    assert set(names.values()) == {"torchrun x"}


def test_below_torchrun_the_rank_that_is_left_says_who_was_killed(tmp_path, fork):
    done = fork(tmp_path, fault_worker.torchrun, tmp_path, 0, fault_worker.killed_below_torchrun, timeout=100)
    assert done.code != 0
    (printed,) = [path.read_text() for path in (tmp_path / "logs").glob("**/0/stderr.log")]
    assert printed == "error: rank 0 lost contact with rank 1, which was killed or whose machine is gone\n"


# --- the run that a restarted launch continues -------------------------------------------------------------------


def begin(run_dir, launch, saved=False, earlier=(), **more):
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run_dir.mkdir(parents=True)
    manifest = {"time": now, "launch": launch, "earlier": [{"time": now, "launch": each} for each in earlier], **more}
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


def test_a_restarted_launch_of_two_phases_goes_on_with_the_run_of_each(tmp_path):
    begin(tmp_path / "base", "torchrun x", saved=True, phase="pretraining")
    begin(tmp_path / "chat", "torchrun x", phase="mid-training")
    general, again = GeneralConfig(out_dir=str(tmp_path)), Distributed(launch="torchrun x", restarts=1)
    second = replace(general, phase="mid-training", init_from=str(tmp_path / "base"))
    assert after_restart(general, again).run_name == "base"
    found = after_restart(second, again)
    assert (found.run_name, found.init_from) == ("chat", str(tmp_path / "base"))


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
