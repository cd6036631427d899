"""Float8 in the speedrun: whether this machine has it, and the MLP whose forward products use it (records 84 and 89).

Dimensions: M tokens, D width, F hidden width of the MLP.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt_kernels import fp8_linear
from gpt_kernels.ops.fp8_linear import FP8Backend

HEADROOM = 1.8
"""The down projection's activations are scaled for so many times the largest one of the call before."""
LARGEST = torch.finfo(torch.float8_e4m3fn).max


def check_fp8(device: str = "auto") -> None:
    """ValueError where no GPU here multiplies float8, or `device` (as in general.device) is not a GPU."""
    if device.startswith("cpu"):
        found = "general.device=cpu"
    elif not torch.cuda.is_available():
        found = "no CUDA GPU"
    elif torch.cuda.get_device_capability() < (8, 9):
        found = torch.cuda.get_device_name()
    else:
        return
    raise ValueError(
        f"float8 needs a GPU of compute capability 8.9 or more (Ada, Hopper), found {found}: switch it off by "
        "loss.module_kwargs.fp8=false and model.module_kwargs.fp8_mlp=off"
    )


def fp8_relu2_mlp(
    x_BTD: Tensor, up_FD: Tensor, down_FD: Tensor, amax: Tensor | None, backend: FP8Backend = "scaled_mm"
) -> Tensor:
    """relu(x upᵀ)² down with forward products in e4m3, gradients in the dtype of x as in `gpt_kernels.relu2_mlp`.

    x and both weights are scaled by their largest magnitude now. amax: None for a down projection in the dtype of x;
    else 0-d, the largest activation of the call before, by which activations are scaled, and which is replaced by that
    of this call; 0 for none yet, then this call's. (Upstream scales weights of the down projection by the step before,
    with headroom 1.12, and its first activations by 1.)
    """
    flat_MD = x_BTD.reshape(-1, x_BTD.shape[-1])
    scale = None if amax is None else amax.clone()
    out_MD, largest = _FP8Forward.apply(flat_MD, up_FD, down_FD, scale, backend)
    if amax is not None:
        amax.copy_(largest)
    return out_MD.view(x_BTD.shape)


class _FP8Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, up_FD: Tensor, down_FD: Tensor, amax: Tensor | None, backend: FP8Backend
    ) -> tuple[Tensor, Tensor]:
        post_MF = fp8_linear(x_MD, up_FD, backend=backend).relu().square()
        largest = post_MF.amax().float()
        if amax is None:
            out_MD = post_MF @ down_FD
        else:
            scale = torch.where(amax > 0, amax * HEADROOM, largest).clamp(min=1e-12) / LARGEST
            out_MD = fp8_linear(post_MF, down_FD.t(), x_scale=scale, backend=backend)
        ctx.save_for_backward(x_MD, up_FD, down_FD, post_MF)
        ctx.mark_non_differentiable(largest)
        return out_MD, largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_MD = grads[0]
        x_MD, up_FD, down_FD, post_MF = ctx.saved_tensors
        pre_MF = 2 * (grad_MD @ down_FD.t()) * post_MF.sqrt()  # √post = relu(pre)
        return pre_MF @ up_FD, pre_MF.t() @ x_MD, post_MF.t() @ grad_MD, None, None
