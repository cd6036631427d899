"""Parameters of a speedrun model: banks of equal matrices, tables, and small ones; shapes, dtypes and first values.

A bank is one tensor for all layers, so that every rank updates as many matrices of one shape. Dimensions: L layers, A
slots of the attention bank, D width, F hidden width, H heads, V padded vocabulary, N value embeddings, G gate channels.

| name           | shape            | first value                                           | optimizer's view     |
|----------------|------------------|-------------------------------------------------------|----------------------|
| attn           | (A, 4·D, D)      | U(±√3/2 · D^−½), O too; rows Q, K, V, O of a slot     | (4·A, D, D)          |
| mlp            | (M, 2, F, D)     | fc like attn, proj 0; padding 0                       | (2·M, F, D)          |
| embed          | (V, D)           | that of lm_head, transposed                           |                      |
| lm_head        | (D, V)           | N(0, 0.005); (in, out)                                |                      |
| value_embed    | (N·V, D)         | 0                                                     |                      |
| bigram_embed   | (5·V, D)         | 0                                                     |                      |
| attn_gate_bank | (layers, H, G)   | 0                                                     |                      |
| ve_gate_bank   | (N, H, G)        | 0                                                     |                      |
| smear_gate     | (1, G)           | 0                                                     |                      |
| skip_gate      | (1, G)           | 0                                                     |                      |
| x0_lambdas     | (L,) float32     | 0                                                     |                      |
| scalars        | (4·L + 3,) float32 | see `Scalars`                                       |                      |

A switch that is off leaves its parameters out, but for `scalars`, whose layout is always the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import GATE_CHANNELS, SpeedrunConfig

HEAD_STD = 0.005
SMALL = ("x0_lambdas", "scalars")
"""Parameters that are float32 whatever the dtype of the others."""


class Scalars(NamedTuple):
    """`scalars` of a forward pass, 0-d: as such they do not make bfloat16 tensors float32."""

    residual: tuple[Tensor, ...]
    """What multiplies the stream before layer i; at first 1.1."""
    qkv: tuple[Tensor, ...]
    """What multiplies the weight of Q, K and V; at first 0.5. Q and K are normed, so it scales V."""
    out: tuple[Tensor, ...]
    """What multiplies the weight of O; at first 1."""
    bigram: tuple[Tensor, ...]
    """What multiplies the bigram embedding before layer i; at first 0.1."""
    smear: Tensor
    backout: Tensor
    skip: Tensor
    """At first 0, 0.5 and −1.5."""

    @classmethod
    def of(cls, scalars: Tensor, n_layer: int) -> Scalars:
        """Cut the (4·L + 3,) tensor: L residual, L pairs (qkv, out), L bigram, smear, backout, skip."""
        L, values = n_layer, scalars.unbind(0)
        pairs = values[L : 3 * L]
        return cls(values[:L], pairs[0::2], pairs[1::2], values[3 * L : 4 * L], *values[4 * L :])

    @staticmethod
    def first(n_layer: int) -> Tensor:
        """First values, laid out as `of` reads them."""
        return torch.tensor([1.1] * n_layer + [0.5, 1.0] * n_layer + [0.1] * n_layer + [0.0, 0.5, -1.5])


def parameter_shapes(config: SpeedrunConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter that this configuration has, by name, in the order of the model."""
    D, V, L, G = config.n_embd, config.padded_vocab_size, config.n_layer, GATE_CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        "attn": (config.attention_slots, 4 * D, D),
        "mlp": (config.mlp_slots, 2, config.ffn_dim, D),
        "embed": (V, D),
        "lm_head": (D, V),
        "value_embed": (config.value_layers * V, D),
        "bigram_embed": (config.bigram_table, D),
        "attn_gate_bank": (config.attention_layers, config.n_head, G),
        "ve_gate_bank": (config.value_layers, config.n_head, G),
        "smear_gate": (1, G),
        "skip_gate": (1, G),
        "x0_lambdas": (L,),
        "scalars": (4 * L + 3,),
    }
    switches = {
        "value_embed": config.value_embeddings,
        "bigram_embed": config.bigram_embeddings,
        "attn_gate_bank": config.attention_gates,
        "ve_gate_bank": config.value_gates,
        "smear_gate": config.smear,
        "skip_gate": config.skip,
        "x0_lambdas": config.x0_lambdas,
    }
    return {name: shape for name, shape in shapes.items() if switches.get(name, True)}


def new_parameters(config: SpeedrunConfig) -> dict[str, nn.Parameter]:
    """Every parameter with its shape and dtype; values are what `init_weights` gives."""
    dtype = getattr(torch, config.dtype)
    # zeros, not empty: untouched pages of the large tables, zero at first, take no memory
    return {
        name: nn.Parameter(torch.zeros(shape, dtype=torch.float32 if name in SMALL else dtype))
        for name, shape in parameter_shapes(config).items()
    }


@torch.no_grad()
def init_weights(model: nn.Module, config: SpeedrunConfig) -> None:
    """First values of the parameters that are not zero; random numbers are float32 whatever the dtype."""
    parameters = dict(model.named_parameters())
    device = parameters["attn"].device
    if device.type == "meta":
        return
    generator = None if config.init_seed is None else torch.Generator(device).manual_seed(config.init_seed)
    bound = 3**0.5 / 2 * config.n_embd**-0.5
    for matrix in (*parameters["attn"][: config.attention_layers], *parameters["mlp"][: config.n_layer, 0]):
        matrix.copy_(torch.empty_like(matrix, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
    head = torch.empty_like(parameters["lm_head"], dtype=torch.float32).normal_(0, HEAD_STD, generator=generator)
    parameters["lm_head"].copy_(head)
    parameters["embed"].copy_(parameters["lm_head"].t())
    parameters["scalars"].copy_(Scalars.first(config.n_layer))
