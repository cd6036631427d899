"""A device batch that does not fit into memory is halved before the first step, and the step stays what it was."""

from safetensors.torch import load_file

import exactly
from gpt_core.checkpoint import find_checkpoint
from gpt_core.monitor import read_run

HUNGRY = ("--model.module=hungry.gpt", "--training.max_steps=2", "--training.halve_batch=true", "--max_new_tokens=0")


def weights(run_dir):
    return load_file(find_checkpoint(run_dir) / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def said(run_dir):
    return (run_dir / "log.txt").read_text()


def test_half_of_the_batch_in_twice_the_micro_steps_is_the_run_of_that_batch(shared_workbench):
    bench, small = shared_workbench, ("--training.device_batch_size=2", "--training.halve_batch=false")
    assert bench.pretrain("--run_name=small", *HUNGRY, *small) is None
    assert bench.pretrain("--run_name=halved", *HUNGRY) is None
    assert same(weights(bench.out / "halved"), weights(bench.out / "small")), "dropout and data begin where they were"
    step = "device batch 4 -> 2 sequences, micro-steps 2 -> 4; a step still takes 128 tokens"
    assert step in said(bench.out / "halved")
    training = read_run(bench.out / "halved").start["config"]["training"]
    assert (training["device_batch_size"], training["global_batch_size"]) == (2, 8), "resuming takes it as it is"


def test_all_ranks_halve_where_one_runs_out(shared_workbench, fork_ranks):
    arguments = ["--run_name=ranks", *HUNGRY, "--model.module=hungry.on_rank_1"]
    ended = fork_ranks(shared_workbench.folder, 2, exactly.pretrain, shared_workbench, *arguments)
    assert [rank.code for rank in ended] == [0, 0], ended
    assert "device batch 4 -> 2 sequences, micro-steps 1 -> 2" in said(shared_workbench.out / "ranks")


def test_what_to_try_is_said_where_halving_does_not_help(shared_workbench):
    told = shared_workbench.pretrain("--run_name=told", *HUNGRY, "--training.halve_batch=false")
    assert "out of memory at step 1 with 4 sequences of 16 tokens per micro-step (CUDA out of memory)" in told
    assert "Try training.device_batch_size=2, training.global_batch_size=8 (the same step)" in told
    nothing = shared_workbench.pretrain("--run_name=nothing", *HUNGRY, "--model.module=hungry.starved")
    assert "out of memory with one sequence of 16 tokens per micro-step" in nothing
