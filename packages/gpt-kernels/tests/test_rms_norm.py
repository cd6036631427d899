"""RMS norm against its formula, torch's own, and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from gpt_kernels import rms_norm


def test_formula():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    out = rms_norm(x, torch.tensor([1.0, 2.0], dtype=torch.float64), eps=0.5)
    size = math.sqrt(12.5 + 0.5)
    assert out.tolist() == [[pytest.approx(3 / size), pytest.approx(8 / size)], [0.0, 0.0]]


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7)])
@pytest.mark.parametrize("weighted", [True, False])
def test_agrees_with_torch_and_has_right_gradients(shape, weighted):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1:], generator=generator, dtype=torch.float64, requires_grad=True)
    weight = weight if weighted else None
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), F.rms_norm(x, shape[-1:], weight, 1e-5))
    leaves = (x, weight) if weighted else (x,)
    assert torch.autograd.gradcheck(lambda *leaves: rms_norm(*leaves, eps=1e-2), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype):
    x = (torch.arange(4096) % 7 + 300).to(dtype)  # squares overflow float16, and bfloat16 loses the sum
    out = rms_norm(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, rms_norm(x.double()).to(dtype))
