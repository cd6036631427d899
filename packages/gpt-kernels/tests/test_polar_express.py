"""Orthogonalisation: figures of the specification, singular values, both forms, stacks, and the Triton products."""

import importlib.util

import pytest
import torch

from gpt_kernels import POLAR_EXPRESS, newton_schulz, polar_express, polar_express_backend, polar_express_reference
from gpt_kernels.ops import polar_express as op
from gpt_kernels.ops import symmetric
from gpt_kernels.testing import kernel_device, random

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


@FUNCTIONS
@FORMS
def test_low_rank_in_bfloat16_does_not_explode(function, low, high, form):
    x = random(64, 5) @ random(5, 256, seed=1)
    assert torch.linalg.matrix_norm(function(x, dtype=torch.bfloat16, form=form).float(), 2) < 1.3


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
        polar_express(torch.zeros(3, 3), form="newton")


def test_backend_follows_dtype_and_size():
    if kernel_device() == "cpu":
        assert polar_express_backend(torch.empty(300, 700)) == "panels"
        assert polar_express_backend(torch.empty(300, 700), torch.bfloat16) == "torch"
        assert polar_express_backend(torch.empty(30, 700)) == "torch"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@FUNCTIONS
@pytest.mark.parametrize("shape", [(2, 40, 72), (72, 40), (64, 64)])
def test_on_the_kernels_in_bfloat16(monkeypatch, function, low, high, shape):
    """In the form that CUDA tensors get; stacked, tall, square: within bounds, and near the float64 result."""
    x = random(*shape)
    expected = function(x.double(), dtype=torch.float64)
    asked = []
    monkeypatch.setattr(symmetric, "symmetric_backend", lambda *tensors: asked.append(tensors) or "triton")
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
