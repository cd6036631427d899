"""Every strategy on 2, 3 and 4 processes against one: weights, clipping, state, checkpoints between process counts."""

import json
import multiprocessing

import pytest
import sharding_worker as worker
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gpt_optim import DistAdamW, DistMuonAdamW, MuonAdamW, ZeroOne

SAVED_ON = 2


def slow_beyond_two(*parameters):
    """Cases whose number of processes, which comes last, is more than 2 are slow."""
    worlds = [each[-1] if isinstance(each, tuple) else each for each in parameters]
    return [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=[pytest.mark.slow] if world > 2 else [])
        for each, world in zip(parameters, worlds, strict=True)
    ]


# The processes fork from one that has imported already what costs most of their start.
multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"])


class Reports:
    """What each rank found, by number of processes; each number is started when first asked for."""

    def __init__(self, folder):
        self.folder, self.found = folder, {}

    def __getitem__(self, world):
        if world not in self.found:
            resume_from = SAVED_ON if world != SAVED_ON and self[SAVED_ON] else None
            arguments = (world, str(self.folder), resume_from)
            (self.folder / f"rendezvous_{world}").unlink(missing_ok=True)  # a start that failed leaves it
            mp.start_processes(worker.main, arguments, world, start_method="forkserver")
            files = [self.folder / f"report_{world}_{rank}.json" for rank in range(world)]
            self.found[world] = [json.loads(file.read_text()) for file in files]
        return self.found[world]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("distributed"))


CASES = [(s, w) for s in worker.STRATEGIES for w in worker.WORLDS[s]]


@pytest.mark.parametrize(("strategy", "world"), slow_beyond_two(*CASES))
def test_the_same_weights_as_one_process(reports, world, strategy):
    for found in (report[strategy] for report in reports[world]):
        assert found["identical"], "ranks differ in some bit"
        assert found["end"] < 1e-6 and found["middle"] < 1e-6
        assert found["norms"] < 1e-5, "the norm is that of the averaged gradients"


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp", "ZeroOne rows"])
@pytest.mark.parametrize("world", slow_beyond_two(3, 4))
def test_saved_on_two_processes_and_resumed_on_more(reports, world, strategy):
    assert all(report[strategy]["resumed"] < 1e-6 for report in reports[world])


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp"])
def test_saved_on_two_processes_and_resumed_on_one(reports, strategy):
    assert reports[SAVED_ON]
    model = worker.Model(bank=strategy != "fsdp")
    optimizer = worker.mixed(model, clip_muon=strategy in worker.CLIP_MUON)
    worker.resume(model, optimizer, reports.folder / f"{strategy}_{SAVED_ON}")
    worker.train(model, optimizer, worker.SAVED_AFTER, worker.STEPS)
    *_, end, _, _ = worker.alone(strategy)
    assert worker.distance(model, end) < 1e-6


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp"])
@pytest.mark.parametrize("world", slow_beyond_two(2, 3, 4))
def test_state_bytes_follow_the_formula(reports, world, strategy):
    by_rank = [report[strategy]["bytes"] for report in reports[world]]
    assert all(measured == expected for measured, expected, _ in by_rank)
    everywhere = bytes_on_every_rank(strategy)
    alone = by_rank[0][2] - everywhere
    assert sum(measured - everywhere for measured, _, _ in by_rank) == alone, "each of the rest has one owner"


@pytest.mark.parametrize("world", slow_beyond_two(2, 3, 4))
def test_special_cases_are_those_of_one_process(reports, world):
    for report in reports[world]:
        assert report["layouts"] < 1e-6
        assert report["bfloat16"], "bit by bit"
        assert report["torch's loader"]


def bytes_on_every_rank(strategy):
    """AdamW's step counters, and under ZeRO the moments of small tensors."""
    groups = [g for g in worker.mixed(worker.Model(bank=strategy != "fsdp")).param_groups if g["kind"] == "adamw"]
    params = [p for g in groups for p in g["params"]]
    small = sum(8 * p.numel() for p in params if p.numel() < 1024)
    return 4 * len(params) + (0 if strategy == "fsdp" else small)


def test_owners_of_twelve_matrices_on_eight_ranks():
    """Counts and bytes of nanochat's depth-12 model (spec scaling 2c and 9.10), without any process."""
    from gpt_optim.ranks import Ranks

    class Eight(Ranks):
        size, rank = 8, 0

    assert Eight().shares(12) == [2, 2, 2, 2, 2, 2, 0, 0]
    assert Eight().shares(131) == [17] * 7 + [12]
    square, rectangle = 768 * 768, 768 * 3072
    chunks = Eight().chunk(48) * square + 2 * Eight().chunk(12) * rectangle
    assert chunks == 12_976_128


def test_without_processes_the_distributed_classes_are_the_plain_ones():
    assert not dist.is_initialized()
    plain, shared = nn.Linear(8, 8), nn.Linear(8, 8)
    shared.load_state_dict(plain.state_dict())
    rules = lambda model: [{"params": [model.weight]}, {"params": [model.bias], "kind": "adamw", "lr": 0.01}]
    one = MuonAdamW(rules(plain), orthogonalize=worker.ORTHOGONALIZE)
    other = DistMuonAdamW(rules(shared), orthogonalize=worker.ORTHOGONALIZE)
    for model, optimizer in ((plain, one), (shared, other)):
        model(torch.arange(8.0)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), shared.parameters(), strict=True))
    assert DistAdamW(plain.parameters()).param_groups[0]["kind"] == "adamw"


def test_zero_one_refuses_what_it_would_get_wrong():
    matrix = nn.Parameter(torch.ones(4, 4))
    with pytest.raises(ValueError, match="Muon needs parameters whole: use granularity='tensors'"):
        ZeroOne([matrix], torch.optim.Muon)
    with pytest.raises(ValueError, match="granularity must be"):
        ZeroOne([matrix], torch.optim.SGD, granularity="columns", lr=0.1)


def test_zero_one_takes_any_optimizer_and_its_changing_rates():
    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    plain = torch.optim.SGD(models[0].parameters(), lr=0.1, momentum=0.9)
    ours = ZeroOne(models[1].parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    for step in range(3):
        for model, optimizer in zip(models, (plain, ours), strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True))
