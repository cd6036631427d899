"""Gradient statistics, stability and memory against direct computation."""

import math
from mmap import mmap

import pytest
import sharded_gradients
import torch
from torch import nn

from gpt_core.monitor import StabilityMonitor, gradient_stats, memory_stats
from gpt_core.monitor.gradients import layer_of


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Linear(5, 7), "blocks": nn.ModuleList([nn.Linear(7, 7), nn.Linear(7, 3)])})
    x = model["embed"](torch.randn(11, 5))
    for block in model["blocks"]:
        x = block(x)
    (100 * x.square().mean()).backward()
    return model


def test_statistics_equal_direct_computation(model):
    stats = gradient_stats(model.named_parameters())
    grads = [p.grad.double() for p in model.parameters()]
    values = torch.cat([grad.flatten() for grad in grads])
    norms = torch.stack([grad.norm() for grad in grads])
    expected = {
        "global_norm": values.norm(),
        "mean_norm": norms.mean(),
        "max_norm": norms.max(),
        "min_norm": norms.min(),
        "value_mean": values.mean(),
        "value_std": values.std(correction=0),
        "value_min": values.min(),
        "value_max": values.max(),
    }
    assert {k: v for k, v in stats.items() if k != "layers"} == pytest.approx(
        {k: float(v) for k, v in expected.items()}
    )
    assert set(stats["layers"]) == {"embed", "blocks.0", "blocks.1"}
    first = torch.cat([p.grad.flatten() for p in model["blocks"][0].parameters()]).norm()
    assert stats["layers"]["blocks.0"] == pytest.approx(float(first))


def test_global_norm_is_the_one_that_clipping_returns(model):
    stats = gradient_stats(model.named_parameters())
    assert stats["global_norm"] == pytest.approx(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)), rel=1e-5)


def test_missing_gradients_are_skipped(model):
    everything = gradient_stats(model.named_parameters())
    model["unused"] = nn.Linear(9, 9)
    assert gradient_stats(model.named_parameters()) == everything
    model.zero_grad(set_to_none=True)
    assert gradient_stats(model.named_parameters()) == {}


def test_half_precision_gradients_do_not_overflow():
    parameter = nn.Parameter(torch.zeros(64, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 1000.0)  # its square is not a float16
    assert gradient_stats([("w", parameter)])["global_norm"] == pytest.approx(8000.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradients_show(model, bad):
    model["embed"].weight.grad[0, 0] = bad
    stats = gradient_stats(model.named_parameters())
    assert not math.isfinite(stats["global_norm"])
    assert not math.isfinite(stats["max_norm"])
    assert not math.isfinite(stats["layers"]["embed"])
    assert math.isfinite(stats["layers"]["blocks.1"])  # which layer broke is the point of layer norms


def test_sharded_gradients_give_the_numbers_of_one_process(tmp_path, fork_ranks):
    ended = fork_ranks(tmp_path, 2, sharded_gradients.main, tmp_path)
    assert not any(rank.code for rank in ended), ended
    expected = gradient_stats(sharded_gradients.whole().named_parameters())
    layers = expected.pop("layers")
    for rank in range(2):
        stats = torch.load(tmp_path / f"stats{rank}.pt", weights_only=True)
        assert stats.pop("layers") == pytest.approx(layers, rel=1e-5)
        assert stats == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.3.attn.q.weight", "blocks.3"),
        ("_orig_mod.module.transformer.h.11.mlp.c_fc.bias", "transformer.h.11"),
        ("blocks.3._orig_mod.attn.weight", "blocks.3"),
        ("embed.weight", "embed"),
        ("head", "head"),
    ],
)
def test_layer_of(name, layer):
    assert layer_of(name) == layer


def test_stability_window_variance_and_spike():
    monitor = StabilityMonitor(window=3)
    assert monitor.update(1, 9.0)["loss_variance"] is None
    for step, loss in enumerate((1.0, 2.0), start=2):
        monitor.update(step, loss)
    stats = monitor.update(4, 3.0)  # the 9 has left the window
    assert (stats["loss_mean"], stats["loss_variance"]) == (2.0, 1.0)
    assert (stats["best_loss"], stats["best_loss_step"]) == (1.0, 2)
    assert monitor.update(5, 12.0)["loss_zscore"] == pytest.approx(10.0)


def test_stability_counts_non_finite_values_and_keeps_them_out():
    monitor = StabilityMonitor()
    monitor.update(1, 2.0, 1.0)
    monitor.update(2, 4.0, math.inf)
    stats = monitor.update(3, math.nan, math.nan)
    assert (stats["nonfinite_losses"], stats["nonfinite_grads"], stats["loss_mean"]) == (1, 2, 3.0)
    assert stats["best_loss"] == 2.0


def test_stability_survives_a_resume():
    straight, before = StabilityMonitor(5), StabilityMonitor(5)
    losses = [3.0, 2.5, math.nan, 2.0, 2.25, 1.0, 4.0]
    for step, loss in enumerate(losses[:4]):
        straight.update(step, loss)
        before.update(step, loss)
    after = StabilityMonitor(5)
    after.load_state_dict(before.state_dict())
    for step, loss in enumerate(losses[4:], start=4):
        assert after.update(step, loss) == straight.update(step, loss)


def test_memory_of_the_process():
    stats = memory_stats("cpu")
    assert 0.01 < stats["rss_gb"] <= stats["peak_rss_gb"] * 1.05 < 200
    before = memory_stats(torch.device("cpu"))["rss_gb"]
    with mmap(-1, 50_000_000) as block:  # new pages, where malloc may have free ones
        block.write(b"1" * 50_000_000)
        assert memory_stats()["rss_gb"] - before >= 0.045


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_the_gpu():
    held = torch.ones(10_000_000, dtype=torch.uint8, device="cuda")
    stats = memory_stats("cuda")
    assert stats["allocated_gb"] >= 0.01
    assert stats["max_allocated_gb"] >= stats["allocated_gb"] and stats["reserved_gb"] >= stats["allocated_gb"]
    del held
