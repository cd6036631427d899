"""The iterations of gpt-kernels under this package's names, against the twins in `reference`."""

import pytest
import torch
from torch import nn

import gpt_kernels
import gpt_optim
from gpt_optim import Muon, newton_schulz, polar_express, reference


@pytest.mark.parametrize("function", [newton_schulz, polar_express])
@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16), (300, 300), (700, 260)])
def test_both_forms_equal_the_twin(function, shape):
    assert function is getattr(gpt_kernels, function.__name__) is getattr(gpt_optim, function.__name__)
    torch.manual_seed(2)
    x = torch.randn(shape, dtype=torch.float64)
    expected = getattr(reference, function.__name__)(x)
    for form in ("direct", "gram", None):
        torch.testing.assert_close(function(x, dtype=torch.float64, form=form), expected, rtol=1e-8, atol=1e-9)
        exact = function(x.float(), dtype=torch.float32, form=form).double()
        torch.testing.assert_close(exact, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_step_multiplies_in_the_dtype_of_the_processor(monkeypatch, units, dtype):
    monkeypatch.setattr("gpt_kernels.ops.polar_express.CPU_HAS_BFLOAT16", units)
    torch.manual_seed(0)
    p = nn.Parameter(torch.zeros(12, 12))
    p.grad = torch.randn(12, 12)
    Muon([p], lr=1.0, momentum=0.0, nesterov=False).step()
    assert torch.equal(-p.detach(), newton_schulz(p.grad, dtype=dtype))
    assert not torch.equal(newton_schulz(p.grad, dtype=torch.bfloat16), newton_schulz(p.grad, dtype=torch.float32))
