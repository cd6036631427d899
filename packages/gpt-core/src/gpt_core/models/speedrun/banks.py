"""Parameters of a speedrun model: banks of equal matrices, tables, and small ones; shapes, dtypes and first values.

A bank is one tensor for all layers, so that every rank updates as many matrices of one shape. Dimensions: L layers, A
layers with attention, D width, F hidden width, H heads, V padded vocabulary, N value embeddings, E bigram channels.

| name           | shape          | first value                                              | optimizer's view |
|----------------|----------------|----------------------------------------------------------|------------------|
| attn           | (A', 4·D, D)   | U(±√3/2 · D^−½), O too; rows Q, K, V, O of a layer        | (4·A', D, D)     |
| qk             | (P, 2·D/H, D)  | with pair_banks, as attn: of a layer pairs of heads of Q, of K | the same    |
| vo             | (W, D, D)      | with pair_banks, as attn: V and O of a layer             | the same         |
| mlp            | (M, 2, F, D)   | fc like attn, proj 0                                     | (2·M, F, D)      |
| embed          | (V, D)         | that of lm_head, transposed                              |                  |
| lm_head        | (D, V)         | N(0, 0.005); (in, out)                                   |                  |
| value_embed    | (N·V, D)       | 0, or N(0, value_std)                                    |                  |
| bigram_embed   | (rows, E)      | 0                                                        |                  |
| attn_gate_bank | (A, H, 12)     | 0                                                        |                  |
| ve_gate_bank   | (N, H, 12)     | 0                                                        |                  |
| smear_gate     | (1, 12)        | 0                                                        |                  |
| skip_gate      | (1, 12)        | 0                                                        |                  |
| x0_lambdas     | (L,)           | 0                                                        |                  |
| scalars        | see `Scalars`  |                                                          |                  |
| resid_lambdas  | (L, 2)         | √1.1; sublayer_lambdas: attention, MLP                   |                  |
| post_lambdas   | (L, 2[, 2])    | 1; the same; of both lanes with parallel_lanes           |                  |
| bigram_lambdas | (L,)           | 0.05; the same                                           |                  |
| xsa_alphas     | (L, H)         | 0                                                        |                  |
| mudd_*         | see `mudd`     |                                                          |                  |

A', P, W and M are padded so that the optimizer's view is a multiple of `bank_multiple` matrices; padding is zero, no
layer uses it. Scalars and lambdas are float32 whatever the dtype of the others. A switch that is off leaves its
parameters out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import mudd
from .config import GATE_CHANNELS, SpeedrunConfig, round_up

HEAD_STD = 0.005
SIGN_ROWS = 8192
FLOAT32 = ("x0_lambdas", "scalars", "resid_lambdas", "post_lambdas", "bigram_lambdas", "xsa_alphas", "mudd_gate_scale")
SECOND_LANE = 1.5
"""What attention adds to the second lane at first, in layers that have two."""


def parameter_shapes(config: SpeedrunConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter that this configuration has, by name, in the order of the model."""
    D, V, L, H = config.n_embd, config.padded_vocab_size, config.n_layer, config.n_head
    A, N, sublayers = config.attention_layers, config.value_layers, config.sublayer_lambdas
    multiple, static = config.bank_multiple, not config.mudd_gates
    table: list[tuple[str, bool, tuple[int, ...]]] = [
        ("attn", not config.pair_banks, (round_up(4 * A, multiple, 4), 4 * D, D)),
        ("qk", config.pair_banks, (round_up(A * H, multiple), 2 * config.head_dim, D)),
        ("vo", config.pair_banks, (round_up(2 * A, multiple), D, D)),
        ("mlp", True, (round_up(2 * L, multiple, 2), 2, config.ffn_dim, D)),
        ("embed", True, (V, D)),
        ("lm_head", True, (D, V)),
        ("value_embed", config.value_embeddings, (N * V, D)),
        ("bigram_embed", config.bigram_embeddings, config.bigram_shape),
        ("attn_gate_bank", config.attention_gates and static, (A, H, GATE_CHANNELS)),
        ("ve_gate_bank", config.value_gates, (N, H, GATE_CHANNELS)),
        ("smear_gate", config.smear, (1, GATE_CHANNELS)),
        ("skip_gate", config.skip and static, (1, GATE_CHANNELS)),
        ("x0_lambdas", config.x0_lambdas and static, (L,)),
        ("scalars", True, (len(Scalars.first(config)),)),
        ("resid_lambdas", sublayers, (L, 2)),
        ("post_lambdas", sublayers, (L, 2, 2) if config.parallel_lanes else (L, 2)),
        ("bigram_lambdas", sublayers and config.bigram_embeddings and static, (L,)),
        ("xsa_alphas", config.xsa and static, (L, H)),
    ]
    shapes = {name: shape for name, there, shape in table if there}
    return {**shapes, **mudd.parameter_shapes(config)}


class Scalars:
    """`scalars` of a forward pass, 0-d: as such they do not make bfloat16 tensors float32.

    | laid out as  | count | first value | meaning                                                          |
    |--------------|-------|-------------|------------------------------------------------------------------|
    | residual     | L     | 1.1         | multiplies the stream before a layer; not with sublayer_lambdas  |
    | qkv, out     | L · 2 | 0.5, 1      | multiply the weights of Q, K, V, and O; pairs. Q and K are normed |
    | bigram       | L     | 0.1         | multiplies the bigram before a layer; not with sublayer_lambdas  |
    | smear        | 1     | 0           |                                                                  |
    | backout      | 1     | 0.5         | not with mudd                                                    |
    | skip         | 1     | −1.5        | a sigmoid is taken                                               |
    """

    def __init__(self, config: SpeedrunConfig, scalars: Tensor):
        L, values = config.n_layer, list(scalars.unbind(0))
        take = lambda n: [values.pop(0) for _ in range(n)]
        self.residual = [] if config.sublayer_lambdas else take(L)
        pairs = take(2 * L)
        self.qkv, self.out = pairs[0::2], pairs[1::2]
        self.bigram = [] if config.sublayer_lambdas else take(L)
        self.smear = values.pop(0)
        backout = None if config.mudd else values.pop(0)
        self.backout = backout if config.backout else None
        self.skip = values.pop(0)

    @staticmethod
    def first(config: SpeedrunConfig) -> list[float]:
        """First values, in order."""
        L, once = config.n_layer, 0 if config.sublayer_lambdas else config.n_layer
        backout = [] if config.mudd else [0.5]
        return [*[1.1] * once, *[0.5, 1.0] * L, *[0.1] * once, 0.0, *backout, -1.5]


def new_parameters(config: SpeedrunConfig) -> dict[str, nn.Parameter]:
    """Every parameter with its shape and dtype, zero; `init_weights` gives the first values."""
    dtype = getattr(torch, config.dtype)
    # zeros, not empty: untouched pages of the large tables take no memory
    return {
        name: nn.Parameter(torch.zeros(shape, dtype=torch.float32 if name in FLOAT32 else dtype))
        for name, shape in parameter_shapes(config).items()
    }


def new_signs(config: SpeedrunConfig) -> Tensor:
    """(8192, E) of ±1, in the model's dtype; for a given seed always the same, since it is part of the architecture."""
    generator = torch.Generator().manual_seed(config.init_seed or 0)
    coins = torch.randint(2, (SIGN_ROWS, config.bigram_shape[1]), generator=generator, device="cpu")
    return (2 * coins - 1).to(getattr(torch, config.dtype))


@torch.no_grad()
def init_weights(model: nn.Module, config: SpeedrunConfig) -> None:
    """First values of the parameters that are not zero; random numbers are float32 whatever the dtype.

    What records after 68 add is drawn last, so that the rest is the same without it.
    """
    parameters = dict(model.named_parameters())
    device = parameters["lm_head"].device
    if device.type == "meta":
        return
    generator = None if config.init_seed is None else torch.Generator(device).manual_seed(config.init_seed)
    wide = lambda tensor: torch.empty_like(tensor, dtype=torch.float32)
    uniform = lambda tensor, most: tensor.copy_(wide(tensor).uniform_(-most, most, generator=generator))
    normal = lambda tensor, std: tensor.copy_(wide(tensor).normal_(0, std, generator=generator))
    A, L, H, D = config.attention_layers, config.n_layer, config.n_head, config.n_embd
    used = {"attn": A, "qk": A * H, "vo": 2 * A}
    matrices = [matrix for name, count in used.items() if name in parameters for matrix in parameters[name][:count]]
    for matrix in (*parameters["mlp"][:L, 0], *matrices):
        uniform(matrix, 3**0.5 / 2 * D**-0.5)
    normal(parameters["lm_head"], HEAD_STD)
    parameters["embed"].copy_(parameters["lm_head"].t())
    parameters["scalars"].copy_(torch.tensor(Scalars.first(config)))
    if config.value_std:
        normal(parameters["value_embed"], config.value_std)
    for name in ("mudd_w1", "mudd_gate_w1"):
        if name in parameters:
            uniform(parameters[name], D**-0.5)  # as those of nn.Linear
    for name, value in {"resid_lambdas": 1.1**0.5, "post_lambdas": 1.0, "bigram_lambdas": 0.05}.items():
        if name in parameters:
            parameters[name].fill_(value)
    if config.parallel_lanes:
        parameters["post_lambdas"][config.places.backout :, 0, 1] = SECOND_LANE
    for name, first in mudd.first_values(config).items():
        parameters[name].copy_(first)
