"""Symmetric products: panels on CPUs and Triton tiles against the whole product in float64, and their symmetry."""

import importlib.util

import pytest
import torch

import gpt_kernels
from gpt_kernels import ba_plus_caa, ba_plus_caa_reference, symmetric_backend, symmetric_product, xxt, xxt_reference
from gpt_kernels.ops import symmetric as op
from gpt_kernels.testing import (
    DTYPES,
    assert_agree,
    assert_near,
    check_operator,
    compile_for,
    gradients,
    kernel_device,
    layouts,
    random,
)

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
SHAPES = [(1, 1), (3, 5), (32, 32), (33, 70), (2, 65, 17), (2, 2, 40, 8), (0, 4, 3), (5, 0)]


def fused(x, y, addend=None, alpha=1.0, beta=1.0):
    from gpt_kernels.triton.symmetric import symmetric_product

    return symmetric_product(x, y, addend, alpha, beta)


def symmetric(*shape, dtype=torch.float32, seed=0):
    a = random(*shape, dtype=torch.float64, seed=seed, scale=shape[-1] ** -0.5)
    return (a + a.mT).to(dtype)


def assert_symmetric(out):
    assert torch.equal(out, out.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(256, 30), (2, 300, 520), (3, 1, 257, 256)])
def test_panels_compute_the_same(shape, dtype):
    x = random(*shape, dtype=dtype, scale=shape[-1] ** -0.5).cpu()
    assert symmetric_backend(x) == "panels"
    for view in (x, x.mT.contiguous().mT):
        assert_near(xxt(view), xxt_reference(x.double()), scale=4)
        assert torch.equal(xxt(view)[..., :128, 128:256], xxt(view)[..., 128:256, :128].mT)
    a = symmetric(*shape[:-1], shape[-2], dtype=dtype).cpu()
    assert_near(ba_plus_caa(a, b=-2.5, c=0.3), ba_plus_caa_reference(a.double(), b=-2.5, c=0.3), scale=4)
    assert_near(symmetric_product(x, x.mT, alpha=3.0), 3 * xxt_reference(x.double()), scale=4)


def test_panels_are_left_where_gradients_are_wanted_or_graphs_are_traced():
    x = random(256, 8).cpu().requires_grad_()
    assert symmetric_backend(x) == "torch"
    with torch.no_grad():
        assert symmetric_backend(x) == "panels"
    assert_agree(xxt, xxt_reference, [x], random(256, 256).cpu(), scale=8, size=8.0)
    compiled = torch.compile(xxt, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x.detach()), xxt(x.detach()))


def test_reference_is_differentiable():
    a = symmetric(2, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: ba_plus_caa_reference(a, b=2.0, c=3.0), a)
    assert torch.autograd.gradcheck(lambda a: ba_plus_caa(a, b=2.0, c=3.0), a)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \[\(2, 3\), \(2, 3\)\]"):
        symmetric_product(torch.empty(2, 3), torch.empty(2, 3))
    with pytest.raises(ValueError, match=r"addend"):
        ba_plus_caa(torch.empty(2, 3), b=1.0, c=1.0)


@triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_xxt_kernel(shape, dtype):
    x = random(*shape, dtype=dtype, scale=max(shape[-1], 1) ** -0.5)
    out = fused(x, x.mT)
    assert out.dtype == dtype
    assert_near(out, xxt_reference(x.double()), scale=2)
    assert_symmetric(out)


@triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (40, 40), (2, 65, 65)])
def test_ba_plus_caa_kernel(shape, dtype):
    a = symmetric(*shape, dtype=dtype)
    out = fused(a, a, a, 0.5, -2.75)
    assert_near(out, ba_plus_caa_reference(a.double(), b=-2.75, c=0.5), scale=2)
    assert_symmetric(out)


@triton
def test_product_of_two_polynomials_of_one_matrix():
    a = symmetric(40, 40, dtype=torch.float64)
    b = a @ a + a
    assert_near(fused(a.float(), b.float()), a @ b, scale=16)


@triton
@pytest.mark.parametrize("shape", [(33, 20), (2, 3, 9, 20)])
def test_layouts(shape):
    x = random(*shape, scale=shape[-1] ** -0.5)
    for _, view in layouts(x):
        assert_near(fused(view, view.mT), xxt_reference(x.double()), scale=4)
    assert_near(fused(x.mT, x), xxt_reference(x.double().mT), scale=4)
    expanded = x[:1].expand(shape)
    assert_near(fused(expanded, expanded.mT), xxt_reference(expanded.double()), scale=4)


@triton
def test_large_values_do_not_overflow_before_they_are_scaled():
    x = random(33, 20, dtype=torch.float16) * 100
    assert_near(fused(x, x.mT, None, 1e-3), 1e-3 * xxt_reference(x.double()), scale=2)


@triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype):
    x, grad = random(20, 12, dtype=dtype, scale=0.3), random(20, 20, dtype=dtype, seed=1)
    assert_agree(lambda x: fused(x, x.mT), xxt_reference, [x], grad, scale=4, size=None)
    a = symmetric(20, 20, dtype=dtype)
    expected = lambda a: ba_plus_caa_reference(a, b=2.0, c=3.0)
    assert_agree(lambda a: fused(a, a, a, 3.0, 2.0), expected, [a], grad, scale=4, size=None)


@triton
def test_operator_is_registered_right():
    from gpt_kernels.triton.symmetric import symmetric_product as operator

    a = symmetric(2, 9, 9)
    check_operator(operator, a.requires_grad_(), a.detach().clone().requires_grad_(), None, 2.0, 1.0)
    check_operator(operator, a.detach().mT, a.detach(), a.detach(), 2.0, 3.0)


@triton
def test_dispatch_reaches_the_kernel_also_when_compiled(monkeypatch):
    x = random(70, 64, dtype=torch.bfloat16, scale=0.1)
    assert symmetric_backend(x) == "torch"  # 70 is not a multiple of 8
    x = x[:64]
    assert symmetric_backend(x) == ("triton" if x.is_cuda else "torch")
    monkeypatch.setattr(op, "symmetric_backend", lambda *tensors: "triton")
    exact = xxt_reference(x.double())
    compiled = torch.compile(xxt, backend="aot_eager", fullgraph=True)
    for function in (xxt, compiled, gpt_kernels.xxt):
        assert_near(function(x), exact)
    found = gradients(compiled, [x], exact.to(x.dtype))
    assert_near(found[1], 2 * exact @ x.double(), scale=4)


@triton
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize(("T", "TK", "warps", "stages"), [(128, 64, 8, 4), (64, 64, 4, 4)])
@pytest.mark.parametrize(("addend", "transposed"), [(False, False), (True, False), (False, True)])
def test_kernel_compiles_for_gpus(sm, T, TK, warps, stages, addend, transposed):
    signature = dict.fromkeys(["x", "y", "addend", "out"], "*bf16:16") | dict.fromkeys(["alpha", "beta"], "fp32")
    signature |= dict.fromkeys(["S", "K", "x_b", "y_b", "a_b", "a_s"], "i32:16")
    steps, ones = (("x_s", "y_s"), ("x_k", "y_k", "a_k"))
    if transposed:
        steps, ones = ("x_k", "y_k"), ("x_s", "y_s", "a_k")
    signature |= dict.fromkeys(steps, "i32:16")
    sizes = {"HAS_ADDEND": addend, "T": T, "TK": TK} | dict.fromkeys(ones, 1)
    made = compile_for(
        "gpt_kernels.triton.symmetric:symmetric_kernel", signature, sizes, sm, num_warps=warps, num_stages=stages
    )
    assert made.cubin_bytes and 0 < made.shared_bytes <= (232_448 if sm == 90 else 166_912)
    assert ("wgmma" if sm == 90 else "mma.sync") in made.ptx
    assert "cp.async.cg.shared.global" in made.ptx  # 16 bytes at a time, past the first cache


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(768, 768), (4, 768, 3072), (3072, 768), (1000, 200)])
def test_on_a_gpu(shape, dtype):
    x = random(*shape, dtype=dtype, scale=shape[-1] ** -0.5)
    assert symmetric_backend(x) == "triton" and kernel_device() == "cuda"
    for view in (x, x.mT):
        assert_near(xxt(view), xxt_reference(view.double()), scale=4)
        assert_symmetric(xxt(view))
    a = symmetric(*shape[:-1], shape[-2], dtype=dtype)
    assert_near(ba_plus_caa(a, b=-2.5, c=0.3), ba_plus_caa_reference(a.double(), b=-2.5, c=0.3), scale=4)
