"""The Triton RMS norm against the reference in float64: values, gradients, layouts, compilation."""

import pytest
import torch

pytest.importorskip("triton")

from gpt_kernels import rms_norm, rms_norm_backend
from gpt_kernels.ops import rms_norm as op
from gpt_kernels.testing import (
    DTYPES,
    ROW_SHAPES,
    assert_agree,
    assert_near,
    check_operator,
    compile_for,
    kernel_device,
    layouts,
    random,
)
from gpt_kernels.triton.rms_norm import rms_norm as fused

EPS = 1e-3


def arguments(shape, dtype, weighted=True):
    x, grad = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    return x, random(shape[-1], dtype=dtype, seed=2) if weighted else None, grad


def check(x, weight, grad, function=fused, **tolerance):
    assert_agree(
        lambda *a: function(*a, EPS), lambda *a: op.rms_norm_reference(*a, EPS), (x, weight), grad, **tolerance
    )


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROW_SHAPES)
def test_values_and_gradients(shape, dtype, weighted):
    check(*arguments(shape, dtype, weighted))


def test_a_program_that_takes_several_tiles_sums_the_gradient_of_the_weight():
    check(*arguments((1000, 70), torch.float32), size=30.0)


def test_weight_of_another_dtype():
    x, weight, grad = arguments((5, 12), torch.bfloat16)
    check(x, weight.float(), grad)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 8), (2, 1, 5, 4)])
def test_layouts_of_input_and_gradient(shape):
    x, weight, grad = arguments(shape, torch.float32)
    for _, view in layouts(x):
        check(view, weight, grad)
    for _, view in layouts(grad):
        check(x, weight, view)
    check(x[:1].expand(shape), weight, grad)


def test_heads_are_normed_where_they_lie():
    x = random(2, 5, 3, 8).transpose(1, 2)
    assert fused(x).stride() == x.stride()


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_and_tiny_values(dtype):
    x = random(4, 33, dtype=dtype)
    for scale in (3e4, 1e-4):
        scaled = x.clamp(-2, 2) * scale
        assert_near(fused(scaled, None, 1e-12), op.rms_norm_reference(scaled.double(), None, 1e-12))
    assert fused(torch.zeros(2, 8, dtype=dtype, device=kernel_device())).count_nonzero() == 0


@pytest.mark.parametrize("weighted", [True, False])
def test_operator_is_registered_right(weighted):
    x, weight, _ = arguments((2, 3, 8), torch.float32, weighted)
    check_operator(fused, x.requires_grad_(), weight, EPS)
    for _, view in layouts(x.detach()):
        check_operator(fused, view, weight, EPS, tracing=False)


def test_compiles_to_one_graph():
    x, weight, grad = arguments((3, 5), torch.bfloat16)
    compiled = torch.compile(lambda x, w, eps: fused(x * 2, w, eps) + 1, backend="aot_eager", fullgraph=True)
    assert_agree(
        lambda *a: compiled(*a, EPS), lambda x, w: op.rms_norm_reference(x * 2, w, EPS) + 1, (x, weight), grad, scale=2
    )


def test_dispatch_looks_at_the_arguments(monkeypatch):
    x, weight, _ = arguments((3, 5), torch.float32)
    monkeypatch.setattr(op, "fits_triton", lambda *tensors: True)
    assert rms_norm_backend(x, weight) == rms_norm_backend(x) == "triton"
    assert rms_norm_backend(x, weight[:1]) == "torch"
    assert rms_norm_backend(x, random(10)[::2]) == "torch"
    assert rms_norm_backend(torch.empty(1, 16385)) == "torch"
    monkeypatch.undo()
    if kernel_device() == "cpu":
        assert rms_norm_backend(x, weight) == "torch"


@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
def test_kernels_compile_for_gpus(sm):
    sizes = {"N": 768, "BM": 4, "BN": 1024, "HAS_WEIGHT": True}
    tensors = dict.fromkeys(["x", "weight", "y"], "*bf16:16")
    made = compile_for("gpt_kernels.triton.rms_norm:forward_kernel", tensors | {"M": "i32", "eps": "fp32"}, sizes, sm)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx and "st.global.v4" in made.ptx
    tensors = dict.fromkeys(["grad", "x", "weight", "grad_x"], "*bf16:16") | {"grad_weight": "*fp32:16"}
    made = compile_for(
        "gpt_kernels.triton.rms_norm:backward_kernel",
        tensors | {"M": "i32", "eps": "fp32"},
        sizes | {"WANTS_WEIGHT": True},
        sm,
    )
    assert made.cubin_bytes and "ld.global.v4" in made.ptx


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(49152, 768), (8, 6, 1024, 128), (3, 16384), (1001, 1000)])
def test_on_a_gpu(shape, dtype):
    x, weight, grad = arguments(shape, dtype)
    assert rms_norm_backend(x, weight) == "triton"
    rows = x.numel() // x.shape[-1]
    check(x, weight, grad, rms_norm, scale=4, size=rows**0.5)
