"""ReLU² perceptron: definition, the path that keeps only post, and the Triton kernels, against float64."""

import importlib.util

import pytest
import torch

from gpt_kernels import relu2_mlp, relu2_mlp_backend, relu2_mlp_reference
from gpt_kernels.testing import assert_agree, check_operator, compile_for, gradients, kernel_device, random

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
CLOSE = {"scale": 6, "size": None}  # four roundings on the way to a gradient, errors of a sum's terms add up
HALVES = [torch.bfloat16, torch.float16]


def arguments(shape, F, O, dtype):  # noqa: E741
    """x, up, down of a size that keeps the hidden activations near 1, and the gradient of the output."""
    D = shape[-1]
    x, up, down = random(*shape, dtype=dtype), random(F, D, seed=1, scale=D**-0.5), random(F, O, seed=2, scale=F**-0.5)
    return (x, up.to(dtype), down.to(dtype)), random(*shape[:-1], O, dtype=dtype, seed=3)


def fused(x, up, down):
    from gpt_kernels.triton.relu2_mlp import relu2_mlp

    return relu2_mlp(x, up, down)[0]


def test_definition():
    x, up, down = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0], [-2.0, 0.0]]), torch.tensor([[5.0], [7.0]])
    assert relu2_mlp_reference(x, up, down).item() == relu2_mlp(x, up, down).item() == 5  # relu(1)² 5 + relu(-2)² 7


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (40, 7), (0, 4), (4,)])
def test_keeping_only_post_changes_nothing(shape):
    tensors, grad = arguments(shape, 6, 3, torch.float64)
    assert_agree(lambda *a: relu2_mlp(*a), relu2_mlp_reference, tensors, grad)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert not grad.numel() or torch.autograd.gradcheck(relu2_mlp, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_dtypes_and_layouts(dtype):
    (x, up, down), grad = arguments((40, 24), 16, 8, dtype)
    views = (x.mT.contiguous().mT, up.mT.contiguous().mT, down.mT.contiguous().mT)
    for tensors in ((x, up, down), views):
        assert_agree(relu2_mlp, relu2_mlp_reference, tensors, grad, **CLOSE)


def test_keeps_one_tensor_of_the_hidden_size():
    (x, up, down), _ = arguments((8, 4), 32, 4, torch.float32)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        out = relu2_mlp(x, up.requires_grad_(), down.requires_grad_())
    assert sorted(tuple(t.shape) for t in kept.values()) == [(8, 4), (8, 32), (32, 4), (32, 4)]
    out.sum().backward()
    assert up.grad is not None and x.grad is None


def test_autocast_decides_the_dtype_of_the_products():
    tensors, grad = arguments((40, 24), 16, 8, torch.float32)
    with torch.autocast(kernel_device(), dtype=torch.bfloat16):
        out = relu2_mlp(*(tensor.requires_grad_() for tensor in tensors))
    out.backward(grad.bfloat16())
    assert out.dtype == torch.bfloat16
    assert [tensor.grad.dtype for tensor in tensors] == [torch.float32] * 3


def test_a_second_derivative_is_refused():
    tensors, _ = arguments((3, 4), 6, 5, torch.float32)
    out = relu2_mlp(*(tensor.requires_grad_() for tensor in tensors)).sum()
    with pytest.raises(RuntimeError, match="relu2_mlp is differentiable once"):
        torch.autograd.grad(out, tensors, create_graph=True)


def test_wrong_shapes_are_refused():
    (x, up, down), _ = arguments((3, 4), 6, 5, torch.float32)
    with pytest.raises(ValueError, match=r"got \(3, 4\), \(6, 4\) and \(5, 6\); a weight of nn.Linear"):
        relu2_mlp(x, up, down.mT)


def test_compiles_to_one_graph():
    tensors, grad = arguments((4, 8), 16, 8, torch.float32)
    compiled = torch.compile(lambda *a: relu2_mlp(*a) + 1, backend="aot_eager", fullgraph=True)
    assert_agree(compiled, lambda *a: relu2_mlp_reference(*a) + 1, tensors, grad, **CLOSE)


@triton
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("M", "D", "F", "O"), [(1, 8, 8, 8), (33, 40, 72, 16), (70, 64, 128, 64), (0, 8, 16, 8)])
def test_kernels(M, D, F, O, dtype):  # noqa: E741
    tensors, grad = arguments((M, D), F, O, dtype)
    assert_agree(fused, relu2_mlp_reference, tensors, grad, **CLOSE)


@triton
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("M", "K", "N"), [(1, 8, 8), (33, 40, 72), (70, 64, 128)])
def test_pointers_and_descriptors_give_the_same(M, K, N, dtype):
    from gpt_kernels.triton.relu2_mlp import linear_relu2

    a, b = random(M, K, dtype=dtype), random(N, K, dtype=dtype, seed=1)
    post = linear_relu2(a, b)
    assert torch.equal(linear_relu2(a, b, described=False), post)
    assert torch.equal(linear_relu2(a, b, post, described=False), linear_relu2(a, b, post))


@triton
@pytest.mark.parametrize("dtype", HALVES)
def test_kernels_are_as_accurate_as_separate_steps(dtype):
    tensors, grad = arguments((70, 64), 128, 64, dtype)
    exact = gradients(relu2_mlp_reference, tensors, grad, torch.float64)
    apart = gradients(relu2_mlp_reference, tensors, grad)
    for ours, theirs, truth in zip(gradients(fused, tensors, grad), apart, exact, strict=True):
        assert (ours.double() - truth).norm() <= 1.15 * (theirs.double() - truth).norm()


@triton
def test_kernels_take_other_layouts():
    (x, up, down), grad = arguments((33, 16), 24, 8, torch.bfloat16)
    views = (x.mT.contiguous().mT, up.mT.contiguous().mT, down.mT.contiguous().mT)
    assert_agree(fused, relu2_mlp_reference, views, grad[:1].expand(33, 8), **CLOSE)
    shifted = torch.cat((x.new_zeros(1), x.flatten()))[1:].view(33, 16)  # not at a multiple of 16 bytes
    assert_agree(fused, relu2_mlp_reference, (shifted, up, down), grad, **CLOSE)


@triton
def test_large_activations():
    tensors, grad = arguments((16, 16), 16, 8, torch.bfloat16)
    tensors = (tensors[0] * 1e6, *tensors[1:])
    assert_agree(fused, relu2_mlp_reference, tensors, grad, **CLOSE)


@triton
def test_operator_is_registered_right():
    from gpt_kernels.triton.relu2_mlp import relu2_mlp as operator

    tensors, _ = arguments((4, 8), 16, 8, torch.bfloat16)
    check_operator(operator, *(tensor.requires_grad_() for tensor in tensors))


@triton
def test_a_second_derivative_of_the_kernels_is_refused():
    tensors, _ = arguments((4, 8), 16, 8, torch.bfloat16)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    grads = torch.autograd.grad(fused(*leaves).sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(sum(grad.square().sum() for grad in grads), leaves)


@triton
def test_dispatch_reaches_the_kernel_also_when_compiled(monkeypatch):
    from gpt_kernels.ops import relu2_mlp as op

    tensors, grad = arguments((2, 5, 8), 16, 8, torch.bfloat16)
    assert relu2_mlp_backend(*tensors) == ("triton" if tensors[0].is_cuda else "torch")
    monkeypatch.setattr(op, "fits_triton", lambda *tensors, dtypes: True)
    assert relu2_mlp_backend(*tensors) == "triton"
    assert relu2_mlp_backend(tensors[0], tensors[1][:12], tensors[2][:12]) == "torch"
    compiled = torch.compile(relu2_mlp, backend="aot_eager", fullgraph=True)
    for function in (relu2_mlp, compiled):
        assert_agree(function, relu2_mlp_reference, tensors, grad, **CLOSE)


@triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sm", "tiles", "room"), [(80, (128, 128, 64, 8, 3), 166_912), (90, (128, 256, 64, 8, 4), 232_448)]
)
@pytest.mark.parametrize("backward", [False, True])
def test_kernel_compiles_for_gpus(sm, tiles, room, backward):
    BM, BN, BK, warps, stages = tiles
    pieces = {"a": (BM, BK), "b": (BN, BK), "post": (BM, BN // 2), "out": (BM, BN // 2)}
    signature = {name: f"tensordesc<bf16[{rows},{columns}]>" for name, (rows, columns) in pieces.items()}
    if sm < 90:
        signature = dict.fromkeys(pieces, "*bf16:16")
    made = compile_for(
        "gpt_kernels.triton.relu2_mlp:relu2_kernel",
        signature | dict.fromkeys("MNK", "i32:16"),
        {"BACKWARD": backward, "BM": BM, "BN": BN, "BK": BK, "GROUP": 8, "DESCRIBED": sm >= 90},
        sm,
        num_warps=warps,
        num_stages=stages - (backward and sm >= 90),
    )
    assert made.cubin_bytes and 0 < made.shared_bytes <= room
    assert made.shared_bytes >= (stages - 1) * (BM + BN) * BK * 2  # loads are under way while products are made
    assert ("wgmma" if sm == 90 else "mma.sync") in made.ptx
    assert ("cp.async.bulk.tensor" if sm == 90 else "cp.async.cg") in made.ptx


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(4096, 768, 3072, 768), (1001, 64, 200, 72)])
def test_on_a_gpu(shape, dtype):
    M, D, F, O = shape  # noqa: E741
    tensors, grad = arguments((M, D), F, O, dtype)
    assert relu2_mlp_backend(*tensors) == "triton"
    assert_agree(relu2_mlp, relu2_mlp_reference, tensors, grad, **CLOSE)
