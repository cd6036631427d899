"""SwiGLU: definition, and the Triton kernels against it in float64."""

import importlib.util
import math

import pytest
import torch

from gpt_kernels import swiglu, swiglu_backend, swiglu_reference
from gpt_kernels.testing import (
    DTYPES,
    ROW_SHAPES,
    assert_agree,
    check_operator,
    compile_for,
    kernel_device,
    layouts,
    random,
)

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def fused(gate, up):
    from gpt_kernels.triton.swiglu import swiglu

    return swiglu(gate, up)


def arguments(shape, dtype):
    return (random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)), random(*shape, dtype=dtype, seed=2)


def test_definition():
    gate, up = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64)
    expected = [3 / (1 + math.exp(-1)), -10 / (1 + math.exp(2))]
    assert swiglu(gate, up).tolist() == swiglu_reference(gate, up).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"got \(2,\) torch.float64 and \(2,\) torch.float32"):
        swiglu(gate, up.float())


@triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*ROW_SHAPES, (2, 2100)])
def test_values_and_gradients(shape, dtype):
    tensors, grad = arguments(shape, dtype)
    assert_agree(fused, swiglu_reference, tensors, grad)


@triton
def test_halves_of_one_projection_and_other_layouts():
    both, grad = random(2, 3, 16), random(2, 3, 8, seed=1)
    assert_agree(lambda x: fused(*x.chunk(2, -1)), lambda x: swiglu_reference(*x.chunk(2, -1)), [both], grad)
    (gate, up), grad = arguments((2, 3, 8), torch.float32)
    for _, view in layouts(gate):
        assert_agree(fused, swiglu_reference, (view, up), grad)
    for _, view in layouts(grad):
        assert_agree(fused, swiglu_reference, (gate, up), view)
    assert_agree(fused, swiglu_reference, (gate, up), grad[:1, :1].expand(2, 3, 8))


@triton
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # NumPy's; 1 / (1 + inf) is the right 0
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_values(dtype):
    (gate, up), grad = arguments((4, 33), dtype)
    assert_agree(fused, swiglu_reference, (gate * 1000, up), grad, size=1000.0)


@triton
def test_operator_is_registered_right_and_compiles():
    from gpt_kernels.triton.swiglu import swiglu as operator

    tensors, grad = arguments((2, 3, 8), torch.float32)
    compiled = torch.compile(lambda gate, up: fused(gate * 1, up) + 1, backend="aot_eager", fullgraph=True)
    assert_agree(compiled, lambda gate, up: swiglu_reference(gate, up) + 1, tensors, grad, scale=2)
    check_operator(operator, *(tensor.requires_grad_() for tensor in tensors))
    check_operator(operator, *random(3, 8).chunk(2, -1), tracing=False)


@triton
def test_dispatch_looks_at_the_arguments():
    (gate, up), _ = arguments((3, 5), torch.float32)
    assert swiglu_backend(gate, up) == ("triton" if gate.is_cuda else "torch")
    assert swiglu_backend(gate.double(), up.double()) == "torch"


@triton
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_kernels_compile_for_gpus(sm, direction):
    names = ["gate", "up"] + (["out"] if direction == "forward" else ["grad", "grad_gate", "grad_up"])
    strides = ["N", "gate_m", "up_m"] + ([] if direction == "forward" else ["grad_m"])
    signature = dict.fromkeys(names, "*bf16:16") | dict.fromkeys(strides, "i32:16")
    made = compile_for(f"gpt_kernels.triton.swiglu:{direction}_kernel", signature, {"BN": 2048}, sm)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx and "st.global.v4" in made.ptx


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(49152, 2048), (3, 1001, 1000)])
def test_on_a_gpu(shape, dtype):
    tensors, grad = arguments(shape, dtype)
    assert swiglu_backend(*tensors) == "triton" and kernel_device() == "cuda"
    assert_agree(swiglu, swiglu_reference, tensors, grad, scale=2)
