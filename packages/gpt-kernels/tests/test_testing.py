"""The interpreter after its repair rounds and multiplies as torch does; the checks themselves can fail."""

import pytest
import torch

from gpt_kernels import testing
from gpt_kernels.testing import assert_near, gradients, kernel_device, layouts, random

interpreted = pytest.mark.skipif(kernel_device() != "cpu", reason="about the interpreter")


@interpreted
def test_interpreter_converts_as_torch_does():
    np = pytest.importorskip("numpy")
    tl = pytest.importorskip("triton.language")
    from triton.runtime import interpreter

    assert testing.conversions_are_right()
    values = torch.cat((random(4000), random(4000, scale=1e-3), torch.tensor([0.0, -0.0, 1.98, 1e-9, 2.0**-9])))
    for dtype in (tl.bfloat16, tl.float16, tl.float8e4nv, tl.float8e5):
        torch_dtype = testing._dtypes()[dtype]
        width = dtype.primitive_bitwidth
        bits = interpreter._convert_float(values.numpy(), tl.float32, dtype, interpreter._ir.ROUNDING_MODE.RTNE)
        expected = values.to(torch_dtype).view({8: torch.uint8, 16: torch.int16}[width]).numpy()
        assert np.array_equal(bits.view(expected.dtype), expected)
        back = interpreter._convert_float(bits, dtype, tl.float32, None).view(np.float32)
        assert np.array_equal(back, values.to(torch_dtype).float().numpy())


@interpreted
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_interpreter_multiplies_as_torch_does(dtype):
    np = pytest.importorskip("numpy")
    tl = pytest.importorskip("triton.language")
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    assert testing.dots_are_right()
    ours = next(key for key, value in testing._dtypes().items() if value == dtype)
    a, b = random(16, 16).to(dtype), random(16, 16, seed=1).to(dtype)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.float32}[dtype.itemsize]
    views = [x.view(bits).numpy() for x in (a, b)]
    handles = [TensorHandle(x if dtype.itemsize == 4 else x.view(f"u{dtype.itemsize}"), ours) for x in views]
    zero = TensorHandle(np.zeros((16, 16), np.float32), tl.float32)
    out = InterpreterBuilder().create_dot(*handles, zero, None, 0)
    assert_near(torch.from_numpy(out.data), a.double() @ b.double())


@interpreted
def test_repair_leaves_a_right_interpreter_alone(monkeypatch):
    pytest.importorskip("triton")
    from triton.runtime import interpreter

    before = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot
    testing.repair_interpreter()
    assert (interpreter._convert_float, interpreter.InterpreterBuilder.create_dot) == before


def test_near_means_near():
    exact = random(100, dtype=torch.float64)
    assert_near(exact.bfloat16(), exact)
    with pytest.raises(AssertionError):
        assert_near(exact.bfloat16() * 1.02, exact)
    with pytest.raises(AssertionError):
        assert_near(exact.float() + 1e-5, exact)
    with pytest.raises(AssertionError, match="shape"):
        assert_near(exact, exact[:1])


def test_layouts_hold_the_same_values():
    x = random(3, 4, 5)
    views = dict(layouts(x))
    assert all(torch.equal(view, x) for view in views.values())
    assert len({view.stride() for view in views.values()}) == len(views) == 5


def test_gradients_are_in_the_order_of_the_arguments():
    a, b = torch.tensor([2.0]), torch.tensor([3.0])
    found = gradients(lambda a, nothing, b: a * a * b, (a, None, b), torch.tensor([10.0]))
    assert found == [torch.tensor([12.0]), torch.tensor([120.0]), None, torch.tensor([40.0])]


@pytest.mark.slow
def test_a_kernel_that_a_gpu_cannot_run_is_refused_with_the_reason():
    pytest.importorskip("triton")
    tensors = {"x": "*fp8e4nv", "weight": "*fp32", "y": "*fp32", "M": "i32", "eps": "fp32"}
    sizes = {"N": 16, "BM": 1, "BN": 16, "HAS_WEIGHT": True}
    made = testing.compile_for("gpt_kernels.triton.rms_norm:forward_kernel", tensors, sizes, sm=80)
    assert "fp8e4nv not supported" in made.error and not made.ptx
