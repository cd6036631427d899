"""The speedrun's optimizer against its rules written out (`speedrun_worker.Rules`), and its known figures."""

import json
import multiprocessing

import pytest
import speedrun_worker as worker
import torch
import torch.multiprocessing as mp
from speedrun_worker import SHAPES, SPLIT, STEPS, Rules, Toy
from torch import nn

import gpt_optim
from gpt_optim import reference

multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"])


@pytest.fixture
def exact(monkeypatch):
    worker.exactly(monkeypatch)


SWITCHES = {
    "record 68": ({}, {}),
    "muon": ({"normuon": False}, {"normuon": False}),
    "decay of all": ({"cautious": False}, {"cautious": False}),
    "newton-schulz": ({"orthogonalizer": "newton_schulz"}, {"iterate": reference.newton_schulz}),
    "adam every step": ({"adam_every": 1}, {"every": 1}),
    "never apart": ({"untie_at": None}, {"split": STEPS}),
    "split at once": ({"untie_at": 0}, {"split": 1}),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_ten_steps_are_those_of_the_rules(exact, name):
    options, of_rules = SWITCHES[name]
    model = Toy()
    optimizer = gpt_optim.speedrun(model, **{"untie_at": SPLIT, **options})
    rules = Rules(dict(model.named_parameters()), **of_rules)
    for step in range(STEPS):
        worker.train(model, optimizer, step, step + 1)
        rules.step(step, worker.gradients(step))
        for label, expected in rules.w.items():
            torch.testing.assert_close(getattr(model, label).detach(), expected, rtol=1e-8, atol=1e-9)


def test_without_a_tie_head_and_embedding_go_their_own_ways(exact):
    model = Toy()
    optimizer = gpt_optim.speedrun(model, tie=False)
    rules = Rules(dict(model.named_parameters()), split=-1)
    worker.train(model, optimizer, 0, STEPS)
    for step in range(STEPS):
        rules.step(step, worker.gradients(step))
    assert worker.distance(model, rules.w) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_even_steps_only_matrices_move(dtype):
    """Assertion 14: gradients wait, and tied weights are equal bit by bit after every odd step."""
    model = Toy(dtype)
    optimizer = gpt_optim.speedrun(model, untie_at=SPLIT)
    for step in range(STEPS):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        worker.set_rates(optimizer, step)
        worker.backward(model, worker.gradients(step))
        waiting = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        for name, p in model.named_parameters():
            matrices = name in ("attn", "mlp")
            unmoved = not matrices and step % 2 == 0
            too_small = dtype == torch.bfloat16 and name in ("smear_gate", "skip_gate")  # for bfloat16 at 8e-5, 4e-4
            assert torch.equal(p, before[name]) == unmoved or too_small, (name, step)
            if step % 2 == 0 and not matrices:
                assert torch.equal(p.grad, waiting[name])
            else:
                assert p.grad is None
        assert torch.equal(model.embed, model.lm_head.T) == (step <= SPLIT + 1)


def test_counts_of_a_whole_run():
    """Assertion 14: 777 updates of the head in 1555 steps, 506 at the split, 271 of the embedding after it."""
    model = nn.Module()
    model.lm_head, model.embed = nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.ones(2, 1))
    optimizer = gpt_optim.speedrun(model, untie_at=1010)
    counts = {}
    for step in range(1555):
        for p in model.parameters():
            p.grad = torch.full_like(p, 1.0 + step % 3) if p.grad is None else p.grad + 1.0
        optimizer.step()
        optimizer.zero_grad()
        if step in (1009, 1010, 1011, 1013, 1554):
            counts[step] = [int(optimizer.state[p]["step"]) for p in (model.lm_head, model.embed)]
    assert counts == {1009: [505, 0], 1010: [505, 0], 1011: [506, 506], 1013: [507, 507], 1554: [777, 506 + 271]}


RATES = {name: (rate, decay) for name, (rate, _, _, decay) in worker.ADAM.items()}
DECAYS = {"value_embed": 0.009, "bigram_embed": 0.009, "lm_head": 4.8e-5, "attn_gate_bank": 3.2e-7, "scalars": 0.0}


@pytest.mark.parametrize("name", DECAYS)
def test_first_adam_update(exact, name):
    """Assertion 13: one learning rate against the gradient's sign, and the decay of entries that shrink anyway."""
    model = Toy()
    optimizer = gpt_optim.speedrun(model, adam_every=1, tie=False)
    p, grads = getattr(model, name), worker.gradients(0)
    grads[name] += 0.1 * grads[name].sign()  # far from eps
    before = p.detach().clone()
    worker.backward(model, grads)
    optimizer.step()
    rate, _ = RATES[name]
    assert rate == next(group["lr"] for group in optimizer.param_groups if group["name"] == name)
    kept = 1 - DECAYS[name] * (before * grads[name] > 0).double()
    torch.testing.assert_close(p.detach(), before * kept - rate * grads[name].sign(), rtol=0, atol=1e-8)


def test_first_normuon_update(exact):
    """Assertions 11 and 13: rows of one length, the norm kept; decay of attn, fc and proj."""
    model = Toy()
    optimizer = gpt_optim.speedrun(model)
    before = {name: getattr(model, name).detach().clone() for name in ("attn", "mlp")}
    grads = worker.gradients(0)
    worker.backward(model, grads)
    optimizer.step()
    for name, rows in (("attn", 8), ("mlp", 32)):
        for i in range(8 if name == "attn" else 4):
            new, old, grad = (
                t.reshape(-1, rows, 8)[i].detach() for t in (getattr(model, name), before[name], grads[name])
            )
            eta = {"attn": 0.023, "mlp": 0.092 if i % 2 else 0.046}[name]
            decay = {"attn": 6.348e-4, "mlp": 2.5392e-3 if i % 2 else 1.2696e-3}[name]
            candidates = [(old * (1 - decay) - new) / eta, (old - new) / eta]  # where it decays, where it does not
            update = torch.where(candidates[0] * old >= 0, *candidates)
            lengths = update.norm(dim=1)
            torch.testing.assert_close(lengths, lengths[:1].expand(rows), rtol=1e-6, atol=0)
            torch.testing.assert_close(update.norm(), Rules.polar(grad).norm(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["attn", "mlp"])
def test_bfloat16_banks_are_truncated_float32_ones(name):
    """Assertion 12, through the whole optimizer: with 16 more bits nothing is lost; without them it is."""
    models = [Toy(torch.bfloat16), Toy(torch.float32), Toy(torch.bfloat16)]
    with torch.no_grad():
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            q.copy_(p)
    optimizers = [gpt_optim.speedrun(model, mantissa=i < 2) for i, model in enumerate(models)]
    for step in range(STEPS):
        for model, optimizer in zip(models, optimizers, strict=True):
            worker.set_rates(optimizer, step)
            worker.backward(model, {k: g.bfloat16() for k, g in worker.gradients(step).items()})
            optimizer.step()
            optimizer.zero_grad()
    high, wide, rounded = (getattr(model, name).detach() for model in models)
    low = optimizers[0].state[getattr(models[0], name)]["low_bits"].view(high.shape)
    assert torch.equal(reference.join_master(high, low), wide)
    assert torch.equal(high, reference.split_master(wide)[0])
    assert not torch.equal(rounded, high) and "low_bits" not in optimizers[2].state[getattr(models[2], name)]


def test_orders_are_the_records():
    optimizer = gpt_optim.speedrun(Toy())
    small = ["scalars", "smear_gate", "skip_gate", "attn_gate_bank", "ve_gate_bank", "x0_lambdas"]
    tables = ["value_embed", "bigram_embed"]
    assert optimizer.reduce_order == ["attn", "mlp", "scalars", *tables, *small[1:], "lm_head", "embed"]
    assert optimizer.work_order == [*small, *tables, "lm_head", "embed", "attn", "mlp"]


def test_reductions_start_and_work_goes_on_in_these_orders(monkeypatch):
    model = Toy()
    optimizer = gpt_optim.speedrun(model, untie_at=1)
    seen = []
    for unit in optimizer._units:
        for what, to in ((unit.bucket, "start"), (unit, "update"), (unit.bucket, "finish")):
            original, name = getattr(what, to), unit.group["name"]
            monkeypatch.setattr(what, to, lambda *a, o=original, n=name, t=to: (seen.append((t, n)), o(*a))[1])
    worker.train(model, optimizer, 0, 2)
    odd = seen[6:]  # the first step had the matrices alone
    assert [name for what, name in seen[:6] if what == "start"] == ["attn", "mlp"]
    assert [n for what, n in odd if what == "start"] == [n for n in optimizer.reduce_order if n != "embed"]
    assert [n for what, n in odd if what == "update"] == [n for n in optimizer.work_order if n != "embed"]
    assert next(n for what, n in odd if what == "finish") == "lm_head", "the embedding is waiting for it"


def test_parameters_without_a_rule_are_named():
    model = Toy()
    model.register_parameter("extra", nn.Parameter(torch.ones(3)))
    with pytest.raises(ValueError, match="no rule for extra; it knows attn, "):
        gpt_optim.speedrun(model)
    with pytest.raises(ValueError, match="orthogonalizer must be one of"):
        gpt_optim.speedrun(Toy(), orthogonalizer="svd")


def test_labels_of_the_later_records():
    """Names as the records have them; queries and keys by pairs of heads (80), lambdas of sublayers (73)."""
    model = nn.Module()
    shapes = {"qk_bank": (6, 4, 8), "vo_bank": (4, 8, 8), "mlp_bank": (2, 2, 32, 8), "value_embeds": (30, 8)}
    shapes |= {"resid_lambdas": (3, 2), "x0_lambdas": (3,), "_mudd_gate_scale": (), "mudd_w1": (2, 4, 8)}
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.randn(shape)))
    optimizer = gpt_optim.speedrun(model, normuon_beta2=0.9)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: group["kind"] for name, group in groups.items()} == {
        **dict.fromkeys(("qk", "vo", "mlp"), "normuon"),
        **dict.fromkeys(("resid_lambdas", "x0_lambdas", "mudd_gate_scale", "mudd_w1", "value_embed"), "adamw"),
    }
    assert groups["x0_lambdas"]["lr"] == 0.008 and groups["resid_lambdas"]["lr"] == 0.04
    assert groups["mudd_gate_scale"]["weight_decay"] == 0 and groups["mudd_w1"]["lr"] == 0.002
    assert groups["qk"]["matrix_rows"] is None and groups["qk"]["beta2"] == 0.9
    assert optimizer.state[model.qk_bank]["second_moment_0"].shape == (6, 1, 1, 8), "wide: one mean for each column"
    assert optimizer.state[model.vo_bank]["second_moment_0"].shape == (4, 1, 8, 1)
    assert optimizer.work_order[-3:] == ["qk", "vo", "mlp"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What each rank found, on 2 and on 4 processes; those on 2 leave checkpoints."""
    folder, found = tmp_path_factory.mktemp("speedrun"), {}
    for world in (2, 4):
        mp.start_processes(worker.main, (world, str(folder)), world, start_method="forkserver")
        found[world] = [json.loads((folder / f"report_{world}_{rank}.json").read_text()) for rank in range(world)]
    return folder, found


@pytest.mark.parametrize("world", [2, 4])
def test_the_same_weights_on_many_processes(reports, world):
    for report in reports[1][world]:
        assert report["end"] < 1e-8
        assert report["identical"], "ranks differ in some bit"
        assert report["ties"] == [step <= SPLIT + 1 for step in range(STEPS)]


@pytest.mark.parametrize("world", [2, 4])
def test_the_embedding_gets_the_heads_moments_across_shards(reports, world):
    assert all(report["moments"] and report["counts"] == [3, 3] for report in reports[1][world])
    assert sum(report["bytes"] for report in reports[1][world]) < 1.2 * gpt_optim.speedrun(Toy()).expected_state_bytes()


def test_saved_on_two_processes_and_resumed_on_four(reports):
    for report in reports[1][4]:
        assert report["resumed_4"] < 1e-8 and report["resumed_8"] < 1e-8


@pytest.mark.parametrize("saved", [4, 8])
def test_saved_on_two_processes_and_resumed_on_one(exact, reports, saved):
    model, optimizer = worker.shared(1)
    rules = Rules(dict(model.named_parameters()))
    for step in range(STEPS):
        found = [worker.gradients(step, share) for share in range(4)]
        rules.step(step, {name: sum(f[name] for f in found) / 4 for name in SHAPES})
    worker.resume(model, optimizer, reports[0] / f"saved_{saved}")
    worker.train(model, optimizer, saved, STEPS, range(4))
    assert worker.distance(model, rules.w) < 1e-8


@pytest.mark.parametrize("world", [2, 4])
def test_gradients_of_bigrams_by_rows(reports, world):
    """As the whole gradient, though a rank has no row to send: at most ten rows each, of two steps that add up."""
    for wide, narrow in (report["sparse"] for report in reports[1][world]):
        assert wide[0] < 1e-12 and wide[2] and narrow[2]
        assert narrow[0] < 0.05, "sums are rounded once instead of at every rank"
    for i in range(2):
        sent = sum(report["sparse"][i][1] for report in reports[1][world])
        assert 0 < sent <= 2 * 10 * world < worker.SHAPES["bigram_embed"][0]
