"""What tests of Triton kernels need: an interpreter that is right, a compiler without a GPU, tolerances, odd layouts.

    from gpt_kernels.testing import use_interpreter
    use_interpreter()             # before the first import of a module with kernels (in conftest.py)

Nothing here imports triton until it is asked for something.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

ROW_SHAPES = ((1, 1), (3, 5), (2, 3, 7), (4, 128), (2, 1, 5, 33), (17, 100), (0, 8), (3, 0, 4))
"""Shapes for operations over the last dimension: single, odd, just off and on a power of two, empty."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""Relative error allowed in one value: rounding to the dtype once, doubled; for float32 the sums before it as well."""


def kernel_device() -> str:
    """Where kernels run in this process: "cuda", or "cpu" for the interpreter."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def assert_near(
    actual: Tensor,
    exact: Tensor,
    *,
    scale: float = 1.0,
    size: float | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Every value of `actual` lies near that of `exact` (float64): within `scale` tolerances of the dtype of `actual`,
    or of `dtype`, relative to the value plus `size`.

    size: how large the terms are that a value was summed from, where they may cancel to little; unless given, the root
    mean square of `exact`.
    """
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    rtol = scale * TOLERANCE[dtype or actual.dtype]
    if size is None:
        size = exact.double().square().mean().sqrt().item() if exact.numel() else 0.0
    torch.testing.assert_close(actual.cpu().double(), exact.cpu().double(), rtol=rtol, atol=rtol * size)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers on `kernel_device()`, the same on every device."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return values.to(dtype).to(kernel_device())


def layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same values in other memory layouts, named: transposed, cut from a wider tensor, strided, with an offset."""
    yield "contiguous", x.contiguous()
    if x.dim() >= 2:
        yield "rows swapped", x.transpose(0, -2).contiguous().transpose(0, -2)
        yield "last dimension outermost", x.transpose(0, -1).contiguous().transpose(0, -1)
    for name, start, step in (("cut out", 3, 1), ("every second", 1, 2)):
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 3, dtype=x.dtype, device=x.device)
        yield name, wide[..., start : start + step * x.shape[-1] : step].copy_(x)


def gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], grad: Tensor, dtype: torch.dtype | None = None
) -> list[Tensor | None]:
    """[output, gradient of each tensor] of `function(*tensors)` for the gradient `grad` of its output.

    dtype: what to convert everything to first; float64 gives the exact answer.
    """
    leaves = [t if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for t in tensors]
    out = function(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(out, wanted, grad.to(out.dtype)))
    return [out.detach(), *(leaf if leaf is None else next(found) for leaf in leaves)]


def assert_agree(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    tensors: Sequence[Tensor | None],
    grad: Tensor,
    *,
    scale: float = 1.0,
    size: float | None = 1.0,
) -> None:
    """The output of `function(*tensors)` and its gradients are those of the reference in float64, in the dtypes and
    shapes of the tensors; `scale` and `size` as in `assert_near`."""
    found = gradients(function, tensors, grad)
    exact = gradients(reference, tensors, grad, torch.float64)
    for tensor, actual, expected in zip((None, *tensors), found, exact, strict=True):
        if actual is not None and expected is not None:
            assert tensor is None or actual.dtype == tensor.dtype
            assert_near(actual, expected, scale=scale, size=size)


def check_operator(operator: Any, *args: Any, tracing: bool = True) -> None:
    """torch's checks of a custom operator: schema, fake, autograd, and (`tracing`) ahead-of-time autograd, which cannot
    clone views of larger tensors."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*grad attribute of a Tensor that is not a leaf")
        torch.library.opcheck(
            operator, args, test_utils=(*checks, *(("test_aot_dispatch_dynamic",) if tracing else ()))
        )


# --- The interpreter ------------------------------------------------------------------------------------------------


def use_interpreter() -> None:
    """Kernels decorated from now on run in Triton's interpreter, on the CPU, with right arithmetic.

    Call it before a module with kernels is imported. Triton's interpreter (3.9) computes with the bit patterns of
    bfloat16 in dots, truncates where it should round, and drops the carry when it rounds to fp8
    (triton-lang/triton#8322); `repair_interpreter` mends conversions and dots, not arithmetic in bfloat16: kernels
    convert to float32 right after every load.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    _interpret_standard_library()
    repair_interpreter()
    _search_builtins_once()


def repair_interpreter() -> None:
    """Mend conversions and dots of the interpreter, each only where a self-test says that it needs it."""
    import triton.runtime.interpreter as interpreter

    if not conversions_are_right():
        setattr(interpreter, "_convert_float", _Converter(interpreter._convert_float))  # noqa: B010 (a type of its own)
    if not dots_are_right():
        interpreter.InterpreterBuilder.create_dot = _dot


def conversions_are_right() -> bool:
    """Whether 1.98 rounds to 2.0 in e4m3 and 1 + 2⁻⁸ + 2⁻¹⁶ up in bfloat16, as on a GPU."""
    import numpy as np
    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    def converted(value: float, dtype: Any, bits: type, torch_dtype: torch.dtype) -> float:
        given = np.array([value], np.float32)
        out = interpreter._convert_float(given, tl.float32, dtype, interpreter._ir.ROUNDING_MODE.RTNE)
        return torch.from_numpy(np.asarray(out).view(bits).copy()).view(torch_dtype).float().item()

    half_up = converted(1 + 2**-8 + 2**-16, tl.bfloat16, np.int16, torch.bfloat16)
    return half_up == 1 + 2**-7 and converted(1.98, tl.float8e4nv, np.uint8, torch.float8_e4m3fn) == 2.0


def dots_are_right() -> bool:
    """Whether the product of two bfloat16 blocks is that of their values."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    ones = TensorHandle(np.full((1, 1), 0x3F80, np.uint16), tl.bfloat16)  # 1.0
    zero = TensorHandle(np.zeros((1, 1), np.float32), tl.float32)
    return bool((InterpreterBuilder().create_dot(ones, ones, zero, None, 0).data == 1).all())


def _interpret_standard_library() -> None:
    """torch.compile imports triton, perhaps before the interpreter was asked for: then tl.sum and the like are compiled
    functions, which interpreted kernels cannot call. Turn them into interpreted ones."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    modules = [module for name, module in sys.modules.items() if name.split(".")[:2] == ["triton", "language"]]
    interpreted: dict[int, Any] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, JITFunction):
                interpreted.setdefault(id(value), InterpretedFunction(value.fn))
                setattr(module, name, interpreted[id(value)])
                if isinstance(vars(tl.tensor).get(name), JITFunction):
                    setattr(tl.tensor, name, _as_method(interpreted[id(value)]))


def _search_builtins_once() -> None:
    """The interpreter searches all of triton.language for functions to replace at every launch and every call of a
    device function: a third of the time of a small kernel. Remember their names; which are replaced by now varies."""
    import inspect

    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    @cache
    def builtins_of(namespace: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(namespace) if tl.core.is_builtin(member)]

    def patch_builtin(namespace: Any, builder: Any, scope: Any) -> None:
        for name in builtins_of(namespace):
            member = getattr(namespace, name)
            if tl.core.is_builtin(member):
                interpreter._patch_attr(namespace, name, member, builder, scope)

    setattr(interpreter, "_patch_builtin", patch_builtin)  # noqa: B010 (as above)


def _as_method(function: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **kwargs)


@cache
def _dtypes() -> dict[Any, torch.dtype]:
    import triton.language as tl

    names = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float32", "float64": "float64"}
    names |= {"float8e4nv": "float8_e4m3fn", "float8e5": "float8_e5m2"}
    return {getattr(tl, ours): getattr(torch, torchs) for ours, torchs in names.items()}


class _Converter:
    """torch's conversions between float formats, which round to nearest even, in place of the interpreter's."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original

    def __call__(self, given: Any, source: Any, target: Any, rounding: Any) -> Any:
        import numpy as np

        dtypes = _dtypes()
        if source not in dtypes or target not in dtypes:
            return self.original(given, source, target, rounding)
        signed = {8: np.uint8, 16: np.int16, 32: np.int32, 64: np.int64}
        bits = np.ascontiguousarray(given).view(signed[source.primitive_bitwidth]).copy()
        values = torch.from_numpy(bits).view(dtypes[source])
        values = values.float() if dtypes[source] != torch.float64 else values
        if dtypes[target] == torch.float8_e5m2:  # the GPU's conversion saturates
            values = torch.where(values.isfinite(), values.clamp(-57344, 57344), values)
        width = target.primitive_bitwidth
        out = values.to(dtypes[target]).view({8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}[width])
        return out.numpy().view(getattr(np, f"uint{width}")).reshape(given.shape)


def _dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def wide(handle: Any) -> Any:
        if handle.dtype.scalar in (tl.float32, tl.float64) or handle.dtype.scalar not in _dtypes():
            return handle.data
        convert = _Converter(lambda *_: None)
        return convert(handle.data, handle.dtype.scalar, tl.float32, None).view(np.float32)

    return TensorHandle(np.matmul(wide(a), wide(b), dtype=d.data.dtype) + d.data, d.dtype.scalar)


# --- Compiling without a GPU ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel."""

    ptx: str = field(repr=False)
    cubin_bytes: int
    shared_bytes: int
    """Shared memory of one program; an H100 has 232,448 bytes, an A100 166,912."""

    error: str = ""
    """The compiler's message where it refused, else empty."""


def compile_for(
    kernel: str,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    sm: int = 90,
    *,
    num_warps: int = 4,
    num_stages: int = 3,
) -> Compiled:
    """Compile a kernel for a GPU that need not be there (80: A100, 90: H100 and H200, 100: B200).

    kernel      "module:name" of the `@triton.jit` function.
    signature   the type of every argument that is not a constexpr: "*bf16", "*fp8e4nv", "*fp32", "i64", "fp32", ...;
                a "*bf16:16" is a pointer (or "i32:16" a number) divisible by 16, as torch's allocations are.
    constexprs  the values of the others.

    Runs in one process for all calls, without TRITON_INTERPRET: interpreted functions cannot be compiled.
    """
    options = {"num_warps": num_warps, "num_stages": num_stages}
    reply = _compiler().ask({"kernel": kernel, "signature": signature, "constexprs": constexprs, "sm": sm, **options})
    return Compiled(**reply)


class _CompilerProcess:
    """A child that compiles what it reads, line by line; importing torch and triton is paid once."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["TRITON_DEFAULT_FP_FUSION"] = "1"  # 3.9 warns that its default will change
        command = [sys.executable, "-m", "gpt_kernels.testing"]
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.child.stdin and self.child.stdout
        print(json.dumps(question), file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"the compiling process ended with status {self.child.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self.child.stdin and self.child.stdout
        self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()


@cache
def _compiler() -> _CompilerProcess:
    return _CompilerProcess()


def _compile(
    kernel: str, signature: dict[str, str], constexprs: dict[str, Any], sm: int, num_warps: int, num_stages: int
) -> dict[str, Any]:
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = kernel.split(":")
    function = getattr(importlib.import_module(module), name)
    types, divisible = {}, {}
    for argument in function.arg_names:
        types[argument], _, divisor = signature.get(argument, "constexpr").partition(":")
        if divisor:
            divisible[(function.arg_names.index(argument),)] = [["tt.divisibility", int(divisor)]]
    source = ASTSource(fn=function, signature=types, constexprs=constexprs, attrs=divisible)
    options = {"num_warps": num_warps, "num_stages": num_stages}
    try:
        made = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    except triton.CompilationError as error:
        return {"ptx": "", "cubin_bytes": 0, "shared_bytes": 0, "error": str(error)}
    return {"ptx": made.asm["ptx"], "cubin_bytes": len(made.asm["cubin"]), "shared_bytes": made.metadata.shared}


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    for line in sys.stdin:
        print(json.dumps(_compile(**json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
