"""From a base model to one that answers: three commands, their records, and what is refused before it costs."""

import json
from functools import partial

import pytest
import yaml

import exactly
from gpt_core.checkpoint import find_checkpoint, load_model, read_meta
from gpt_core.training.midtraining import load_midtraining
from gpt_data import packed_chat, prepare
from workbench import Workbench
from workspace import ROOT

SIZES = ["--dataset=bytes", "--n_embd=32", "--dropout=0", "--context_length=32", "--learning_rate=1e-2"]
PING = [{"role": "user", "content": "ping"}, {"role": "assistant", "content": "pong"}]
BYE = [{"role": "user", "content": "bye"}, {"role": "assistant", "content": "see you"}]
PONG = [{"role": "user", "content": "pong"}, {"role": "assistant", "content": "ping ping"}]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A base model of bytes, out/base, and a file of conversations."""
    bench = Workbench(tmp_path_factory.mktemp("midtrain"))
    prepare("text", [bench.folder / "text.txt"], tokenizer="byte", out=bench.folder / "data/bytes", quiet=True)
    rows = [{"messages": said, "number": i} for i in range(8) for said in (PING, PONG, BYE)]
    (bench.folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench.pretrain("--run_name=base", *SIZES) is None
    assert (
        bench.app("prepare", "chat", bench.folder / "talks.jsonl", "--tokenizer", bench.out / "base/tokenizer") is None
    )
    return bench


def midtrain(bench, *arguments):
    return bench.app("midtrain", "--checkpoint", bench.out / "base", "--data", bench.folder / "data/talks", *arguments)


def test_three_commands_make_a_model_that_answers_and_stops(bench, capsys):
    """Prepare (in the fixture), midtrain, chat."""
    assert midtrain(bench, "--run_name=talk", "--max_steps=80", "--eval_interval=0") is None
    capsys.readouterr()
    assert bench.app("chat", bench.out / "talk", "--prompt", "ping", "--temperature", 0, "--max_new_tokens", 20) is None
    assert capsys.readouterr().out.strip() == "pong"


def test_a_run_says_what_it_is_and_inherits_the_first_ones_settings(bench):
    assert midtrain(bench, "--run_name=epoch", "--epochs=1", "--warm-start-optimizer=momenta", "--no-evals") is None
    run = bench.out / "epoch"
    meta = read_meta(find_checkpoint(run))
    rows = packed_chat(bench.folder / "data/talks", 32, 1).train.batches_per_epoch
    assert (meta["template"], meta["phase"], meta["step"]) == ("chatml", "mid-training", round(rows / 8))
    assert (meta["val_loss"], read_meta(find_checkpoint(bench.out / "base"))["phase"]) == (None, "pretraining")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (
        config["optimizer"]["module_kwargs"] | {"learning_rate": 1e-2, "weight_decay": 0.0}
        == (config["optimizer"]["module_kwargs"])
    )
    assert config["training"]["global_batch_size"] == 8 and config["general"]["init_from"] == str(bench.out / "base")
    assert load_model(find_checkpoint(run)).config.vocab_size == 269
    log = (run / "log.txt").read_text()
    assert "9 new tokens, ids 260 to 268 (9 rows more)" in log and "begins with the state of" in log

    assert (
        bench.app("midtrain", f"--out_dir={bench.out}", "--run_name=epoch", "--init_from=resume", "--max_steps=9")
        is None
    )
    assert read_meta(find_checkpoint(run))["step"] == 9
    assert "already holds the checkpoints of another run" in midtrain(bench, "--run_name=epoch")


def test_what_is_the_second_trainings_own(tmp_path):
    """The base's settings stay but for those that mean another training; the command line has the last word."""
    base = tmp_path / "config.yaml"
    kept = "eval: {core_every: 7, bundle: somewhere}\nscaling: {total_batch_size: 64}\ngeneral: {seed: 5, run_name: x}"
    base.write_text(f"__include__: weights.yaml\n{kept}\nmomentum_scheduler: {{module: gpt_optim.schedules.momentum}}")
    load = partial(load_midtraining, config_dirs=[ROOT / "apps/midtrain/configs"], base=base)
    config = load(["--run-chatcore-evals", "--loss-on", "assistant"])
    wanted, general = config.section("eval"), config.section("general")
    assert (wanted.bundle, wanted.core_every, wanted.chatcore_every) == ("somewhere", 0, -1)
    assert (general.seed, general.run_name, general.phase) == (5, None, "mid-training")
    assert config.component("momentum_scheduler") is None and not config.section("scaling").is_active
    assert config.component("data").kwargs["loss_on"] == "mask"
    assert load(["--loss-on=all", "--weight_decay=0.3"]).component("optimizer").kwargs["weight_decay"] == 0.3


def test_text_makes_a_model_that_continues_it(bench):
    data = bench.folder / "data/bytes"
    arguments = ["text", "--checkpoint", bench.out / "base", "--data", data, "--run_name=text", "--max_steps=2"]
    assert bench.app("midtrain", *arguments) is None
    assert read_meta(find_checkpoint(bench.out / "text"))["template"] is None


def test_nothing_to_start_from_ends_with_status_2(bench, capsys):
    assert bench.app("midtrain") == bench.app("pretrain", "--mode=mid-training") == 2
    assert bench.app("midtrain", "--checkpoint", bench.folder / "nowhere") == 2
    said = capsys.readouterr().err
    assert said.count("name one with --checkpoint RUN") == 2 and "nowhere: init_from=" in said


def test_ids_that_would_change_their_meaning_are_refused(bench):
    """The tiny corpus has characters of its own: fewer than the base has bytes, so sizes would not tell."""
    error = bench.app(
        "midtrain", "text", "--checkpoint", bench.out / "base", "--data", bench.data, "--run_name=no", "--max_steps=1"
    )
    assert "does not extend the one that the weights were trained with, 'byte'" in error


def test_all_is_one_after_the_other_and_looks_at_the_second_first(bench):
    second = ["--mode", "all", "--mid.data", bench.folder / "data/talks", "--mid.run_name=second"]
    error = bench.pretrain("--run_name=first", "--max_steps=2", *SIZES, *second, "--mid.max_stepps=2")
    assert "unknown key 'max_stepps'" in error and not (bench.out / "first").exists()
    error = bench.pretrain("--run_name=first", "--max_steps=2", *SIZES[1:], *second)
    assert "does not extend" in error and not (bench.out / "first").exists()
    assert (
        bench.pretrain("--run_name=first", "--max_steps=2", *SIZES, *second, "--mid.max_steps=2", "--no-evals") is None
    )
    metas = [read_meta(find_checkpoint(bench.out / name)) for name in ("first", "second")]
    assert [(meta["phase"], meta["val_loss"]) for meta in metas] == [("pretraining", None), ("mid-training", None)]
    assert f"--general.init_from={bench.out / 'first'}" in (bench.out / "second/command.sh").read_text()
    assert "is of mid-training" in bench.app("pretrain", f"--checkpoint={bench.out / 'second'}")
    assert bench.app("pretrain", f"--checkpoint={bench.out / 'first'}", "--max_steps=3") is None
    assert read_meta(find_checkpoint(bench.out / "first"))["step"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "both"], "--mode is 'both', expected one of pretraining, mid-training, all"),
        (["--mid.data", "talks"], "--data: only --mode all takes what is for its second part, not pretraining"),
        (["--mode"], "--mode needs a value"),
    ],
)
def test_modes_that_make_no_sense(bench, arguments, message):
    assert message in bench.app("pretrain", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp"])
def test_a_warm_start_does_not_depend_on_who_held_the_moments(bench, fork_ranks, strategy):
    """A part of them is on each of two ranks, in the first training or in the second; the vocabulary grows by rows that
    neither had."""

    def on_two_ranks(*arguments):
        ended = fork_ranks(bench.folder, 2, exactly.app, bench, *arguments, f"--strategy={strategy}")
        assert [rank.code for rank in ended] == [0, 0], ended

    def weights(name):
        return load_model(find_checkpoint(bench.out / name)).state_dict()

    wanted = ["--max_steps=3", "--no-evals", "--warm-start-optimizer=momenta", f"--data={bench.folder / 'data/talks'}"]
    warm = ["midtrain", *wanted, f"--out_dir={bench.out}"]
    on_two_ranks("pretrain", *bench.arguments("--run_name=base-" + strategy, *SIZES))
    on_two_ranks(*warm, "--checkpoint=base", f"--run_name=second-{strategy}")
    assert bench.app(*warm, f"--checkpoint=base-{strategy}", f"--run_name=first-{strategy}") is None
    assert bench.app(*warm, "--checkpoint=base", f"--run_name=neither-{strategy}") is None
    alone = weights(f"neither-{strategy}")
    for name in (f"first-{strategy}", f"second-{strategy}"):
        found = weights(name)
        assert max(float((found[key] - alone[key]).abs().max()) for key in alone) < 1e-4, name
