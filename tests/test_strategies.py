"""apps/pretrain on two ranks under every strategy, with every optimizer: the weights are those of one process."""

import shutil

import pytest
from safetensors.torch import load_file

import exactly
from gpt_core.checkpoint import find_checkpoint
from gpt_optim import factories

pytestmark = pytest.mark.slow

STRATEGIES = ("zero1", "zero2", "fsdp")
OPTIMIZERS = ("adamw", "muon", "normuon")


def options(optimizer):
    """No dropout, which each rank draws for itself. AdamW's eps keeps the sign of rounding noise from mattering."""
    chosen = [f"--optimizer.module=gpt_optim.{optimizer}", "--dropout=0", "--model.module_kwargs.n_layer=2"]
    if optimizer == "adamw":
        return [*chosen, "--optimizer.module_kwargs.eps=1e-5"]
    exact = {"learning_rate": 0.005, "eps": 1e-5, "orthogonalizer": "newton_schulz", "cautious": False}
    return [*chosen, *(f"--optimizer.module_kwargs.{name}={value}" for name, value in exact.items())]


@pytest.fixture(scope="module")
def single(shared_workbench):
    """out/<optimizer>, by one process."""
    before = dict(factories.ORTHOGONALIZERS)
    exactly.exact_products()
    for optimizer in OPTIMIZERS:
        assert shared_workbench.pretrain(f"--run_name={optimizer}", *options(optimizer)) is None
    yield shared_workbench.out
    factories.ORTHOGONALIZERS.update(before)


@pytest.fixture(scope="module")
def runs(shared_workbench, single, fork_ranks):
    """out/<optimizer>-<strategy>, by two ranks, and out/adamw-shared, which they continue after one process."""
    half_of(single / "adamw", "adamw-shared")
    jobs = [["--run_name=adamw-shared", "--init_from=resume", "--strategy=zero2", *options("adamw")]]
    for strategy in STRATEGIES:
        for optimizer in OPTIMIZERS:
            jobs.append([f"--run_name={optimizer}-{strategy}", f"--strategy={strategy}", *options(optimizer)])
    for arguments in jobs:
        ended = fork_ranks(shared_workbench.folder, 2, exactly.pretrain, shared_workbench, *arguments)
        assert [rank.code for rank in ended] == [0, 0], (arguments, ended)
    return shared_workbench.out


def half_of(run_dir, name):
    """A copy of a run that ended after step 3."""
    copy = shutil.copytree(run_dir, run_dir.parent / name, symlinks=True) / "checkpoints"
    shutil.rmtree(copy / "step_000006")
    (copy / "latest").unlink()
    (copy / "latest").symlink_to("step_000003")


def distance(run_dir, other):
    ours, theirs = (load_file(find_checkpoint(each) / "model.safetensors") for each in (run_dir, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_end_where_one_process_does(runs, single, strategy, optimizer):
    assert distance(runs / f"{optimizer}-{strategy}", single / optimizer) < 1e-6


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_two_ranks_saved_goes_on_in_one_process(runs, single, shared_workbench, strategy, optimizer):
    name = f"{optimizer}-{strategy}-on"
    half_of(runs / f"{optimizer}-{strategy}", name)
    assert shared_workbench.pretrain(f"--run_name={name}", "--init_from=resume", *options(optimizer)) is None
    assert distance(runs / name, single / optimizer) < 1e-6


def test_what_one_process_saved_goes_on_in_two(runs, single):
    assert distance(runs / "adamw-shared", single / "adamw") < 1e-6
