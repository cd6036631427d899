"""Matrix products with ReLU² in their epilogues: nothing passes over the hidden activations a second time.

    forward   post = relu(x upᵀ)²                           one kernel, then post down
    backward  pre' = (grad downᵀ) · 2 √post                 the same kernel with another epilogue, then three products

Both factors of either product have the summed dimension last, which is how tensor cores read them. Programs stay: as
many as the GPU has multiprocessors, each takes tile after tile and loads the next while it stores the last.

From Hopper on loads and stores go through tensor descriptors, for which it has an engine that also minds the edges.
Before it Triton would take descriptors apart into loads that wait for each other: there the kernel has pointers.

Dimensions: M rows, N hidden, K summed; in the operators M rows, D channels in, F hidden, O channels out.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .layout import Tiles, on_device_of, processors, shared_memory


@triton.jit
def relu2_kernel(
    a,
    b,
    post,
    out,
    M,
    N,
    K,
    BACKWARD: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """a (M, K), b (N, K), post and out (M, N), all contiguous: pointers, or with DESCRIBED descriptors of tiles
    (BM, BK), (BN, BK), (BM, BN / 2) and the same.

    out = relu(a bᵀ)², or with BACKWARD (a bᵀ) · 2 √post. Tiles are taken GROUP rows of them at a time, so that those
    under way together share their factors in the L2 cache.
    """
    rows, columns = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), rows * columns, tl.num_programs(0), flatten=True):
        group = tile // (GROUP * columns)
        height = tl.minimum(rows - group * GROUP, GROUP)
        top = (group * GROUP + tile % (GROUP * columns) % height) * BM
        left = (tile % (GROUP * columns) // height) * BN
        sum_MN = tl.zeros((BM, BN), tl.float32)
        if DESCRIBED:
            for k in range(tl.cdiv(K, BK)):
                sum_MN = tl.dot(a.load([top, k * BK]), b.load([left, k * BK]).T, sum_MN)
        else:  # beyond the edge the first rows are read again: they are not stored
            depth = tl.arange(0, BK)
            a_at = a + ((top + tl.arange(0, BM)) % M).to(tl.int64)[:, None] * K + depth[None, :]
            b_at = b + ((left + tl.arange(0, BN)) % N).to(tl.int64)[:, None] * K + depth[None, :]
            for k in range(tl.cdiv(K, BK)):
                rest = (depth < K - k * BK)[None, :]
                a_MK, b_NK = tl.load(a_at, mask=rest, other=0.0), tl.load(b_at, mask=rest, other=0.0)
                sum_MN = tl.dot(a_MK, b_NK.T, sum_MN)
                a_at += BK
                b_at += BK
        # In two halves: the epilogue needs half the registers and half the shared memory.
        halves = tl.split(tl.permute(tl.reshape(sum_MN, (BM, 2, BN // 2)), (0, 2, 1)))
        row = (top + tl.arange(0, BM)).to(tl.int64)
        for half in tl.static_range(2):
            first = left + half * (BN // 2)
            column = first + tl.arange(0, BN // 2)
            at = row[:, None] * N + column[None, :]
            inside = (row < M)[:, None] & (column < N)[None, :]
            if BACKWARD:
                post_MN = post.load([top, first]) if DESCRIBED else tl.load(post + at, mask=inside, other=0.0)
                value = halves[half] * (2 * tl.sqrt(post_MN.to(tl.float32)))
            else:
                value = tl.maximum(halves[half], 0)
                value = value * value
            if DESCRIBED:
                out.store([top, first], value.to(out.dtype))
            else:
                tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def tiles_for(device: torch.device, backward: bool) -> Tiles:
    """Tiles for a GPU by its shared memory (H100: 227 KB, A100: 163 KB, others: 99 KB); small ones to interpret."""
    if device.type != "cuda":
        return Tiles(32, 32, 32, 4, 2)
    room = shared_memory(device)
    if room >= 220_000:
        return Tiles(128, 256, 64, 8, 3 if backward else 4)
    return Tiles(128, 128, 64, 8, 3) if room >= 160_000 else Tiles(128, 128, 32, 8, 3)


def has_copy_engine(device: torch.device) -> bool:
    """Hopper and later; the interpreter does descriptors too."""
    return device.type != "cuda" or torch.cuda.get_device_properties(device).major >= 9


def linear_relu2(a_MK: Tensor, b_NK: Tensor, post_MN: Tensor | None = None, *, described: bool | None = None) -> Tensor:
    """relu(a bᵀ)²; with post, (a bᵀ) · 2 √post. 16-bit floats, N and K multiples of 8. `described` is for tests."""
    (M, K), N = a_MK.shape, b_NK.shape[0]
    a_MK, b_NK = _aligned(a_MK), _aligned(b_NK)
    out_MN = a_MK.new_empty(M, N)
    if not out_MN.numel():
        return out_MN
    device, backward = a_MK.device, post_MN is not None
    tiles = tiles_for(device, backward)
    described = has_copy_engine(device) if described is None else described
    half = [tiles.M, tiles.N // 2]
    operands = [(a_MK, [tiles.M, tiles.K]), (b_NK, [tiles.N, tiles.K])]
    operands += [(out_MN if post_MN is None else post_MN, half), (out_MN, half)]
    with on_device_of(a_MK):
        programs = min(processors(device), triton.cdiv(M, tiles.M) * triton.cdiv(N, tiles.N))
        relu2_kernel[(programs,)](
            *(TensorDescriptor.from_tensor(tensor, block) if described else tensor for tensor, block in operands),
            M,
            N,
            K,
            BACKWARD=backward,
            BM=tiles.M,
            BN=tiles.N,
            BK=tiles.K,
            GROUP=8,
            DESCRIBED=described,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return out_MN


def _aligned(x: Tensor) -> Tensor:
    """Contiguous and starting at a multiple of 16 bytes, as the copy engine asks."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


@torch.library.custom_op("gpt_kernels::relu2_mlp", mutates_args=())
def relu2_mlp(x: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """(out, post) for x (M, D), up (F, D), down (F, O); see `gpt_kernels.relu2_mlp`. No gradient goes through post."""
    post_MF = linear_relu2(x, up)
    return post_MF @ down, post_MF


@relu2_mlp.register_fake
def _(x: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], down.shape[1]), x.new_empty(x.shape[0], up.shape[0])


@torch.library.custom_op("gpt_kernels::relu2_mlp_backward", mutates_args=())
def relu2_mlp_backward(
    grad: Tensor, x: Tensor, up: Tensor, down: Tensor, post: Tensor, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, up and down; empty where not wanted."""
    none = x.new_empty(0)
    pre_MF = linear_relu2(grad, down, post) if wants[0] or wants[1] else none
    return (
        pre_MF @ up if wants[0] else none,
        pre_MF.mT @ x if wants[1] else x.new_empty(0),
        post.mT @ grad if wants[2] else x.new_empty(0),
    )


@relu2_mlp_backward.register_fake
def _(
    grad: Tensor, x: Tensor, up: Tensor, down: Tensor, post: Tensor, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (tensor.shape if want else (0,) for tensor, want in zip((x, up, down), wants, strict=True))
    found = [x.new_empty(shape) for shape in shapes]
    return found[0], found[1], found[2]


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)  # of post: zeros as large as the activations
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if grad is None:
        return None, None, None
    wants = list(ctx.needs_input_grad)
    found = relu2_mlp_backward(grad, *ctx.saved_tensors, wants)
    grads = [gradient if want else None for gradient, want in zip(found, wants, strict=True)]
    return grads[0], grads[1], grads[2]


relu2_mlp.register_autograd(_backward, setup_context=_setup_context)
