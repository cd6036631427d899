"""The Makefile: what its targets run, with every knob; and `kill-gpu`, which ends nobody else's processes."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripting import NASTY, program
from workspace import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
MAKEFILE = (ROOT / "Makefile").read_text()
KNOBS = {"CHECKPOINT", "DEPTH", "MODE", "LOG", "PORT", "NNODES", "NODE_RANK", "MASTER_ADDR", "FORCE", "ARGS", "P"}


@pytest.fixture
def make(tmp_path):
    """make(target, KNOB=value, ...) in `make.folder`, where programs in `make.bin` are found first."""

    def run(*words, answer=None, **knobs):
        clean = {name: value for name, value in os.environ.items() if name not in KNOBS and not name.startswith("MAKE")}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        words = [*words, *(f"{name}={value}" for name, value in knobs.items())]
        return subprocess.run(
            ["make", "-f", ROOT / "Makefile", *words],
            cwd=run.folder,
            env={**clean, "PATH": path},
            input=answer,
            stdin=subprocess.DEVNULL if answer is None else None,
            capture_output=True,
            text=True,
            timeout=200,
        )

    run.bin, run.folder = tmp_path / "bin", ROOT
    run.bin.mkdir()
    program(run.bin / "nvidia-smi", "raise SystemExit('no GPU')")
    return run


def commands(process):
    """What `make -n` would run, as lists of words; the log apart."""
    assert process.returncode == 0, process.stderr
    return [shlex.split(line) for line in process.stdout.splitlines() if line.startswith("uv ")]


TORCHRUN = "uv run torchrun --standalone --nproc-per-node"
TRAINING = {  # what is given to ddp-train: what is run, and the log
    "": ("uv run apps/pretrain", "logs/pretraining.log"),
    "NGPUS=1 NNODES=1": ("uv run apps/pretrain", "logs/pretraining.log"),
    "NGPUS=4 CONFIG=gpt2-124m": (f"{TORCHRUN} 4 apps/pretrain gpt2-124m", "logs/pretraining.log"),
    "DEPTH=12 TARGET_FLOPS=2.15e18 ASPECT_RATIO=32 HEAD_DIM=64 BATCH_SIZE=8": (
        "uv run apps/pretrain depth --depth 12 --aspect-ratio 32 --head-dim 64 --target-flops 2.15e18 "
        "--device-batch-size 8",
        "logs/scaling_laws_N12_F2.15e18.log",
    ),
    "DEPTH=6 PARAM_DATA_RATIO=8 EVAL_INTERVAL=50 DATA_DIR=data/x": (
        "uv run apps/pretrain depth --dataset data/x --depth 6 --param-data-ratio 8 --eval-interval 50",
        "logs/scaling_laws_N6_R8.log",
    ),
    "MODE=mid-training CHECKPOINT=out/base NGPUS=2 VAL_EVALS=false CORE_EVALS=true CHATCORE_EVALS=true BUNDLE=b": (
        f"{TORCHRUN} 2 apps/pretrain --mode mid-training --checkpoint out/base --no-evals --run-core-evals "
        "--run-chatcore-evals --eval.bundle b",
        "logs/mid-training.log",
    ),
    "MODE=all VAL_EVALS=true CORE_EVALS=false LOG=my.log ARGS='--a 1'": (
        "uv run apps/pretrain --mode all --a 1",
        "my.log",
    ),
    "NGPUS=8 NNODES=2 NODE_RANK=1 MASTER_ADDR=host0": (
        "uv run torchrun --nnodes 2 --node-rank 1 --master-addr host0 --master-port 29500 --nproc-per-node 8 "
        "apps/pretrain",
        "logs/pretraining-node1.log",
    ),
}
OTHERS = {
    "environment": "uv sync --locked",
    "chat-server": "uv run apps/chat serve --port 8003",
    "chat-server CHECKPOINT=out/mine PORT=9000 ARGS='--host 0.0.0.0'": (
        "uv run apps/chat serve out/mine --port 9000 --host 0.0.0.0"
    ),
}


@pytest.mark.parametrize("knobs", TRAINING)
def test_what_ddp_train_runs(make, knobs):
    command, log = TRAINING[knobs]
    expected = shlex.split(f"{command} 2>&1 | tee -ia {log}")
    assert commands(make("-n", "ddp-train", *shlex.split(knobs))) == [expected]


@pytest.mark.parametrize("target", OTHERS)
def test_what_other_targets_run(make, target):
    assert commands(make("-n", *shlex.split(target))) == [shlex.split(OTHERS[target])]


def test_the_grid_is_swept_fitted_and_drawn_also_where_a_run_fails(make, tmp_path):
    program(make.bin / "uv", "import sys\nprint(*sys.argv[3:], flush=True)\nsys.exit(sys.argv[3] == 'sweep')")
    make.folder = tmp_path
    knobs = {"CONFIG": "configs/desk.yaml", "DEPTHS": "6 8", "BUDGETS": "1e18,2.15e18", "NGPUS": 8, "ARGS": "--dry-run"}
    done = make("-s", "run-scaling-law", **knobs)
    assert done.returncode == 2 and done.stdout.splitlines() == [
        "sweep configs/desk.yaml --depths 6,8 --budgets 1e18,2.15e18 --out out/scaling-desk --processes 8 --dry-run",
        "fit --logs out/scaling-desk",
        "plot --logs out/scaling-desk",
    ]
    program(make.bin / "uv", "import sys\nprint(*sys.argv[3:], flush=True)\nsys.exit(130)")
    assert make("-s", "run-scaling-law", OUT="a b").stdout.splitlines() == ["sweep --out a b"], "interrupted"


def test_as_many_processes_as_gpus(make):
    program(make.bin / "nvidia-smi", "print('GPU 0: A\\nGPU 1: B\\nGPU 2: C')")
    assert commands(make("-n", "ddp-train"))[0][:6] == shlex.split(f"{TORCHRUN} 3")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"CORE_EVALS": "yes"}, "CORE_EVALS is true or false, got 'yes'"),
        ({"NNODES": 2, "MASTER_ADDR": "x"}, "several machines (NNODES=2) need NODE_RANK"),
        ({"NNODES": 2, "NODE_RANK": 0}, "several machines (NNODES=2) need MASTER_ADDR"),
    ],
)
def test_knobs_that_cannot_be(make, knobs, message):
    done = make("-n", "ddp-train", **knobs)
    assert done.returncode and message in done.stderr


def test_help_lists_every_target_and_every_knob(make):
    shown, phony = make().stdout, " ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split()
    assert {"environment", "ddp-train", "run-scaling-law", "chat-server", "gpu-status", "kill-gpu", "help"} <= {*phony}
    assert [target for target in phony if not re.search(rf"^  {target} +\w", shown, re.MULTILINE)] == []
    recipes = MAKEFILE[MAKEFILE.index("\nquoted =") :]
    knobs = {*re.findall(r"\$\(([A-Z_]+)\)", recipes), *re.findall(r"\$\(call \w+,[-\w,]*?\b([A-Z_]+)\)", recipes)}
    assert len(knobs) > 20 and [knob for knob in knobs if not re.search(rf"\b{knob}\b", shown)] == []


def test_what_the_user_writes_reaches_the_app_as_it_is_and_so_does_its_end(make, tmp_path):
    program(make.bin / "uv", "import json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(3)")
    make.folder = tmp_path
    nasty = NASTY[1].replace("$", "$$")  # which make itself reads
    done = make("ddp-train", CHECKPOINT=nasty, LOG="a folder/it's.log")
    assert done.returncode == 2 and "Error 3" in done.stderr  # and not the 0 of tee
    (line,) = (tmp_path / "a folder/it's.log").read_text().splitlines()
    assert json.loads(line) == ["run", "apps/pretrain", "--checkpoint", NASTY[1]]


def test_ctrl_c_leaves_the_log_until_the_run_has_ended(make, tmp_path):
    program(
        make.bin / "uv",
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *a: (time.sleep(0.3), print('saved', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\ntime.sleep(60)",
    )
    env = {**os.environ, "PATH": f"{make.bin}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "-f", str(ROOT / "Makefile"), "ddp-train", "LOG=log"]
    running = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
        wait_until(lambda: "saved" in (tmp_path / "log").read_text())
    finally:
        running.kill()
        running.wait()


SLEEPS = "import time; print(1, flush=True); time.sleep(60)"


@pytest.fixture
def on_the_gpu(make):
    """Processes that nvidia-smi lists: ours, ours that ignores SIGTERM, and the PID of somebody else's."""
    programs = [SLEEPS, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS]
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for code in programs]
    ours, deaf = started
    for process in (ours, deaf):
        process.stdout.readline()
    other = 1
    if os.geteuid() == 0:
        started.append(subprocess.Popen(["sleep", "60"], user=65534))
        other = started[-1].pid
    listed = ["[N/A]", other, ours.pid, deaf.pid, 999999999, ours.pid]
    program(make.bin / "nvidia-smi", f"print(*{listed}, sep='\\n')")
    yield ours, deaf, other
    for process in started:
        process.kill()
        process.communicate()


def test_kill_gpu_asks_and_takes_no_for_an_answer(make, on_the_gpu):
    ours, deaf, _ = on_the_gpu
    for answer in ("n\n", "", "maybe\n"):
        done = make("kill-gpu", answer=answer)
        assert done.returncode and "nothing was ended" in done.stderr
        listed = re.findall(r"^ *(\d+) ", done.stdout, re.MULTILINE)
        assert {*listed} == {str(ours.pid), str(deaf.pid)} and "1 process(es) of other users" in done.stdout
    assert make("kill-gpu", ARGS="--dry-run").returncode == 0
    assert ours.poll() is None and deaf.poll() is None


@pytest.mark.parametrize(("force", "answer"), [("1", None), ("", "y\n")])
def test_kill_gpu_ends_ones_own_only_and_the_deaf_at_last(make, on_the_gpu, force, answer):
    ours, deaf, other = on_the_gpu
    done = make("kill-gpu", FORCE=force, ARGS="--grace 1", answer=answer)
    assert done.returncode == 0 and "1 did not end within 1 s" in done.stdout
    assert ours.wait(5) == -signal.SIGTERM and deaf.wait(5) == -signal.SIGKILL
    assert Path(f"/proc/{other}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_kill_gpu_without_anything_to_end(make):
    done = make("kill-gpu")
    assert done.returncode and "nvidia-smi failed" in done.stderr
    program(make.bin / "nvidia-smi", "print('')")
    done = make("kill-gpu", FORCE=1)
    assert done.returncode == 0 and "no process on a GPU" in done.stdout


@pytest.mark.slow
def test_ddp_train_on_the_cpu(make, workbench):
    """Two processes, started, logged and ended by make."""
    log = workbench.folder / "log.txt"
    knobs = {"NGPUS": 2, "BATCH_SIZE": 2, "EVAL_INTERVAL": 3, "DATA_DIR": workbench.data, "CONFIG": workbench.config}
    done = make(
        "ddp-train", **knobs, LOG=log, ARGS=f"--out_dir {workbench.out} --run_name tiny --logging.style compact"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workbench.out / "tiny/checkpoints/step_000006/model.safetensors").exists()
    assert "status:                            completed" in log.read_text()
    assert "n/a (no peak is known for cpu; set peak_tflops to give one) x 2" in log.read_text()  # processes
    assert log.read_text() == done.stdout.partition("\n")[2]


def wait_until(true, seconds=20):
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
