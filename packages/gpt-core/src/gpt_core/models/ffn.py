"""Feed-forward networks and their activations, by name.

Dimensions: B batch, T tokens, D model width, F hidden width of the network.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from gpt_kernels import relu2_mlp, swiglu

from .linear import Linear, is_just

if TYPE_CHECKING:  # config.py imports the registries, not the reverse
    from .config import GPTConfig


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU that GPT-2 was trained with."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU (https://arxiv.org/abs/2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "relu2": relu2,
}


class StandardFFN(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, config: "GPTConfig"):
        super().__init__()
        self.up = Linear(config.n_embd, config.ffn_dim, bias=config.has_ffn_bias)
        self.down = Linear(config.ffn_dim, config.n_embd, bias=config.has_ffn_bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.ffn_dropout_p

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.activation is relu2 and self._is_two_matrices():
            out_BTD = relu2_mlp(x_BTD, self.up.weight, self.down.weight.mT)  # keeps one tensor of (B, T, F), not two
        else:
            out_BTD = self.down(self.activation(self.up(x_BTD)))
        return F.dropout(out_BTD, self.dropout, self.training) if self.dropout else out_BTD

    def _is_two_matrices(self) -> bool:
        return all(is_just(linear, Linear) and linear.bias is None for linear in (self.up, self.down))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) ⊙ up(x)) (https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: "GPTConfig"):
        super().__init__()
        self.gate = Linear(config.n_embd, config.ffn_dim, bias=config.has_ffn_bias)
        self.up = Linear(config.n_embd, config.ffn_dim, bias=config.has_ffn_bias)
        self.down = Linear(config.ffn_dim, config.n_embd, bias=config.has_ffn_bias)
        self.dropout = config.ffn_dropout_p

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD = self.down(swiglu(self.gate(x_BTD), self.up(x_BTD)))
        return F.dropout(out_BTD, self.dropout, self.training) if self.dropout else out_BTD


FFNS: dict[str, type[nn.Module]] = {"standard": StandardFFN, "swiglu": SwiGLU}
