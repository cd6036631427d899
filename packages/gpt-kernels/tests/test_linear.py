"""linear: oneDNN's path against float64 and against torch's own, forward and backward."""

import sys

import pytest
import torch
import torch.nn.functional as F

from gpt_kernels import linear, linear_backend
from gpt_kernels.ops.linear import HAS_ONEDNN

FAST = "onednn" if HAS_ONEDNN else "torch"


@pytest.fixture(autouse=True)
def any_processor(monkeypatch):
    """oneDNN wherever torch has it, also where it is not the faster one."""
    monkeypatch.setattr(sys.modules["gpt_kernels.ops.linear"], "PREFER_ONEDNN", HAS_ONEDNN)


def arguments(shape, out_features, bias, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    weight = torch.randn(out_features, shape[-1], generator=generator, dtype=dtype)
    return [x, weight, torch.randn(out_features, generator=generator, dtype=dtype) if bias else None]


def gradients(function, tensors, dtype):
    leaves = [t if t is None else t.detach().clone().to(dtype).requires_grad_() for t in tensors]
    output = function(*leaves)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output).to(dtype)
    (output * weights).sum().backward()
    return [output.detach().double()] + [t.grad.double() for t in leaves if t is not None]


@pytest.mark.parametrize("shape", [(16, 8), (33, 7), (2, 3, 17, 5), (4, 64, 48)])
@pytest.mark.parametrize("out_features", [1, 13, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_float64_forward_and_backward(shape, out_features, bias):
    tensors = arguments(shape, out_features, bias)
    assert linear_backend(tensors[0].float(), tensors[1].float()) == FAST
    expected = gradients(F.linear, tensors, torch.float64)
    for got, reference in zip(gradients(linear, tensors, torch.float32), expected, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-5, atol=1e-4)


def test_is_as_exact_as_torch():
    """float32 throughout: no bfloat16 or TF32 shortcut inside."""
    x, weight, _ = arguments((256, 512), 128, bias=False)
    exact = F.linear(x, weight)
    ours = (linear(x.float(), weight.float()).double() - exact).abs().max()
    theirs = (F.linear(x.float(), weight.float()).double() - exact).abs().max()
    assert ours < 4 * theirs < 1e-3


def test_views_and_partial_gradients():
    x, weight, _ = (t if t is None else t.float() for t in arguments((40, 30), 20, bias=False))
    transposed = x.t().contiguous().t()  # not contiguous
    torch.testing.assert_close(linear(transposed, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)
    frozen = weight.clone()
    leaf = x.clone().requires_grad_()
    linear(leaf, frozen).sum().backward()
    torch.testing.assert_close(leaf.grad, weight.sum(0).expand_as(x), rtol=1e-5, atol=1e-5)
    assert frozen.grad is None


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((15, 8), torch.float32),
        ((32, 8), torch.float64),
        ((32, 8), torch.bfloat16),
        ((8,), torch.float32),
        ((0, 8), torch.float32),
    ],
)
def test_everything_else_is_torch(shape, dtype):
    x, weight = torch.ones(shape, dtype=dtype), torch.ones(4, 8, dtype=dtype)
    assert linear_backend(x, weight) == "torch"
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_autocast_decides_the_dtype():
    x, weight, _ = arguments((32, 8), 4, bias=False, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


def test_second_derivatives_are_those_of_torch():
    tensors = [t.float() for t in arguments((20, 6), 8, bias=True)]

    def of_the_penalty(function):
        x, weight, bias = (t.clone().requires_grad_() for t in tensors)
        first = torch.autograd.grad(function(x, weight, bias).sum(), (x, weight), create_graph=True)  # grad is constant
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))

    for ours, theirs in zip(of_the_penalty(linear), of_the_penalty(F.linear), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_traces_without_a_graph_break():
    tensors = [t if t is None else t.float() for t in arguments((32, 8), 4, bias=True)]
    leaves = [t.clone().requires_grad_() for t in tensors]
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    compiled(*leaves).sum().backward()
    expected = gradients(F.linear, tensors, torch.float64)
    torch.testing.assert_close(compiled(*leaves).double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(leaves[2].grad, torch.full((4,), 32.0))
