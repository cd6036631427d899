"""The scripts for clusters as such, and Slurm without a cluster: dry runs, and whole jobs under stand-ins."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from scripting import NASTY, SCRIPTS, after, call, printed, program, value
from workspace import ROOT

SHELL_SCRIPTS = sorted(SCRIPTS.rglob("*.sh"))
COMMANDS = [path for path in SHELL_SCRIPTS if path.name != "lib.sh"]


@pytest.fixture
def submit(tmp_path):
    """`slurm/submit.sh --dry-run` of `apps/pretrain`: options and app arguments to its commands."""

    def run(*options, app=(), **env):
        options = ["--job-name", "x", *options] if "--job-name" not in options else options
        return printed(call("slurm/submit.sh", "--dry-run", *options, "--", "apps/pretrain", *app, cwd=tmp_path, **env))

    return run


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_bash_and_shellcheck_accept_it(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    if shellcheck := shutil.which("shellcheck", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"):
        done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_the_help_names_every_option(script, tmp_path):
    source = script.read_text()
    tables = re.findall(r"^(?:option|flag|many)\+?=\((.*?)\)$", source, re.MULTILINE | re.DOTALL)
    options = {"dry-run", *re.findall(r"\[([a-z-]+)\]=", " ".join(tables))}
    shown = call(script, "--help", *(["--scripts", SCRIPTS] if script.name == "job.sh" else []), cwd=tmp_path)
    assert shown.returncode == 0 and len(options) > 2
    assert not [name for name in options if f"--{name}" not in shown.stdout]
    assert script.name in (SCRIPTS / "README.md").read_text()


def test_a_dry_run_writes_nothing(submit, tmp_path):
    submit("--restartable")
    assert list(tmp_path.iterdir()) == []


def test_links_and_paths_of_the_readme_lead_somewhere():
    text = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"(?:`|^)(?:uv run )?((?:scripts|docs|slurm|volcano)/[\w./-]*\w)", text, re.MULTILINE)
    assert len(paths) > 5
    assert not [path for path in paths if not (ROOT / path).exists() and not (SCRIPTS / path).exists()]


# Slurm


def test_sbatch_gets_the_script_and_every_argument(submit, tmp_path):
    commands = submit("--job-name", "it's a job", "--time", "2:00", "--sbatch", "--comment=a b", app=NASTY)
    sbatch = commands["sbatch"]
    (script,) = [index for index, word in enumerate(sbatch) if word.endswith("/scripts/slurm/job.sh")]
    assert all(word.startswith("--") for word in sbatch[1:script]), "nothing is cut off, nothing else comes first"
    assert {"--job-name=it's a job", "--time=2:00", "--comment=a b", f"--chdir={tmp_path}"} <= set(sbatch[:script])
    for name in ("sbatch", "srun"):
        assert after(commands[name]) == ["apps/pretrain", *NASTY]
    assert commands["python"][2:] == NASTY
    assert commands["python"][1].startswith(f"{tmp_path}/out/it's a job/")
    assert commands["python"][1].endswith("/source_dir/apps/pretrain")


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("gpus", [0, 1, 2, 4, 8])
def test_the_same_arguments_for_any_number_of_gpus(submit, nodes, gpus):
    """nanoGPT's Slurm files divided the accumulation by the GPUs, and train.py did so again."""
    app = ["gpt2-124m", "--training.global_batch_size", "480"]
    commands = submit("--nodes", nodes, "--gpus-per-node", gpus, app=app)
    processes = max(gpus, 1)
    assert after(commands["srun"]) == ["apps/pretrain", *app]
    assert value(commands["srun"], "--ntasks") == str(nodes * processes)
    assert (
        value(commands["srun"], "--ntasks-per-node") == value(commands["sbatch"], "--ntasks-per-node") == str(processes)
    )
    assert {"--kill-on-bad-exit=1", "--label", "--cpu-bind=none"} <= set(commands["srun"])
    assert ("--gpu-bind=none" in commands["srun"]) == (gpus > 0)
    assert any(word.startswith("--gpus-per-node=") for word in commands["sbatch"]) == (gpus > 0)
    assert ("--exclusive" in commands["sbatch"]) == ("--overcommit" in commands["sbatch"]) == (gpus == 8)
    assert ("--oversubscribe" in commands["sbatch"]) == (gpus < 8)
    assert f"WORLD_SIZE={nodes * processes}" in commands["export"]


def test_no_script_has_an_accumulation_of_its_own():
    text = "".join(path.read_text() for path in SCRIPTS.rglob("*") if path.suffix in (".sh", ".py"))
    assert not re.search(r"accum|GRAD_ACC|batch_size", text, re.IGNORECASE)


def slurm_task(tmp_path, *arguments, rank=11, per_node=8, nodes=2, **env):
    slurm = {
        "SLURM_JOB_ID": "77", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node),
        "SLURM_NODEID": str(rank // per_node), "SLURM_NTASKS": str(nodes * per_node),
        "MASTER_ADDR": "head", "MASTER_PORT": "20077",
    }  # fmt: skip
    arguments = ["--source", ROOT, "--nodes", nodes, "--processes", per_node, *arguments]
    return printed(
        call("slurm/task.sh", "--dry-run", *arguments, "--", "apps/pretrain", *NASTY, cwd=tmp_path, **slurm | env)
    )


def test_a_task_is_told_its_rank(tmp_path):
    commands = slurm_task(tmp_path, OMP_NUM_THREADS="")
    wanted = {"RANK=11", "LOCAL_RANK=3", "WORLD_SIZE=16", "LOCAL_WORLD_SIZE=8", "NODE_RANK=1", "MASTER_ADDR=head"}
    assert wanted | {"MASTER_PORT=20077", "OMP_NUM_THREADS=1"} <= set(commands["export"])
    assert commands["python"] == [f"{ROOT}/.venv/bin/python", f"{ROOT}/apps/pretrain", *NASTY]
    assert "OMP_NUM_THREADS=6" in slurm_task(tmp_path, SLURM_CPUS_PER_TASK="6", OMP_NUM_THREADS="")["export"]


def test_torchrun_is_started_once_per_node(submit, tmp_path):
    commands = submit("--nodes", 2, "--gpus-per-node", 4, "--cpus-per-task", 6, "--torchrun", app=NASTY)
    assert {"--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=24"} <= set(commands["srun"])
    torchrun = slurm_task(tmp_path, "--torchrun", rank=1, per_node=1)["python"]
    assert torchrun[1:3] == ["-m", "torch.distributed.run"]
    assert {"--nnodes=2", "--nproc-per-node=1", "--rdzv-endpoint=head:20077", "--rdzv-conf=is_host=0"} <= set(torchrun)
    assert torchrun[-5:] == [f"{ROOT}/apps/pretrain", *NASTY]
    first = slurm_task(tmp_path, "--torchrun", rank=0, per_node=1)["python"]
    assert "--rdzv-conf=is_host=1" in first and "--standalone" not in first
    alone = slurm_task(tmp_path, "--torchrun", rank=0, nodes=1)["python"]
    assert {"--standalone", "--nnodes=1", "--nproc-per-node=8"} <= set(alone)


def test_a_given_interpreter_runs_the_staged_packages(tmp_path, submit):
    commands = slurm_task(tmp_path, "--python", "/opt/it's/python", PYTHONPATH="/mine")
    assert commands["python"][0] == "/opt/it's/python"
    (path,) = [word for word in commands["export"] if word.startswith("PYTHONPATH=")]
    assert f"{ROOT}/packages/gpt-core/src:" in path and path.endswith(":/mine")
    installing = [line for line in submit("--python", "p").values() if "--install" in line]
    assert not installing


def test_containers_see_the_folders_they_need(submit, tmp_path):
    srun = submit("--container", "img", "--mount", "/a:/b", "--out-dir", "/runs", DATA_ROOT="/texts")["srun"]
    assert value(srun, "--container-image") == "img"
    assert value(srun, "--container-mounts") == f"{tmp_path}:{tmp_path},/runs:/runs,/texts:/texts,/a:/b"


def test_a_restartable_job_names_its_run(submit, tmp_path):
    commands = submit("--restartable", "--notice", "60", app=["gpt2-124m"])
    assert {"--requeue", "--signal=B:USR1@60", "--open-mode=append", "--dependency=singleton"} <= set(
        commands["sbatch"]
    )
    assert after(commands["srun"])[2:] == ["--general.run_name=x", f"--general.out_dir={tmp_path}/out"]
    named = submit("--restartable", app=["--run_name=mine", "--general.out_dir", "there"])
    assert after(named["srun"])[1:] == ["--run_name=mine", "--general.out_dir", "there"]
    assert named["sbatch"][named["sbatch"].index("--run-dir") + 1] == "there/mine"
    assert "--no-requeue" in submit()["sbatch"]
    assert not [word for word in submit("--requeue")["srun"] if "run_name" in word]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "2"], "submit.sh: --job-name is missing"),
        (["--job-name", "a/b"], "--job-name 'a/b' names a folder"),
        (["--job-name", "x%j"], "--job-name 'x%j' names a folder"),
        (["--job-name", "x", "--nodes", "two"], "--nodes is 'two', expected a whole number of at least 1"),
        (["--job-name", "x", "--nodes=0"], "--nodes is '0', expected a whole number of at least 1"),
        (["--job-name", "x", "--gpus", "8"], "there is no option --gpus; --help lists them"),
        (["--job-name", "x", "-N", "8"], "there is no option '-N'"),
        (["--job-name", "x", "--nodes"], "--nodes needs a value"),
        (["--job-name", "x"], "no app: add it after --"),
        (["--job-name", "x", "apps/pretrain"], "'apps/pretrain' stands before --"),
        (["--job-name", "x", "--", "apps/pretrian"], "there is no 'apps/pretrian' in"),
        (["--job-name", "x", "--env-setup", "gone.sh", "--", "apps/pretrain"], "--env-setup 'gone.sh' cannot be read"),
        (["--job-name", "x", "--restartable", "--", "apps/pretrain", "--out_dir=$A"], "without $ and ~: '', '$A'"),
    ],
)
def test_mistakes_get_one_line(tmp_path, options, message):
    done = call("slurm/submit.sh", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


# A whole job: a repository with one app, and programs that behave like Slurm's in what matters here.

APP = """
import json, os, pathlib, sys
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"]
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "place": [os.environ[name] for name in names]}))
if "--fail" in sys.argv:
    step = pathlib.Path("out/job 1/checkpoints/step_000002")
    if "--save" in sys.argv and "--general.init_from=resume" not in sys.argv and os.environ["RANK"] == "0":
        step.mkdir(parents=True)
        (step / "meta.json").touch()
    sys.exit("--general.init_from=resume" not in sys.argv and 3)
"""
SBATCH = """
import os, shutil, subprocess, sys
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--") and "=" in word)
script = next(index for index, word in enumerate(sys.argv) if index and not word.startswith("--"))
shutil.copy(sys.argv[script], "slurm_script")  # Slurm runs a copy
env = os.environ | {"SLURM_JOB_ID": "12345", "SLURMD_NODENAME": "head"}
with open(options["output"], options["open-mode"][0]) as log:
    job = ["bash", "slurm_script", *sys.argv[script + 1 :]]
    subprocess.run(job, env=env, stdout=log, stderr=log, cwd=options["chdir"])
"""
SRUN = """
import os, subprocess, sys
start = next(index for index, word in enumerate(sys.argv) if index and not word.startswith("--"))
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:start])
tasks, per_node = int(options["ntasks"]), int(options.get("ntasks-per-node", 1))
status = 0
with open(options["output"], "a") as log, open(options["error"], "a") as errors:
    for rank in range(tasks):
        place = {"PROCID": rank, "LOCALID": rank % per_node, "NODEID": rank // per_node, "NTASKS": tasks}
        env = os.environ | {f"SLURM_{name}": str(number) for name, number in place.items()}
        status = max(status, subprocess.run(sys.argv[start:], env=env, stdout=log, stderr=errors).returncode)
sys.exit(status)
"""
SCONTROL = "import sys; open('scontrol.txt', 'a').write(' '.join(sys.argv[1:]) + '\\n')"
UV = "import sys; open('uv.txt', 'a').write(' '.join(sys.argv[1:]) + '\\n')"


@pytest.fixture
def cluster(tmp_path):
    """A repository in `repo`, a working directory `work`, and stand-ins on PATH."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path / "repo")]
    (tmp_path / "repo/apps").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copytree(SCRIPTS, tmp_path / "repo/scripts")
    (tmp_path / "repo/apps/toy.py").write_text(APP)
    (tmp_path / "repo/apps/gone.py").touch()
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    for name, source in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "uv": UV}.items():
        program(tmp_path / "bin" / name, source)

    def run(*options, app, restart=0, python=sys.executable):
        script = tmp_path / "repo/scripts/slurm/submit.sh"
        options = ["--job-name", "job 1", "--gpus-per-node", 2, "--python", python, *options]
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        restarts = {"SLURM_RESTART_COUNT": str(restart)} if restart else {}
        done = call(script, *options, "--", "apps/toy.py", *app, cwd=tmp_path / "work", PATH=path, **restarts)
        assert done.returncode == 0, done.stderr
        return done

    def newest(pattern):
        return max((tmp_path / "work/out/job 1").glob(f"2*/{pattern}"), key=os.path.getmtime)

    return SimpleNamespace(submit=run, newest=newest, repo=tmp_path / "repo", work=tmp_path / "work", git=git)


def test_every_process_of_a_job_gets_its_place_and_arguments(cluster):
    done = cluster.submit("--nodes", 2, app=NASTY)
    said = [json.loads(line) for line in cluster.newest("srun_log_000.txt").read_text().splitlines()]
    assert [one["argv"] for one in said] == [NASTY] * 4
    assert {one["cwd"] for one in said} == {str(cluster.work)}
    assert [one["place"][:4] for one in said] == [
        ["0", "0", "4", "0"], ["1", "1", "4", "0"], ["2", "0", "4", "1"], ["3", "1", "4", "1"],
    ]  # fmt: skip
    assert {tuple(one["place"][4:]) for one in said} == {("head", "22345")}
    head = subprocess.run([*cluster.git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
    staged = subprocess.run(
        ["git", "-C", cluster.newest("source_dir"), "rev-parse", "HEAD"], capture_output=True, check=True
    ).stdout
    assert staged == head, "a run's manifest names the revision that runs"
    assert done.stderr == ""


def test_without_an_interpreter_uv_makes_one_environment(cluster):
    cluster.submit("--nodes", 2, app=[], python="")
    assert (cluster.work / "uv.txt").read_text() == f"sync --locked --no-dev --project {cluster.newest('source_dir')}\n"


def test_what_is_staged(cluster):
    (cluster.repo / "apps/toy.py").write_text("print('changed')")
    (cluster.repo / "apps/new file.py").touch()
    (cluster.repo / "apps/gone.py").unlink()
    done = cluster.submit(app=[])
    assert "not part of the job" in done.stderr and "new file.py" in done.stderr
    staged = cluster.newest("source_dir")
    assert (staged / "apps/toy.py").read_text() == APP and not (staged / "apps/new file.py").exists()

    shutil.rmtree(staged.parent)
    assert cluster.submit("--dirty", app=[]).stderr == ""
    staged = cluster.newest("source_dir")
    assert (staged / "apps/toy.py").read_text() == "print('changed')"
    assert sorted(path.name for path in (staged / "apps").iterdir()) == ["new file.py", "toy.py"]

    shutil.rmtree(staged.parent)
    shutil.rmtree(cluster.repo / ".git")
    (cluster.repo / ".venv").mkdir()
    cluster.submit(app=[])
    assert sorted(path.name for path in cluster.newest("source_dir").iterdir()) == ["apps", "scripts"]


def test_a_job_that_failed_after_a_checkpoint_starts_again_and_resumes(cluster):
    cluster.submit("--restartable", app=["--fail", "--save"])
    assert (cluster.work / "scontrol.txt").read_text() == "requeue 12345\n"
    shutil.rmtree(cluster.newest("source_dir").parent)
    cluster.submit("--restartable", app=["--fail", "--save"], restart=1)
    said = [json.loads(line) for line in cluster.newest("srun_log_001.txt").read_text().splitlines()]
    assert [one["argv"][-1] for one in said] == ["--general.init_from=resume"] * 2
    assert "start 001 continues" in cluster.newest("sbatch_log.txt").read_text()
    assert (cluster.work / "scontrol.txt").read_text() == "requeue 12345\n", "it ended well, and is not started again"


@pytest.mark.parametrize("options", [["--restartable"], ["--requeue"], []])
def test_a_job_that_fails_without_progress_is_not_tried_for_ever(cluster, options):
    app = ["--fail", *(["--save"] if "--restartable" not in options else [])]
    cluster.submit(*options, app=app)
    assert "ended with status 3" in cluster.newest("sbatch_log.txt").read_text()
    assert not (cluster.work / "scontrol.txt").exists()
