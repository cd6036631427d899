"""Orthogonalisation: singular values against float64, tall and wide, stacks."""

import pytest
import torch

from gpt_optim import newton_schulz, polar_express, reference

SHAPES = [(24, 24), (16, 64), (64, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("function", "low", "high"), [(newton_schulz, 0.68, 1.21), (polar_express, 0.84, 1.15)], ids=["ns", "polar"]
)
def test_singular_values_and_singular_vectors(function, low, high, shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    singular = torch.logspace(-1.3, 0, min(shape))
    x = u @ torch.diag(singular) @ v
    y = function(x, dtype=torch.float32)
    values = torch.linalg.svdvals(y.double())
    assert values.min() > low and values.max() < high
    # the same singular vectors: Uᵀ Y Vᵀ is diagonal
    in_basis = u.T @ y @ v.T
    assert (in_basis - torch.diag(in_basis.diagonal())).abs().max() < 1e-3
    angle = (y.double() * reference.polar(x)).sum() / (y.double().norm() * min(shape) ** 0.5)
    assert angle > 0.97


@pytest.mark.parametrize("function", [newton_schulz, polar_express])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stack_equals_its_matrices_one_by_one(function, shape):
    torch.manual_seed(1)
    stack = torch.randn(2, 3, *shape)
    together = function(stack)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], function(stack[i, j]), rtol=1e-4, atol=1e-5)


def test_newton_schulz_equals_its_twin():
    torch.manual_seed(2)
    x = torch.randn(12, 20, dtype=torch.float64)
    torch.testing.assert_close(newton_schulz(x, dtype=torch.float64), reference.newton_schulz(x), rtol=1e-6, atol=1e-7)


def test_dtypes_and_zeros():
    x = torch.randn(8, 4, dtype=torch.bfloat16)
    assert newton_schulz(x).dtype == torch.bfloat16
    assert polar_express(torch.zeros(3, 8, 4)).abs().max() == 0
    in_half = newton_schulz(x.float(), dtype=torch.bfloat16)
    assert in_half.dtype == torch.float32 and not torch.equal(in_half, newton_schulz(x.float()))
    with pytest.raises(ValueError, match="only matrices"):
        newton_schulz(torch.ones(3))
