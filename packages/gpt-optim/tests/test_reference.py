"""The readable rules against torch's optimizers, known figures, and what their definitions promise."""

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from gpt_optim import reference

F64 = torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hash_fill(rows: int, columns: int, seed: int) -> Tensor:
    """The matrix of the GPT speedrun's figures: an integer hash of the flat index, uniform in [-1, 1)."""
    h = (1103515245 * torch.arange(rows * columns) + 12345 + 777767777 * seed) % 2**32
    h = (1103515245 * (h ^ (h >> 16))) % 2**32
    h = h ^ (h >> 13)
    return (2 * (h.double() / 2**32 - 0.5)).float().view(rows, columns)


@pytest.mark.parametrize(
    ("value", "result"), [(0.001, 0.858873), (0.003, 0.966383), (0.01, 1.0271), (0.1, 1.059161), (1 / 1.02, 0.903537)]
)
def test_polar_express_maps_singular_values_as_computed_by_hand(value, result):
    rest = math.sqrt((1 / 1.02) ** 2 - value**2)  # dividing by 1.02 times the norm gives these values back
    x = 1e6 * torch.diag(torch.tensor([value, rest], dtype=F64))
    assert reference.polar_express(x)[0, 0].item() == pytest.approx(result, abs=5e-5 if value == 0.01 else 1e-6)


def test_polar_express_without_a_margin_maps_one_below_one():
    assert reference.polar_express(torch.full((1, 1), 1e6, dtype=F64), margin=1.0).item() == pytest.approx(
        0.8591, abs=1e-4
    )


def test_polar_express_near_zero_and_its_range():
    x = torch.diag(torch.tensor([1e-9, 1 / 1.02], dtype=F64))
    assert reference.polar_express(x)[0, 0].item() / 1e-9 == pytest.approx(989.4684, rel=1e-5)
    sigma = torch.linspace(1e-3, 1 / 1.02, 100_000, dtype=F64)
    for a, b, c in reference.POLAR_EXPRESS:
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    assert (sigma.min().item(), sigma.max().item()) == pytest.approx((0.858873, 1.141127), abs=1e-5)


def test_polar_express_of_a_gaussian_matrix_in_bfloat16():
    values = torch.linalg.svdvals(reference.polar_express(random(96, 384, dtype=torch.bfloat16)).double())
    assert values.min() > 0.84 and values.max() < 1.15


def test_figures_of_the_speedrun_for_a_square_matrix():
    x = reference.polar_express(hash_fill(768, 768, seed=1))
    assert x.norm().item() == pytest.approx(27.8027, abs=2e-4)
    assert torch.linalg.matrix_norm(x, 2).item() == pytest.approx(1.1411, abs=1e-4)
    reduced, _ = reference.reduce_variance(x, torch.zeros(768, 1), beta2=0.95)
    torch.testing.assert_close(reduced.norm(dim=1), torch.full((768,), 1.00325), rtol=0, atol=1e-5)
    torch.testing.assert_close(reduced[0, :3], torch.tensor([-0.032242, -0.000043, -0.025222]), rtol=0, atol=2e-6)


def test_figures_of_the_speedrun_for_a_tall_matrix():
    x = reference.polar_express(hash_fill(3072, 768, seed=1).T).T  # on the wide side, which is the cheap one
    assert x.norm().item() == pytest.approx(27.6769, abs=2e-4)
    reduced, second = reference.reduce_variance(x, torch.zeros(3072, 1), beta2=0.95)
    assert second.shape == (3072, 1)
    torch.testing.assert_close(reduced.norm(dim=1), torch.full((3072,), 0.49937), rtol=0, atol=1e-5)


@pytest.mark.parametrize("iterate", [reference.newton_schulz, reference.polar_express])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7), (1, 9), (9, 1)])
def test_iterations_keep_singular_vectors_and_bring_values_near_one(iterate, shape):
    x = random(*shape)
    y = iterate(x)
    torch.testing.assert_close(iterate(x.T), y.T)
    torch.testing.assert_close(iterate(1000 * x), y, rtol=1e-4, atol=1e-6)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    values = u.T @ y @ v.T
    torch.testing.assert_close(values, torch.diag(values.diagonal()), rtol=0, atol=1e-9)
    kept = torch.linalg.svdvals(x) / x.norm() > 0.05  # smaller ones are still growing after five steps
    assert ((values.diagonal() > 0.65) & (values.diagonal() < 1.25))[kept].all()


@pytest.mark.parametrize(("rows", "columns"), [(6, 20), (20, 6), (7, 7), (1, 9), (9, 1)])
def test_variance_reduction_evens_out_the_longer_axis_and_keeps_the_norm(rows, columns):
    x = random(rows, columns)
    (second,) = reference.zero_seconds(x)
    assert second.shape == ((rows, 1) if rows >= columns else (1, columns))
    axis = 1 if rows >= columns else 0
    reduced, second = reference.reduce_variance(x, second, beta2=0.9)
    norms = reduced.norm(dim=axis)
    torch.testing.assert_close(norms, norms.mean().expand_as(norms))  # after zero, the first step divides it all out
    torch.testing.assert_close(reduced.norm(), x.norm())
    torch.testing.assert_close(reduced.sign(), x.sign())
    y = random(rows, columns, seed=1)
    again, last = reference.reduce_variance(y, second, beta2=0.9)
    mean_squares = [(z * z).mean(dim=axis, keepdim=True) for z in (x, y)]
    torch.testing.assert_close(last, 0.09 * mean_squares[0] + 0.1 * mean_squares[1])
    torch.testing.assert_close(again.norm(), y.norm())
    ratio = again / y * last.sqrt()
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_variance_reduction_of_zero_is_zero():
    reduced, second = reference.reduce_variance(torch.zeros(3, 4), torch.zeros(1, 4), beta2=0.95)
    assert not reduced.any() and not second.any()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_muon_equals_torch(nesterov, scale, shape):
    lr, momentum, decay = 0.1, 0.9, 0.2
    # torch's products are in bfloat16, whose rounding the iteration amplifies: both use this iteration
    iteration = functools.partial(
        _zeropower_via_newtonschulz, ns_coefficients=(3.4445, -4.775, 2.0315), ns_steps=5, eps=1e-7
    )
    parameter = torch.nn.Parameter(random(*shape, dtype=torch.float32))
    theirs = torch.optim.Muon([parameter], lr, decay, momentum, nesterov, adjust_lr_fn=scale)
    weight, average = parameter.detach().clone(), torch.zeros(shape)
    for step in range(1, 5):
        parameter.grad = random(*shape, seed=step, dtype=torch.float32)
        theirs.step()
        weight, average = reference.muon_step(
            weight, parameter.grad, average, lr, momentum, decay, nesterov, scale, orthogonalize=iteration
        )
    torch.testing.assert_close(theirs.state[parameter]["momentum_buffer"], average)
    torch.testing.assert_close(parameter.detach(), weight, rtol=0, atol=1e-3)


def test_one_muon_step_by_hand():
    weight, grad, average = random(4, 1), random(4, 1, seed=1), random(4, 1, seed=2)
    new, new_average = reference.muon_step(weight, grad, average, 0.1, 0.9, 0.5, orthogonalize=lambda x: x / x.norm())
    torch.testing.assert_close(new_average, 0.9 * average + 0.1 * grad)
    direction = 0.9 * (0.9 * average + 0.1 * grad) + 0.1 * grad
    torch.testing.assert_close(new, 0.95 * weight - 0.1 * 2 * direction / direction.norm())  # √(4/1) = 2


@pytest.mark.parametrize("kind", ["muon", "normuon"])
def test_fused_matrices_are_updated_apart_and_transposed_ones_as_their_transpose(kind):
    weight, grad, average = random(16, 8), random(16, 8, seed=1), random(16, 8, seed=2)
    split, options = (8, 4, 4), {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "scale_decay": True}

    def step(weight: Tensor, grad: Tensor, average: Tensor, **layout) -> tuple[Tensor, Tensor]:
        if kind == "muon":
            return reference.muon_step(weight, grad, average, **options, **layout)
        seconds = reference.zero_seconds(weight, **layout)
        return reference.normuon_step(weight, grad, average, seconds, **options, **layout)[:2]

    fused = step(weight, grad, average, split=split)
    apart = [step(*parts) for parts in zip(weight.split(split), grad.split(split), average.split(split), strict=True)]
    for result, parts in zip(fused, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(result, torch.cat(parts))
    flipped = step(weight.T, grad.T, average.T, split=split, transposed=True)
    for result, other in zip(fused, flipped, strict=True):
        torch.testing.assert_close(result, other.T)


def test_cautious_decay_spares_what_the_update_would_grow():
    weight, update = torch.tensor([2.0, -2.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    expected = torch.tensor([2 - 0.2 - 0.5, -2 - 0.5, 2 - 0.2, -0.5])
    torch.testing.assert_close(reference.descend(weight, update, 0.5, 0.1, cautious=True), expected)
    plain = torch.tensor([2 - 0.2 - 0.5, -2 + 0.2 - 0.5, 2 - 0.2, -0.5])
    torch.testing.assert_close(reference.descend(weight, update, 0.5, 0.1), plain)


@pytest.mark.parametrize(
    ("shape", "lr", "decay"), [((8, 8), 0.023, 6.348e-4), ((32, 8), 0.023, 1.2696e-3), ((32, 8), 0.046, 2.5392e-3)]
)
def test_normuon_decay_of_the_speedrun(shape, lr, decay):
    """Attention, up- and down-projection: weight_decay is 1.2·0.023, scaled by shape and by the matrix's own rate."""
    weight = random(*shape)
    zero = torch.zeros_like(weight)
    seconds = reference.zero_seconds(weight)
    new, *_ = reference.normuon_step(weight, zero, zero, seconds, lr, 0.95, 1.2 * 0.023, scale_decay=True)
    torch.testing.assert_close(new / weight, torch.full(shape, 1 - decay, dtype=F64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(5,), (3, 4)])
def test_adamw_equals_torch(shape):
    lr, betas, eps, decay = 0.1, (0.8, 0.95), 1e-3, 0.2
    parameter = torch.nn.Parameter(random(*shape))
    theirs = torch.optim.AdamW([parameter], lr, betas, eps, decay, foreach=False)
    weight, first, second = parameter.detach().clone(), torch.zeros(shape, dtype=F64), torch.zeros(shape, dtype=F64)
    for step in range(1, 6):
        parameter.grad = random(*shape, seed=step)
        theirs.step()
        weight, first, second = reference.adamw_step(weight, parameter.grad, first, second, step, lr, betas, eps, decay)
    torch.testing.assert_close(parameter.detach(), weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(theirs.state[parameter]["exp_avg_sq"], second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("lr", "weight_decay", "decay"), [(0.6, 5 * 0.005, 0.009), (0.008, 150 * 0.005, 4.8e-5), (0.008, 0.005, 3.2e-7)]
)
def test_first_adam_step_of_the_speedrun(lr, weight_decay, decay):
    weight, grad = random(64), random(64, seed=1).sign()
    zero = torch.zeros_like(weight)
    new, *_ = reference.speedrun_adam_step(weight, grad, zero, zero, 1, lr, (0.9, 0.99), 1e-10, weight_decay)
    shrinks = weight * grad > 0
    assert 16 < shrinks.sum() < 48
    torch.testing.assert_close(new[~shrinks], (weight - lr * grad.sign())[~shrinks], rtol=0, atol=1e-7)
    torch.testing.assert_close(new[shrinks], (weight * (1 - decay) - lr * grad.sign())[shrinks], rtol=0, atol=1e-7)


def test_the_two_cautious_adams_differ_by_eps_and_the_power_of_lr():
    weight, grad, first, second = random(64), random(64, seed=1), random(64, seed=2), random(64, seed=3).square()
    rest = {"step": 3, "lr": 0.1, "betas": (0.9, 0.99)}
    eps = 1e-2
    theirs = reference.speedrun_adam_step(weight, grad, first, second, eps=eps, weight_decay=0.5, **rest)
    eps = eps / math.sqrt(1 - 0.99**3)
    ours = reference.adamw_step(weight, grad, first, second, eps=eps, weight_decay=0.05, cautious=True, **rest)
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_split_master_weight_is_every_bit_of_it():
    weight = torch.cat([random(1000, dtype=torch.float32), torch.tensor([0.0, -0.0, 1e-30, -1e30, math.inf])])
    high, low = reference.split_master(weight)
    assert (high.dtype, low.dtype) == (torch.bfloat16, torch.int16)
    assert torch.equal(reference.join_master(high, low).view(torch.int32), weight.view(torch.int32))
    assert (high.float().abs() <= weight.abs()).all()  # truncated, never rounded up
    assert not torch.equal(high, weight.bfloat16())


def test_a_split_master_weight_moves_where_bfloat16_stands_still():
    shadow = torch.full((8,), 1.0)
    high, low = reference.split_master(shadow)
    rounded = shadow.bfloat16()
    for _ in range(100):
        shadow = shadow + 2**-12
        rounded = rounded + torch.tensor(2**-12, dtype=torch.bfloat16)
        high, low = reference.split_master(reference.join_master(high, low) + 2**-12)
    assert torch.equal(reference.join_master(high, low), shadow) and shadow[0] == 1 + 100 * 2**-12
    assert (rounded == 1).all() and (high == 1.0234375).all()


def test_clipping_equals_torch():
    parameters = [torch.nn.Parameter(random(*shape)) for shape in ((3, 4), (5,))]
    for max_norm in (0.5, 100.0):
        for seed, p in enumerate(parameters):
            p.grad = random(*p.shape, seed=seed)
        grads, norm = reference.clipped([p.grad for p in parameters], max_norm)
        theirs = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        torch.testing.assert_close(norm, theirs)
        for p, grad in zip(parameters, grads, strict=True):
            torch.testing.assert_close(p.grad, grad)
        expected = functools.reduce(math.hypot, (p.grad.norm().item() for p in parameters))
        assert expected == pytest.approx(min(max_norm, norm.item()), rel=1e-5)
