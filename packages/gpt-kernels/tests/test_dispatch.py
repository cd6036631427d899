"""What may go to a kernel: plain tensors of the right dtypes on one device; asked in eager and in compiled code."""

import pytest
import torch

from gpt_kernels.ops.dispatch import are_plain, autocast_together, fits_triton


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([torch.ones(2), torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))], True),
        ([torch.ones(2), torch.ones(2).as_subclass(Subclass)], False),
        ([torch.ones(2), torch.ones(2, dtype=torch.float64)], False),
        ([torch.ones(2), torch.ones(2, device="meta")], False),
        ([torch.ones(2), torch.ones(0)], False),
    ],
)
def test_plain_tensors(tensors, expected):
    assert are_plain(tensors) is expected
    if not isinstance(tensors[1], Subclass):
        compiled = torch.compile(lambda *given: given[0] + int(are_plain(given)), backend="eager", fullgraph=True)
        assert torch.equal(compiled(*tensors), tensors[0] + expected)


def test_cpu_tensors_never_go_to_a_kernel():
    assert not fits_triton(torch.ones(2), None)


def test_autocast_casts_what_it_would_cast():
    wide, exact = torch.ones(2), torch.ones(2, dtype=torch.float64)
    assert autocast_together(wide, exact) == (wide, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [tensor.dtype for tensor in autocast_together(wide, exact)] == [torch.bfloat16, torch.float64]
