"""The Triton rotation against the reference in float64: styles, truncated tables, layouts, gradients."""

import importlib.util

import pytest
import torch

from gpt_kernels import apply_rotary, apply_rotary_backend, apply_rotary_reference, rotary_table
from gpt_kernels.ops import rotary as op
from gpt_kernels.testing import DTYPES, assert_agree, check_operator, compile_for, kernel_device, layouts, random

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
STYLES = pytest.mark.parametrize("style", ["interleaved", "half"])
SHAPES = [(1, 1, 1, 2), (2, 3, 5, 4), (1, 2, 70, 16), (3, 2, 7, 10), (0, 2, 3, 4), (1, 1, 3, 96)]


def table(T, R, dtype=torch.float32):
    return [t.to(kernel_device()) for t in rotary_table(T, 2 * R, theta=100.0, dtype=dtype)]


def fused(style):
    from gpt_kernels.triton.rotary import apply_rotary

    return lambda x, cos, sin: apply_rotary(x, cos, sin, style == "interleaved")


def check(x, grad, cos, sin, style, function=None, **tolerance):
    function = function or fused(style)
    exact = lambda x: apply_rotary_reference(x, cos.double(), sin.double(), style=style)
    assert_agree(lambda x: function(x, cos, sin), exact, [x], grad, **tolerance)


@triton
@STYLES
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape, dtype, style):
    x, grad = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    check(x, grad, *table(shape[2], shape[3] // 2), style)


@triton
@STYLES
@pytest.mark.parametrize("R", [2, 3, 5])
def test_truncated_tables_leave_the_other_channels_alone(R, style):
    x, grad = random(2, 3, 5, 12), random(2, 3, 5, 12, seed=1)
    check(x, grad, *table(5, R), style)
    check(x, grad, *table(5, R), style, lambda *a: apply_rotary(*a, style=style))
    for function in (fused(style), lambda *a: apply_rotary_reference(*a, style=style)):
        assert torch.equal(function(x, *table(5, R))[..., 2 * R :], x[..., 2 * R :])


@triton
@STYLES
def test_layouts_and_positions_per_sequence(style):
    x, grad = random(2, 3, 5, 8), random(2, 3, 5, 8, seed=1)
    cos, sin = table(5, 4)
    for _, view in layouts(x):
        check(view, grad, cos, sin, style)
    for _, view in layouts(grad):
        check(x, view, cos, sin, style)
    x_BTHK = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert fused(style)(x_BTHK, cos, sin).stride() == x_BTHK.stride()
    own = [t.view(10, 1, 4)[torch.arange(10) % 7].view(2, 1, 5, 4) for t in table(10, 4)]
    check(x, grad, *own, style)


@triton
@STYLES
def test_large_values_and_narrow_tables(style):
    x, grad = random(1, 2, 3, 8, dtype=torch.bfloat16) * 1e30, random(1, 2, 3, 8, dtype=torch.bfloat16)
    check(x, grad, *table(3, 4, torch.bfloat16), style, size=None)


@triton
@STYLES
def test_operator_is_registered_right_and_compiles(style):
    from gpt_kernels.triton.rotary import apply_rotary as operator

    x, tables = random(2, 3, 5, 8), table(5, 4)
    compiled = torch.compile(lambda x, c, s: fused(style)(x * 1, c, s), backend="aot_eager", fullgraph=True)
    check(x, x, *tables, style, compiled)
    check_operator(operator, x.requires_grad_(), *tables, style == "interleaved")
    check_operator(operator, x.detach().transpose(1, 2)[:, :5, :3], *table(3, 4), True, tracing=False)


def test_dispatch_looks_at_the_arguments(monkeypatch):
    x, (cos, sin) = random(2, 3, 5, 8), table(5, 4)
    assert apply_rotary_backend(x, cos, sin) == ("triton" if x.is_cuda else "torch")
    monkeypatch.setattr(op, "fits_triton", lambda *tensors, dtypes: True)
    assert apply_rotary_backend(x, cos, sin) == "triton"
    assert apply_rotary_backend(x[0], cos, sin) == "torch"
    assert apply_rotary_backend(x, cos[:, :1], sin[:, :1]) == "torch"  # one angle for all pairs
    assert apply_rotary_backend(x, cos.mT.contiguous().mT, sin) == "torch"
    assert apply_rotary_backend(x, cos.clone().requires_grad_(), sin) == "torch"


@triton
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@STYLES
def test_kernel_compiles_for_gpus(sm, style):
    signature = dict.fromkeys(["x", "out"], "*bf16:16") | dict.fromkeys(["cos", "sin"], "*fp32:16") | {"sign": "fp32"}
    names = ["H", "T", *(f"{tensor}_{axis}" for tensor in ("x", "table", "out") for axis in "bht")]
    sizes = {"K": 128, "R": 64, "INTERLEAVED": style == "interleaved", "BT": 32, "BK": 128}
    made = compile_for("gpt_kernels.triton.rotary:rotary_kernel", signature | dict.fromkeys(names, "i32:16"), sizes, sm)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx and "st.global.v" in made.ptx


@pytest.mark.gpu
@STYLES
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu(dtype, style):
    x, grad = random(4, 6, 2048, 128, dtype=dtype), random(4, 6, 2048, 128, dtype=dtype, seed=1)
    cos, sin = table(2048, 32)
    assert apply_rotary_backend(x, cos, sin, style=style) == "triton"
    check(x, grad, cos, sin, style, lambda *a: apply_rotary(*a, style=style), scale=2)
