"""Scalers: clipping, the norm they return, loss scaling, and steps that are not taken."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gpt_core.training import amp_grad_scaler, keller_scaler
from gpt_core.training.scalers import clipping_said


def amp(grad_clip=1.0, dtype=torch.float32):
    return amp_grad_scaler(grad_clip, dtype=dtype, device_type="cpu")


def parameters(scale=1.0):
    """Three parameters with gradients and one without."""
    draw = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(*shape, generator=draw)) for shape in ((4, 3), (5,), (2, 2), (3,))]
    for p in made[:3]:
        p.grad = scale * torch.randn(p.shape, generator=draw)
    return made


def sgd(ps):
    return torch.optim.SGD(ps)


def norm(tensors):
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors))


@pytest.mark.parametrize("scale", [100.0, 1e-3])
def test_amp_clips_the_global_norm_and_returns_it_as_it_was(scale):
    ps = parameters(scale)
    before = [p.grad.clone() for p in ps[:3]]
    returned = amp(grad_clip=1.0).clip(ps, sgd(ps))
    after = [p.grad for p in ps[:3]]
    assert float(returned) == pytest.approx(norm(before), rel=1e-5)
    assert norm(after) <= 1.0 + 1e-6
    factor = min(1.0, 1.0 / norm(before))  # one factor for all: the direction stays
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-5, atol=0)


def test_without_clipping_the_norm_is_still_measured():
    ps = parameters(100.0)
    before = [p.grad.clone() for p in ps[:3]]
    assert float(amp(grad_clip=0.0).clip(ps, sgd(ps))) == pytest.approx(norm(before), rel=1e-5)
    assert all(torch.equal(p.grad, b) for p, b in zip(ps[:3], before, strict=True))


def test_a_run_says_what_its_optimizer_lets_be_clipped():
    optimizer = SimpleNamespace(clipping="half of the gradients")
    assert clipping_said(amp(grad_clip=0.5), optimizer) == "clipping at the norm 0.5: half of the gradients"
    assert clipping_said(amp(grad_clip=0.0), optimizer) is None
    assert clipping_said(keller_scaler(1.0, torch.float32), optimizer) is None
    assert clipping_said(amp(), sgd(parameters())) is None, "there is nothing to choose"


@pytest.mark.parametrize("scale", [100.0, 1e-3])
def test_keller_gives_every_tensor_the_norm_up_and_down(scale):
    ps = parameters(scale)
    before = [p.grad.clone() for p in ps[:3]]
    returned = keller_scaler(0.7, torch.float32).clip(ps, sgd(ps))
    assert float(returned) == pytest.approx(norm(before), rel=1e-5)
    for p, b in zip(ps[:3], before, strict=True):
        torch.testing.assert_close(p.grad, 0.7 * b / (b.norm() + 1e-6), rtol=1e-5, atol=1e-8)
        assert p.grad.norm().item() == pytest.approx(0.7, abs=1e-3 if scale < 1 else 1e-5)
    assert ps[3].grad is None


def test_keller_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"got 0.*need > 0"):
        keller_scaler(0, torch.float32)
    with pytest.raises(ValueError, match="float16"):
        keller_scaler(1.0, torch.float16)


def step_with(scaler, gradient):
    """One optimizer step with the gradient `gradient` (of the unscaled loss); returns (parameter before, after)."""
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([p], lr=0.1)
    before = p.detach().clone()
    scaler.scale((p * gradient).sum()).backward()
    scaler.unscale(optimizer)
    returned = float(scaler.clip([p], optimizer))
    scaler.step(optimizer, finite=math.isfinite(returned))
    return before, p.detach(), returned


def test_float16_scales_the_loss_and_unscales_the_gradient():
    scaler = amp(grad_clip=0.0, dtype=torch.float16)
    assert scaler.scale(torch.tensor(1.0)) == 65536.0
    before, after, returned = step_with(scaler, torch.tensor([3.0, 4.0]))
    assert returned == pytest.approx(5.0)
    torch.testing.assert_close(after, before - 0.1 * torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("make", [amp, lambda: amp(dtype=torch.float16), lambda: keller_scaler(1.0, torch.float32)])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_step_with_a_nonfinite_gradient_is_not_taken(make, bad):
    before, after, returned = step_with(make(), torch.tensor([1.0, bad]))
    assert not math.isfinite(returned)
    assert torch.equal(before, after)


def test_float16_lowers_its_scale_after_an_overflow_and_remembers_it():
    scaler = amp(dtype=torch.float16)
    step_with(scaler, torch.tensor([1.0, math.inf]))
    assert scaler.scale(torch.tensor(1.0)) == 32768.0
    resumed = amp(dtype=torch.float16)
    resumed.load_state_dict(copy.deepcopy(scaler.state_dict()))
    assert resumed.scale(torch.tensor(1.0)) == 32768.0


def test_a_norm_that_overflows_is_a_step_not_taken_even_when_each_gradient_is_finite():
    """3e38 fits float32, the norm of two of them does not; weight decay must not act in a skipped step either."""
    for scaler in (amp(dtype=torch.float32), amp(dtype=torch.float16)):
        p = nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([p], lr=0.1, weight_decay=0.5)
        p.grad = torch.full((2,), 3e38)
        if scaler.state_dict():  # as the loop does it: a scaler looks at scaled gradients
            scaler.scale(torch.tensor(1.0))
            p.grad = torch.full((2,), 3e38)
        scaler.unscale(optimizer)
        p.grad = torch.full((2,), 3e38)
        scaler.step(optimizer, finite=math.isfinite(float(scaler.clip([p], optimizer))))
        assert torch.equal(p.detach(), torch.ones(2))


def test_a_state_saved_without_scaling_leaves_a_new_scaler_as_it_is():
    scaler = amp(dtype=torch.float16)
    scaler.load_state_dict(amp().state_dict())
    assert scaler.scale(torch.tensor(1.0)) == 65536.0
