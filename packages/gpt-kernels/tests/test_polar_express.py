"""Orthogonalisation: figures of the specification, singular values, both forms, stacks, and the Triton products."""

import importlib.util
from typing import Any

import pytest
import torch

from gpt_kernels import POLAR_EXPRESS, newton_schulz, polar_express, polar_express_backend, polar_express_reference
from gpt_kernels.ops import polar_express as op
from gpt_kernels.ops import symmetric
from gpt_kernels.testing import kernel_device, random

F64 = torch.float64
SHAPES = [(24, 24), (16, 64), (64, 16)]
LARGE = [(300, 300), (260, 700), (700, 260)]  # several panels of a symmetric product, the last one cut
FUNCTIONS = pytest.mark.parametrize(
    ("function", "low", "high"), [(newton_schulz, 0.68, 1.21), (polar_express, 0.84, 1.15)], ids=["ns", "polar"]
)
FORMS = pytest.mark.parametrize("form", ["direct", "gram"])


@pytest.fixture(autouse=True)
def no_bfloat16_units(monkeypatch):
    """The same default on every processor: float32."""
    monkeypatch.setattr(op, "CPU_HAS_BFLOAT16", False)


def with_singular_values(shape, singular):
    u, _, v = torch.linalg.svd(random(*shape, dtype=torch.float64).cpu(), full_matrices=False)
    return (u * singular) @ v


@FUNCTIONS
@FORMS
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_singular_values_and_singular_vectors(function, low, high, form, shape):
    x = with_singular_values(shape, torch.logspace(-1, 0, min(shape), dtype=torch.float64))
    y = function(x.float(), dtype=torch.float32, form=form).double()
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    in_basis = u.T @ y @ v.T  # the same singular vectors: this is diagonal
    values = in_basis.diagonal()
    assert values.min() > low and values.max() < high
    assert (in_basis - torch.diag(values)).abs().max() < 1e-3


@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_both_forms_equal_the_definition(shape):
    x = random(*shape, dtype=torch.float64).cpu()
    expected = polar_express_reference(x)
    for form in ("direct", "gram", None):
        torch.testing.assert_close(polar_express(x, dtype=torch.float64, form=form), expected, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(polar_express(x.float(), form=form).double(), expected, rtol=1e-3, atol=1e-4)


def test_scalar_map_of_polar_express():
    """As in the specification of the speedrun: five polynomials in sequence."""
    s = torch.tensor([1e-9, 1e-3, 3e-3, 1e-2, 0.1, 1 / 1.02, 1.0], dtype=torch.float64)
    for a, b, c in POLAR_EXPRESS:
        s = s * (a + b * s**2 + c * s**4)
    expected = [989.4684e-9, 0.858873, 0.966383, 1.0271, 1.059161, 0.903537, 0.8591]
    torch.testing.assert_close(s, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-5)


def zoo(S, N, seed):
    """Matrices (S, N) that orthogonalisations stumble over, named; the last ones have equal rows, or nearly."""

    def values(*singular):
        return with_singular_values((S, N), torch.cat([*singular])[:S].double())

    ones, noise = torch.ones(S, N, dtype=torch.float64), random(S, N, dtype=torch.float64, seed=seed).cpu()
    few = max(1, S // 12)
    yield "gaussian", noise
    yield "six decades", values(torch.logspace(-6, 0, S))
    yield "low rank", noise[:, :few] @ random(few, N, dtype=torch.float64, seed=seed + 1).cpu()
    yield "rank one", noise[:, :1] @ noise[:1]
    yield "one dominant", values(torch.ones(1), torch.full((S - 1,), 1e-2))
    yield "one among nothing", values(torch.ones(1), torch.full((S - 1,), 1e-4))
    yield "one row", torch.cat([1e4 * noise[:1], noise[1:]])
    yield "heavy tails", noise**5
    yield "identity", torch.eye(S, N, dtype=torch.float64)
    yield "signs", noise[:, :1].sign() @ noise[:1].sign()
    yield "equal rows", ones[:, :1] @ noise[:1]
    yield "constant", 0.7 * ones
    yield "nearly constant", ones + 1e-5 * noise
    yield "about a mean", ones + 0.1 * noise


def assert_bounded(function, x, low, high, smallest, **options):
    """All singular values are below `high`, those that were above `smallest` times the norm are above `low`."""
    before = torch.linalg.svdvals(x.double())
    out = function(x, **options)
    after = torch.linalg.svdvals(out.double())
    kept = int((before >= 1.25 * smallest * before.norm()).sum())
    assert out.isfinite().all() and kept and low < after[:kept].min() and after.max() < high


SMALLEST = {newton_schulz: 0.01, polar_express: 0.001}
IN_BFLOAT16 = {newton_schulz: (0.65, 1.24), polar_express: (0.80, 1.16)}


@FUNCTIONS
@FORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 12), (8, 160), (24, 24), (72, 40), (64, 128)])
def test_bounds_hold_in_every_dtype_and_form(function, low, high, form, dtype, shape):
    smallest = SMALLEST[function]
    if form == "direct" and dtype == torch.bfloat16:
        (low, high), smallest = IN_BFLOAT16[function], 0.01
    for number, (_, x) in enumerate(zoo(min(shape), max(shape), seed=1)):
        x = x.mT if shape[0] > shape[1] else x
        scale = 1.0 if number % 2 else 1e3 if dtype == torch.float16 else 1e15
        x = (scale / x.norm() * x).float()
        assert_bounded(function, x, low, high, smallest, dtype=dtype, form=form)


@FUNCTIONS
@pytest.mark.parametrize("shape", [(256, 600)])
def test_bounds_hold_by_panels(function, low, high, shape):
    """Rounding is mirrored there: five steps of the Gram form without a new start would send constants to 20."""
    for name, x in list(zoo(*shape, seed=5))[-5:]:  # those with equal rows, or nearly
        assert_bounded(function, x.float(), low, high, SMALLEST[function], dtype=torch.float32, form="gram")
        exact = function(x.float(), dtype=torch.float64, form="direct")
        error = torch.linalg.matrix_norm(function(x.float(), form="gram") - exact, 2)
        assert error < 0.01, (name, error)


@FORMS
@pytest.mark.parametrize("steps", [1, 6, 8, 10, 20])
def test_any_number_of_steps(form, steps):
    for _, x in zoo(40, 72, 0):
        values = torch.linalg.svdvals(newton_schulz(x.float(), steps=steps, form=form))
        assert values.max() < 1.21


@pytest.mark.parametrize(("dtype", "form"), [(torch.bfloat16, "direct"), (torch.float32, "gram")])
def test_the_gram_form_is_chosen_where_products_are_exact(monkeypatch, dtype, form):
    x = random(128, 256).cpu()
    assert torch.equal(polar_express(x, dtype=dtype), polar_express(x, dtype=dtype, form=form))
    assert not torch.equal(polar_express(x, dtype=torch.float32), polar_express(x, dtype=torch.float32, form="direct"))
    monkeypatch.setattr(op, "CPU_HAS_BFLOAT16", True)
    assert torch.equal(polar_express(x), polar_express(x, dtype=torch.bfloat16, form="direct"))
    assert torch.equal(polar_express(x, form="gram"), polar_express(x, dtype=torch.float32, form="gram"))


def test_reduced_float32_products_are_not_trusted():
    x = random(128, 256).cpu()
    in_float32, in_float64 = polar_express(x, form="gram"), polar_express(x, dtype=F64, form="gram")
    assert not torch.equal(in_float32, in_float64)
    direct = polar_express(x, form="direct")
    assert not torch.equal(polar_express(x), direct)
    settings: Any = torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    settings.matmul.fp32_precision = "tf32"
    try:
        assert torch.equal(polar_express(x, form="gram"), in_float64)
        assert torch.equal(polar_express(x), polar_express(x, form="direct"))
    finally:
        settings.matmul.fp32_precision = before


@FUNCTIONS
@FORMS
def test_autocast_does_not_reach_into_them(function, low, high, form):
    x = random(40, 72).cpu()
    expected = function(x, form=form)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(x, form=form), expected)


@FUNCTIONS
@FORMS
def test_nothing_and_next_to_nothing(function, low, high, form):
    x = random(3, 16, 64).cpu()
    expected = function(x, form=form)
    tiny = function(1e-20 * x, form=form)  # far below eps: next to nothing, as without any gradient
    assert tiny.isfinite().all() and tiny.abs().max() < 1e-6
    assert function(1e25 * x, form=form).count_nonzero() == 0
    mixed = torch.stack([x[0], torch.zeros_like(x[0]), 1e15 * x[1]])
    torch.testing.assert_close(function(mixed, form=form)[0], expected[0], rtol=1e-3, atol=1e-4)


@FUNCTIONS
def test_stacks_views_zeros_and_nothing(function, low, high):
    stack = random(2, 3, 24, 16)
    together = function(stack)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], function(stack[i, j]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(function(stack.mT), together.mT, rtol=1e-3, atol=1e-4)
    assert function(torch.zeros(4, 8)).count_nonzero() == 0
    assert function(torch.empty(0, 8, 4)).shape == (0, 8, 4)
    assert function(stack.bfloat16()).dtype == torch.bfloat16


def test_compiles_to_one_graph():
    x = random(2, 40, 80)
    compiled = torch.compile(polar_express, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), polar_express(x, form="direct"), rtol=1e-3, atol=1e-4)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"only matrices can be orthogonalised, got shape \(3,\)"):
        polar_express(torch.zeros(3))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        newton_schulz(torch.zeros(3, 3), steps=0)
    with pytest.raises(ValueError, match="form must be 'direct' or 'gram', got 'newton'"):
        polar_express(torch.zeros(3, 3), form="newton")  # ty: ignore[invalid-argument-type]


def test_backend_follows_dtype_and_size():
    if kernel_device() == "cpu":
        assert polar_express_backend(torch.empty(300, 700)) == "panels"
        assert polar_express_backend(torch.empty(300, 700), torch.bfloat16) == "torch"
        assert polar_express_backend(torch.empty(30, 700)) == "torch"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize(
    ("function", "high", "shape"),
    [
        (polar_express, 1.15, (2, 24, 40)),
        (polar_express, 1.15, (72, 40)),
        (polar_express, 1.15, (64, 64)),
        (newton_schulz, 1.21, (2, 24, 40)),
    ],
)
def test_on_the_kernels_in_bfloat16(monkeypatch, function, high, shape):
    """In the form that CUDA tensors get; stacked, tall, square: within bounds, and near the float64 result."""
    x = random(*shape)
    expected = function(x.double(), dtype=torch.float64)
    asked = []
    monkeypatch.setattr(symmetric, "symmetric_backend", lambda *tensors: asked.append(tensors) or "triton")
    monkeypatch.setattr(symmetric, "PANEL", 0)  # no matrix is too small
    out = function(x, dtype=torch.bfloat16, form="direct")
    assert len(asked) >= 10
    values = torch.linalg.svdvals(out.double())
    assert values.max() < high + 0.03
    assert (out.double() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.gpu
@FUNCTIONS
@pytest.mark.parametrize("shape", [(4, 768, 3072), (3072, 768), (768, 768)])
def test_on_a_gpu(function, low, high, shape):
    x = random(*shape)
    assert polar_express_backend(x) == "triton"
    values = torch.linalg.svdvals(function(x).double())
    assert values.max() < high + 0.01
    if function is polar_express and shape[-1] != shape[-2]:
        assert values.min() > low
