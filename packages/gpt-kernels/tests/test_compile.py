"""Every operation is one graph for torch.compile, and costs nothing where nothing is compiled."""

import subprocess
import sys

import pytest
import torch

from gpt_kernels import apply_rotary, attention, rms_norm, rotary_table


@pytest.mark.slow
def test_operations_compile_to_one_graph():
    def step(q, k, v, cos, sin):
        q, k = apply_rotary(rms_norm(q), cos, sin), apply_rotary(rms_norm(k), cos, sin, style="half")
        short = attention(q, k, v, window=3)
        return short + attention(q, k, v, softcap=4.0)

    q, k, v = (torch.randn(2, heads, 6, 8) for heads in (4, 2, 2))
    arguments = (q, k, v, *rotary_table(6, 8))
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), step(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"causal": False}, {"window": 3}, {"softcap": 4.0}])
def test_attention_compiles_for_any_length(options):
    torch.compiler.reset()  # torch counts how often it compiled a function
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    for T in (9, 12, 7, 1):
        q, k, v = (torch.randn(2, heads, T, 8) for heads in (4, 2, 2))
        torch.testing.assert_close(compiled(q, k, v, **options), attention(q, k, v, **options))


def test_importing_the_package_and_eager_losses_import_neither_the_compiler_nor_triton():
    """Seven seconds of CPU that a run which compiles nothing would pay."""
    check = """
import sys, torch, gpt_kernels as k, gpt_kernels.testing, gpt_kernels.bench.case
imported = lambda: [name for name in ("torch._dynamo", "triton") if name in sys.modules]
after_import = imported()
x, w = torch.ones(3, 16, requires_grad=True), torch.ones(32, 16, requires_grad=True)
y = torch.zeros(3, dtype=torch.int64)
for reduction in ("mean", "none"):
    k.linear_cross_entropy(x, w, y, softcap=2.0, reduction=reduction).sum().backward()
k.fp8_linear_cross_entropy(x, w, y, backend="emulated").backward()
k.fp8_linear(x, w, backend="emulated").sum().backward()
k.cross_entropy(x, y, target_weights=[1.0, 0.5]).backward()
print(after_import, imported())
"""
    command = [sys.executable, "-W", "ignore", "-c", check]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "[] []"
