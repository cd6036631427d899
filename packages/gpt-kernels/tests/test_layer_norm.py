"""Layer norm: the definition against torch's, and the Triton kernel against the definition in float64."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F

from gpt_kernels import layer_norm, layer_norm_backend, layer_norm_reference
from gpt_kernels.ops import layer_norm as op
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

EPS = 1e-3
triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def fused(*arguments):
    from gpt_kernels.triton.layer_norm import layer_norm

    return layer_norm(*arguments)


def arguments(shape, dtype, weight=True, bias=True):
    parameters = (random(shape[-1], dtype=dtype, seed=seed) if has else None for seed, has in ((2, weight), (3, bias)))
    return (random(*shape, dtype=dtype), *parameters), random(*shape, dtype=dtype, seed=1)


def check(tensors, grad, function=fused, **tolerance):
    assert_agree(
        lambda *a: function(*a, EPS),
        lambda *a: layer_norm_reference(*a, EPS),
        tensors,
        grad,
        **{"scale": 2, **tolerance},
    )


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (2, 3, 7), (0, 4)])
def test_definition_is_that_of_torch(shape, weight):
    tensors, _ = arguments(shape, torch.float64, weight, weight)
    expected = F.layer_norm(tensors[0], shape[-1:], *tensors[1:], EPS)
    torch.testing.assert_close(layer_norm_reference(*tensors, EPS), expected)
    torch.testing.assert_close(layer_norm(*tensors, EPS), expected)
    leaves = [tensor.requires_grad_() for tensor in tensors if tensor is not None]
    assert torch.autograd.gradcheck(lambda *a: layer_norm_reference(*a, eps=EPS), leaves)


@triton
@pytest.mark.parametrize("function", [fused, layer_norm])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_and_tiny_values(dtype, function):
    x = random(4, 33, dtype=dtype)
    for scale in (3e4, 1e-4):
        scaled = x.clamp(-2, 2) * scale
        assert_near(function(scaled, None, None, 1e-12), layer_norm_reference(scaled.double(), eps=1e-12), scale=2)
    same = torch.full((2, 8), 1000.0, dtype=dtype, device=kernel_device())
    assert function(same).abs().max() < 0.01  # no variance; torch's leaves 0.002 in half precision, the kernel nothing


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_may_be_wider(dtype):
    (x, weight, bias), grad = arguments((3, 5), dtype)
    if dtype != torch.float32:
        assert layer_norm_backend(x.cpu(), weight.cpu().float()) == "reference"
    check((x, weight.float(), bias.float()), grad, layer_norm)


@triton
@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROW_SHAPES)
def test_values_and_gradients(shape, dtype, weight, bias):
    check(*arguments(shape, dtype, weight, bias))


@triton
def test_a_program_that_takes_several_tiles_sums_the_gradients_of_the_parameters():
    check(*arguments((1000, 70), torch.float32), size=30.0)


@triton
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 8), (2, 1, 5, 4)])
def test_layouts_of_input_and_gradient(shape):
    (x, *parameters), grad = arguments(shape, torch.float32)
    for _, view in layouts(x):
        check((view, *parameters), grad)
    for _, view in layouts(grad):
        check((x, *parameters), view)
    check((x[:1].expand(shape), *parameters), grad)


@triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_far_from_zero(dtype):
    x = (random(4, 33) * 8 + 1000).to(dtype)
    assert_near(fused(x, None, None, EPS), layer_norm_reference(x.double(), eps=EPS), scale=100)  # 1000 of 8
    x = (x.float() - 1000).clamp(-2, 2).mul(3e4).to(dtype)
    assert_near(fused(x, None, None, EPS), layer_norm_reference(x.double(), eps=EPS), scale=8)


@triton
@pytest.mark.parametrize("parameters", [True, False])
def test_operator_is_registered_right(parameters):
    from gpt_kernels.triton.layer_norm import layer_norm as operator

    (x, *rest), _ = arguments((2, 3, 8), torch.float32, parameters, parameters)
    check_operator(operator, x.requires_grad_(), *rest, EPS)
    for _, view in layouts(x.detach()):
        check_operator(operator, view, *rest, EPS, tracing=False)


@triton
def test_compiles_to_one_graph():
    from gpt_kernels.triton.layer_norm import layer_norm as operator

    tensors, grad = arguments((3, 5), torch.float32)
    compiled = torch.compile(lambda x, w, b: operator(x * 2, w, b, EPS) + 1, backend="aot_eager", fullgraph=True)
    assert_agree(compiled, lambda x, w, b: layer_norm_reference(x * 2, w, b, EPS) + 1, tensors, grad, scale=2)


def test_dispatch_looks_at_the_arguments():
    (x, weight, bias), _ = arguments((3, 5), torch.float32)
    if not x.is_cuda:
        assert layer_norm_backend(x, weight, bias) == "torch"
        assert layer_norm_backend(x, weight.double()) == "reference"
        return
    assert layer_norm_backend(x, weight, bias) == layer_norm_backend(x) == "triton"
    assert layer_norm_backend(x, weight, random(10)[::2]) == "torch"
    assert layer_norm_backend(x.new_empty(1, op.MAX_COLUMNS + 1)) == "torch"


@triton
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
def test_kernels_compile_for_gpus(sm):
    sizes = {"N": 768, "BM": 4, "BN": 1024, "HAS_WEIGHT": True}
    numbers = {"M": "i32", "eps": "fp32"}
    tensors = dict.fromkeys(["x", "weight", "bias", "y"], "*bf16:16")
    made = compile_for(
        "gpt_kernels.triton.layer_norm:forward_kernel", tensors | numbers, sizes | {"HAS_BIAS": True}, sm
    )
    assert made.cubin_bytes and "ld.global.v4" in made.ptx and "st.global.v4" in made.ptx
    tensors = dict.fromkeys(["grad", "x", "weight", "grad_x"], "*bf16:16")
    tensors |= dict.fromkeys(["grad_weight", "grad_bias"], "*fp32:16")
    sizes |= {"WANTS_WEIGHT": True, "WANTS_BIAS": True}
    made = compile_for("gpt_kernels.triton.layer_norm:backward_kernel", tensors | numbers, sizes, sm)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(49152, 768), (3, 16384), (1001, 1000)])
def test_on_a_gpu(shape, dtype):
    tensors, grad = arguments(shape, dtype)
    assert layer_norm_backend(*tensors) == "triton" and kernel_device() == "cuda"
    check(tensors, grad, layer_norm, scale=4, size=shape[0] ** 0.5)
