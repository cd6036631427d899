"""Transposed copies and sums: bit for bit those of torch, in every dtype and layout."""

import importlib.util

import pytest
import torch

from gpt_kernels import (
    transpose_add,
    transpose_add_reference,
    transpose_backend,
    transpose_copy,
    transpose_copy_reference,
)
from gpt_kernels.ops import transpose as op
from gpt_kernels.testing import DTYPES, assert_agree, check_operator, compile_for, kernel_device, layouts, random

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
SHAPES = [(1, 1), (3, 5), (70, 130), (2, 33, 40), (2, 1, 3, 65), (0, 4), (3, 0), (0, 2, 3)]


def fused_copy(x):
    from gpt_kernels.triton.transpose import transpose_copy

    return transpose_copy(x)


def fused_add(x, y):
    from gpt_kernels.triton.transpose import transpose_add

    return transpose_add(x, y)


def test_definitions():
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert transpose_copy(x).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert transpose_copy(x).is_contiguous() and transpose_copy(x[:, :1]).is_contiguous()
    square = torch.ones(2, 2)
    assert transpose_copy(square).data_ptr() != square.data_ptr()
    assert transpose_add(x.float(), torch.ones(3, 2)).tolist() == [[2, 5], [3, 6], [4, 7]]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\) torch.float32 and \(2, 3\)"):
        transpose_add(torch.ones(2, 3), torch.ones(2, 3))


@triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels(shape, dtype):
    x, y = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1).mT.contiguous()
    for out, expected in (
        (fused_copy(x), transpose_copy_reference(x)),
        (fused_add(x, y), transpose_add_reference(x, y)),
    ):
        assert out.is_contiguous() and torch.equal(out, expected)


@triton
@pytest.mark.parametrize("dtype", op.COPIED[3:])
def test_copies_other_dtypes(dtype):
    x = (random(7, 5) * 100).to(dtype)
    assert torch.equal(fused_copy(x), x.mT)


@triton
def test_layouts_and_large_values():
    x, y = random(3, 6, 5), random(3, 5, 6, seed=1)
    x[0, 0, 0], x[1, 1, 1] = float("inf"), 3e38
    for _, view in layouts(x):
        assert torch.equal(fused_copy(view), x.mT)
        assert torch.equal(fused_add(view, y), x.mT + y)
    for _, view in layouts(y):
        assert torch.equal(fused_add(x, view), x.mT + y)


@triton
def test_gradients_operators_and_one_graph():
    from gpt_kernels.triton import transpose as kernels

    x, y, grad = random(3, 5), random(5, 3, seed=1), random(5, 3, seed=2)
    compiled = torch.compile(lambda x, y: fused_add(x * 1, fused_copy(y.mT)), backend="aot_eager", fullgraph=True)
    for function in (fused_add, transpose_add, compiled):
        assert_agree(function, transpose_add_reference, (x, y), grad)
    for function in (fused_copy, transpose_copy):
        assert_agree(function, transpose_copy_reference, (x,), grad)
    check_operator(kernels.transpose_copy, x.requires_grad_())
    check_operator(kernels.transpose_add, x, y)


@triton
def test_dispatch_looks_at_the_arguments(monkeypatch):
    x, y = random(3, 5), random(5, 3)
    assert transpose_backend(x) == transpose_backend(x, y) == ("triton" if x.is_cuda else "torch")
    monkeypatch.setattr(
        op, "fits_triton", lambda *tensors, dtypes: all(t is None or t.dtype in dtypes for t in tensors)
    )
    assert transpose_backend(x.double()) == "triton" and transpose_backend(x.double(), y.double()) == "torch"
    assert torch.equal(transpose_copy(x), x.mT) and torch.equal(transpose_add(x, y), x.mT + y)


@triton
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize(("add", "BM", "BN", "warps"), [(False, 64, 128, 8), (True, 32, 32, 4)])
def test_kernel_compiles_for_gpus(sm, add, BM, BN, warps):
    signature = dict.fromkeys(["x", "y", "out"], "*bf16:16") | dict.fromkeys(
        ["M", "N", "x_b", "x_m", "y_b", "y_n"], "i32:16"
    )
    sizes = {"ADD": add, "BM": BM, "BN": BN, "x_n": 1, "y_m": 1}
    made = compile_for("gpt_kernels.triton.transpose:transpose_kernel", signature, sizes, sm, num_warps=warps)
    assert made.cubin_bytes and made.shared_bytes  # turned on the chip
    assert "ld.global.v" in made.ptx and "st.global.v" in made.ptx


@pytest.mark.gpu
def test_on_a_gpu_beyond_32_bits():
    x = torch.empty(49152, 50304, dtype=torch.int8, device=kernel_device()).random_()
    out = transpose_copy(x)
    assert transpose_backend(x) == "triton"
    assert all(torch.equal(out[n], x[:, n]) for n in (0, 25_000, 50_303))
