"""The Triton quantiser against torch's casts, bit by bit, in both orders."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from gpt_kernels import quantize
from gpt_kernels.ops import fp8
from gpt_kernels.ops.fp8 import E4M3, E5M2, quantize_both
from gpt_kernels.testing import DTYPES, check_operator, compile_for, kernel_device, layouts, random
from gpt_kernels.triton import fp8 as kernels

SHAPES = [(1, 1), (3, 5), (64, 128), (130, 33), (17, 300), (0, 8), (3, 0)]


def scale_of(value):
    return torch.tensor(value, dtype=torch.float32, device=kernel_device())


def bits(q):
    return q.view(torch.uint8)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_torchs_cast_in_both_orders(shape, source, dtype, transposed):
    x = random(*shape, dtype=source, scale=30)
    q, q_transposed = kernels.quantize_fp8(x, scale_of(0.07), dtype, transposed)
    expected = quantize(x, scale_of(0.07), dtype)
    assert q.dtype == dtype and torch.equal(bits(q), bits(expected))
    if transposed:
        assert q_transposed.is_contiguous() and torch.equal(bits(q_transposed), bits(expected.t().contiguous()))
    else:
        assert q_transposed.shape == (0,)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_the_whole_range(dtype):
    x = torch.logspace(-12, 6, 4096, dtype=torch.float32, device=kernel_device()).view(64, 64)
    inf, nan = float("inf"), float("nan")
    x[0, :4], x[1::2] = torch.tensor([inf, -inf, nan, 0.0]), -x[1::2]
    q, _ = kernels.quantize_fp8(x, scale_of(1.0), dtype, False)
    expected = quantize(x, 1.0, dtype)
    assert torch.equal(q.float().nan_to_num(7), expected.float().nan_to_num(7)) and q.float()[0, 2].isnan()
    assert q.float().nan_to_num().abs().max() == torch.finfo(dtype).max


def test_layouts():
    x = random(20, 30, dtype=torch.bfloat16)
    expected = quantize_both(x.cpu(), torch.tensor(0.01), E4M3, transposed=True)
    for _, view in layouts(x):
        for ours, theirs in zip(kernels.quantize_fp8(view, scale_of(0.01), E4M3, True), expected, strict=True):
            assert torch.equal(bits(ours).cpu(), bits(theirs))


@pytest.mark.parametrize(("minor", "expected"), [(6, []), (9, [E4M3])])
def test_e4m3_is_for_gpus_that_have_it(monkeypatch, minor, expected):
    """The compiler knows no such conversion before sm_89."""
    x, taken, quantize_fp8 = random(20, 30), [], kernels.quantize_fp8
    monkeypatch.setattr(kernels, "quantize_fp8", lambda *a: taken.append(a[2]) or quantize_fp8(*a))
    monkeypatch.setattr(fp8, "fits_triton", lambda x: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8, minor=minor))
    quantize_both(x, scale_of(0.1), E5M2, transposed=True)
    quantize_both(x, scale_of(0.1), E4M3, transposed=True)
    assert taken == [E5M2, *expected]


def test_operator_is_registered_right():
    x = random(20, 30, dtype=torch.bfloat16)
    check_operator(kernels.quantize_fp8, x, scale_of(0.01), E5M2, True)
    check_operator(kernels.quantize_fp8, x.t(), scale_of(0.01), E4M3, False)


def test_compiles_to_one_graph():
    x = random(20, 30)
    step = lambda x: kernels.quantize_fp8(x * 2, x.abs().amax() / 448, E4M3, True)[1].float()
    torch.testing.assert_close(torch.compile(step, backend="aot_eager", fullgraph=True)(x), step(x))


@pytest.mark.slow
@pytest.mark.parametrize(("sm", "out"), [(80, "fp8e5"), (90, "fp8e5"), (90, "fp8e4nv")])
def test_kernel_compiles_for_gpus(sm, out):
    sizes = {"stride_n": 1, "LARGEST": 448.0, "TRANSPOSED": True, "BM": kernels.BLOCK_M, "BN": kernels.BLOCK_N}
    tensors = {"x": "*bf16:16", "scale": "*fp32:16", "q": f"*{out}:16", "q_transposed": f"*{out}:16"}
    numbers = dict.fromkeys(["M", "N", "stride_m"], "i32:16")
    name = "gpt_kernels.triton.fp8:quantize_kernel"
    made = compile_for(name, tensors | numbers, sizes, sm, num_warps=kernels.WARPS)
    assert made.cubin_bytes, made.error
    assert "div.rn.f32" in made.ptx and "div.full" not in made.ptx  # torch's division, bit by bit
    assert "ld.global.v4" in made.ptx and "st.global.v" in made.ptx  # both orders are written in wide words


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(49152, 768), (768, 50304), (50304, 768)])
def test_on_a_gpu(shape):
    x = random(*shape, dtype=torch.bfloat16)
    for view in (x, x.t().contiguous().t()):
        for ours, theirs in zip(
            kernels.quantize_fp8(view, scale_of(0.01), E4M3, True),
            (quantize(x, 0.01), quantize(x, 0.01).t().contiguous()),
            strict=True,
        ):
            assert torch.equal(bits(ours), bits(theirs))
