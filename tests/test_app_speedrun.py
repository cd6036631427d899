"""apps/speedrun as a user runs it: stages, resuming, ranks, the warm-up, and everything that can be asked wrongly."""

import re
import shutil

import pytest

import exactly
from gpt_core.checkpoint import find_checkpoint
from gpt_core.config import load_config
from gpt_core.training.accumulation import plan_batches
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.stages import Stages
from gpt_optim import factories
from scripting import call, printed
from speedruns import APP, Speedrun, train_and_end, train_on_ranks


@pytest.fixture(scope="module")
def speedrun(tmp_path_factory):
    """With out/whole, seven steps over two boundaries and the extension, in exact products."""
    made = Speedrun(tmp_path_factory.mktemp("speedrun"))
    before = dict(factories.ORTHOGONALIZERS)
    exactly.exact_products()
    assert made.train("whole", *EXACT) is None
    yield made
    factories.ORTHOGONALIZERS.update(before)


EXACT = ["--optimizer.module_kwargs.orthogonalizer=newton_schulz", "--logging.log_every=1"]


def test_tokens_and_windows_follow_the_stages(speedrun):
    tokens = [row["train/tokens"] for row in speedrun.metrics("whole") if "train/tokens" in row]
    per_step = [b - a for a, b in zip([0, *tokens], tokens, strict=False)]
    assert per_step == [4 * 16 * rows for rows in (1, 1, 2, 2, 3, 3, 3)]
    # short, long, the window that positions are stretched for: the final widening stretches nothing
    assert speedrun.weights("whole")["rotary.numbers"].tolist()[:3] == [12, 40, 26]


def test_a_run_that_is_resumed_within_a_stage_ends_where_a_whole_one_does(speedrun):
    assert speedrun.train("half", *EXACT, "--checkpoint.save_every=4", "--checkpoint.keep_last=0") is None
    folder = speedrun.out / "half" / "checkpoints"
    shutil.rmtree(folder / "step_000007")
    (folder / "latest").unlink()
    (folder / "latest").symlink_to("step_000004")
    assert speedrun.train("half", *EXACT, "--init_from=resume") is None
    same(speedrun, "half", "whole")
    assert "had kept gradients" not in (speedrun.out / "half" / "log.txt").read_text(encoding="utf-8")
    assert speedrun.train("half", *EXACT, "--init_from=resume", "--training.max_steps=8") is None
    said = (speedrun.out / "half" / "log.txt").read_text(encoding="utf-8")
    assert "the optimizer had kept gradients of 1 step(s) before step 7" in said


@pytest.mark.slow
def test_a_run_that_is_ended_in_every_stage_is_the_run_that_is_not(speedrun, fork):
    """Stages of four steps and an extension of three; the embedding parts from the head after step 9."""
    long = [*EXACT, "--training.max_steps=15", "--stages.extension_steps=3", "--checkpoint.save_every=2"]
    assert speedrun.train("long", *long) is None
    ends = [(3, "SIGKILL", -9, 2), (7, "SIGKILL", -9, 6), (10, "SIGINT", 0, 12), (13, "SIGKILL", -9, 12)]
    for step, name, code, saved in ends:
        more = ["--init_from=resume"] if step > 3 else []
        ended = fork(speedrun.folder, train_and_end, speedrun, step, name, "ended", *long, *more)
        assert ended.code == code, ended
        assert find_checkpoint(speedrun.out / "ended").name == f"step_{saved:06}"
    assert speedrun.train("ended", *long, "--init_from=resume") is None
    same(speedrun, "ended", "long")


def test_the_warm_up_takes_its_steps_and_leaves_no_trace(speedrun, monkeypatch):
    from gpt_optim import MuonAdamW

    taken, step = [], MuonAdamW.step
    monkeypatch.setattr(MuonAdamW, "step", lambda self: (taken.append(self.param_groups[0]["step"]), step(self)))
    assert speedrun.train("warmed", *EXACT, "--stages.warm_up=true") is None
    assert taken == 2 * list(range(7))
    said = (speedrun.out / "warmed" / "log.txt").read_text(encoding="utf-8")
    assert "warm-up: steps 0, 1, 2, 3, 4, 5, 6 " in said
    same(speedrun, "warmed", "whole")
    whole, warmed = ([row for row in speedrun.metrics(name) if "val/loss" in row] for name in ("whole", "warmed"))
    assert [row["val/loss"] for row in warmed] == [row["val/loss"] for row in whole]


def same(speedrun, name, other):
    ours, theirs = speedrun.weights(name), speedrun.weights(other)
    assert ours.keys() == theirs.keys()
    assert not [key for key in ours if not ours[key].equal(theirs[key])]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_end_where_one_process_does(speedrun, fork_ranks, size):
    name = f"ranks{size}"
    ended = fork_ranks(speedrun.folder, size, train_on_ranks, speedrun, name, *EXACT)
    assert [rank.code for rank in ended] == [0] * size, ended
    ours, theirs = speedrun.weights(name), speedrun.weights("whole")
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 2e-5


def test_lines_are_those_of_the_records_logs(speedrun, capsys):
    assert speedrun.train("logged", "--training.max_steps=7", "--logging.log_every=4") is None
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step:")]
    assert [line.split()[0] for line in lines] == ["step:0/7", "step:4/7", "step:7/7", "step:7/7"]
    assert lines[0].split()[1:] == [lines[0].split()[1], "train_time:0ms", "step_avg:0.00ms"]
    time, average = (float(part.split(":")[1].removesuffix("ms")) for part in lines[-1].split()[-2:])
    assert lines[-1].split()[1].startswith("val_loss:") and average == pytest.approx(time / 7, abs=0.1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.module_kwargs.half_rotary=false"], "key_offset needs half_rotary"),
        (["--loss.module_kwargs.fp8=true"], "float8 needs a GPU .* switch it off by loss.module_kwargs.fp8=false"),
        (["--model.module_kwargs.fp8_mlp=up"], r"float8 needs a GPU .* found general\.device=cpu"),
        (["--stages.windows=[[1,3],[3,7]]"], "stages.windows has 2 values for 3 stages"),
        (["--model.module_kwargs.window_long=8"], "long window of 6 .* one of 8"),
        (["--scheduler.module=gpt_optim.schedules.warmup_stable_decay"], "takes no factors"),
        (["--scheduler.module_kwargs.factors=[1,2,3]"], "say the same thing twice"),
        (["--data.module=gpt_data.random_windows", "--data.module_kwargs={dataset: tiny}"], "has no resize"),
        (["--training.max_steps=3"], "a stage would have none"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(speedrun, more, message):
    name = f"wrong-{abs(hash(message))}"
    said = speedrun.train(name, *more)
    assert isinstance(said, str) and said.startswith("error: ") and re.search(message, said), said
    assert not (speedrun.out / name).exists()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_step_has_as_many_tokens_on_any_number_of_gpus(record, size):
    stages, training = record.section("stages"), record.section("training")
    plan = plan_batches(training, size)
    assert plan.micro_steps * size == 8
    assert [plan.tokens // training.device_batch_size * rows for rows in stages.device_batch_size] == [
        131_072,
        262_144,
        393_216,
    ]


@pytest.mark.parametrize("size", [3, 5, 6, 7, 16])
def test_numbers_of_gpus_that_do_not_divide_eight_are_refused(record, size):
    with pytest.raises(ValueError, match=f"8 cannot be shared by {size} processes"):
        plan_batches(record.section("training"), size)


def test_slurm_gets_a_job_for_each_seed_by_options_or_variables(tmp_path):
    wanted = ["speedrun-68", "--general.run_name=speedrun-68-seed2", "--general.seed=2", "--training.max_steps=20"]
    options = ("--gpus", 4, "--gpu-type", "h100", "--seeds", 2)
    variables = {"GPUS": "4", "GPU_TYPE": "h100", "SEEDS": "2"}
    for given, environment in ((options, {}), ((), variables)):
        more = ("--dry-run", "--", "--training.max_steps=20")
        done = call("slurm/speedrun.sh", *given, *more, cwd=tmp_path, **environment)
        assert done.stdout.count("\nsbatch ") == 2
        commands = printed(done)  # of the last seed
        assert commands["sbatch"].count("--gpus-per-node=h100:4") == 1 and "--ntasks-per-node=4" in commands["sbatch"]
        assert commands["python"][2:] == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", 3], "--gpus is '3': the eight micro-batches of a step are shared by 1, 2, 4 or 8"),
        (["--seeds", 0], "--seeds is '0', expected a whole number of at least 1"),
        (["speedrun-89"], "'speedrun-89' stands before --"),
    ],
)
def test_a_slurm_job_that_could_not_run_is_not_submitted(tmp_path, arguments, message):
    done = call("slurm/speedrun.sh", *arguments, "--dry-run", cwd=tmp_path)
    assert done.returncode and message in done.stderr and not done.stdout


@pytest.mark.slow
def test_ranks_that_do_not_divide_eight_are_refused_before_anything_is_built(speedrun, fork_ranks):
    ended = fork_ranks(
        speedrun.folder, 3, train_on_ranks, speedrun, "three", "--training.gradient_accumulation_steps=8"
    )
    assert all(rank.code for rank in ended)
    assert any("8 cannot be shared by 3 processes" in rank.stdout + rank.stderr for rank in ended)


@pytest.mark.parametrize(("place", "value", "message"), [(0, 1, "begins with 1"), (1, 2, "is of version 2")])
def test_a_shard_that_is_none_is_refused(tmp_path, place, value, message):
    import numpy as np

    from gpt_data.shard_header import MAGIC, VERSION, read_header

    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, VERSION, 4
    header[place] = value
    file = tmp_path / "fineweb_train_000001.bin"
    file.write_bytes(header.tobytes() + np.arange(4, dtype="<u2").tobytes())
    with pytest.raises(ValueError, match=message):
        read_header(file)


@pytest.fixture(scope="module")
def record():
    return load_config([str(APP / "configs/speedrun-68.yaml")], schema=SCHEMA, config_dirs=[APP / "configs"])


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        *((0, 1.0), (504, 1.0), (505, 1.52), (681, 1.52), (682, 1.518297), (750, 1.402518), (1009, 0.961535)),
        *((1010, 1.086990), (1262, 0.594472), (1514, 0.101954), (1515, 0.1), (1554, 0.1)),
    ],
)
def test_learning_rate_of_record_68(record, step, rate):
    stages = Stages(record.section("stages"), record.section("training").max_steps)
    schedule = record.component("scheduler").build(**stages.schedule_arguments())
    assert schedule(step) == pytest.approx(rate, abs=5e-7)


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 0.85), (150, 0.90), (250, 0.933333), (300, 0.95), (1505, 0.95), (1514, 0.932), (1554, 0.852)],
)
def test_momentum_of_record_68(record, step, value):
    schedule = record.component("momentum_scheduler").build(max_steps=record.section("training").max_steps)
    assert schedule(step) == pytest.approx(value, abs=5e-7)


RECORDS = {  # scheduled and extension steps, beginnings of the second and the third stage, parameters
    "68": (1515, 40, 505, 1010, 543_818_890),
    "70": (1507, 40, 502, 1005, 543_818_890),
    "72": (1490, 40, 497, 993, 543_818_890),
    "73": (1450, 40, 483, 967, 543_818_945),
    "77": (1450, 40, 483, 967, 543_818_923),
    "80": (1440, 40, 480, 960, 546_964_651),
    "82": (1375, 10, 458, 917, 547_064_840),
    "86": (1285, 15, 428, 857, 643_751_335),
    "89": (1270, 15, 423, 847, 643_751_335),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_have_their_steps_and_sizes(name, monkeypatch):
    import torch

    from gpt_core.models import speedrun as models

    monkeypatch.setattr(models.model, "check_fp8", lambda *_: None, raising=False)
    path = APP / f"configs/speedrun-{name}.yaml"
    config = load_config([str(path), "--model.module_kwargs.fp8_mlp=off"], schema=SCHEMA, config_dirs=[APP / "configs"])
    scheduled, extension, second, third, parameters = RECORDS[name]
    stages = Stages(config.section("stages"), config.section("training").max_steps)
    assert (stages.scheduled, stages.max_steps - stages.scheduled) == (scheduled, extension)
    assert stages.boundaries == [second, third] and stages.optimizer_arguments() == {"untie_at": third}
    with torch.device("meta"):
        model = config.component("model").build(vocab_size=50257, context_length=2048)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.config.backout  # with MUDD it is where one of its factors starts: no parameter tells


@pytest.mark.slow
def test_a_signal_in_the_warm_up_ends_the_run(speedrun, monkeypatch):
    """It is not forgotten with what the warm-up puts back: the run ends after its first whole update."""
    import signal

    from gpt_core.training import stage_warm_up

    def ask(self, state):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(stage_warm_up._ForwardOnce, "on_end", ask)
    assert speedrun.train("stopped", *EXACT, "--stages.warm_up=true") is None
    said = (speedrun.out / "stopped" / "log.txt").read_text(encoding="utf-8")
    assert "warm-up: steps 0 in" in said and "run interrupted" in said
    assert [row["step"] for row in speedrun.metrics("stopped") if "train/loss" in row][-1] == 2
