"""The predictor: an encoder that says of every token what it is in the expression.

B rows, T positions, n tokens that are not padding, H width, K head width, C classes of all columns together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt_dag.executor import Execution, execute
from gpt_dag.plans import Plans
from gpt_dag.predictor.config import PredictorConfig
from gpt_dag.predictor.decode import Prediction, decode
from gpt_dag.predictor.packing import Neighbours, Packing
from gpt_dag.tokens import WordTokenizer


@dataclass(frozen=True)
class TagLogits:
    """Logits of every column of `tags`."""

    packed: Tensor
    """(n, C): the columns side by side, tokens without padding."""
    classes: tuple[int, ...]
    """Classes of each column."""
    packing: Packing

    @cached_property
    def columns(self) -> tuple[Tensor, ...]:
        """(n, classes) of each column."""
        return self.packed.split(self.classes, -1)

    def column(self, which: int) -> Tensor:
        """(B, T, classes) of one column; zeros in the padding."""
        return self.packing.unpack(self.columns[which])

    def tags(self) -> Tensor:
        """(B, T, 6) int64: the likeliest class of every column, -1 in the padding."""
        best = torch.stack([column.argmax(-1) for column in self.columns], -1)
        return self.packing.unpack(best, fill=-1)


class PredictorOnlyModel(nn.Module):
    """Bidirectional pre-norm encoder with a linear head per column of tags on every token.

    A token is decided by what stands around it, and the model sees no further than that (`config.window` per layer), so
    that expressions longer than all of its training are read as well as short ones. Padding (id 0) is left out before
    the first layer: it costs nothing and changes nothing.
    """

    def __init__(self, config: PredictorConfig, pad_id: int = 0):
        super().__init__()
        self.config, self.pad_id = config, pad_id
        rank, width = config.embedding_rank, config.n_embd
        self.embed = nn.Embedding(config.vocab_size, rank or width)
        self.embed_up = nn.Linear(rank, width, bias=False) if rank else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, sum(config.classes))
        self.apply(self._initialize)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(("out", "down")):  # what adds to the residual stream
                nn.init.normal_(module.weight, std=(2 * config.n_layer * module.in_features) ** -0.5)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)

    def forward(self, ids: Tensor) -> TagLogits:
        """ids (B, T) int64. A row may be all padding."""
        packing = Packing(ids != self.pad_id)
        x = self.embed_up(self.embed(packing.pack(ids)))
        seen: dict[Any, Any] = {}  # what layers of one reach share
        for block in self.blocks:
            x = block(x, packing, seen)
        return TagLogits(self.head(self.norm(x)), self.config.classes, packing)

    @torch.no_grad()
    def predict_plan(self, ids: Tensor) -> Prediction:
        """What the network reads in ids (B, T), one expression a row, and what of it makes no expression."""
        words = ids if self.config.vocab_size == WordTokenizer.vocab_size else None
        return decode(self(ids).tags(), self.config.max_digits, words)

    def execute(self, plans: Plans, **options: Any) -> Execution:
        """The float64 value of every node of B plans; options as in `gpt_dag.execute`. Exact: `Plans.fractions`."""
        values = plans.values()
        zero = plans.scaled == 0
        log = values.abs().masked_fill(zero, 1.0).log()
        sign = torch.where(plans.negative, -1.0, 1.0).double().masked_fill(zero, 0.0)
        return execute(sign, log, plans.operator, plans.left, plans.right, **options)

    @staticmethod
    def to_text(plans: Plans) -> list[str]:
        """Each plan in symbols."""
        return [str(expression) for expression in plans.expressions()]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x)); x (n, H)."""

    def __init__(self, config: PredictorConfig, layer: int):
        super().__init__()
        self.mixer_norm = nn.LayerNorm(config.n_embd, bias=False)
        self.mixer = Convolution(config, layer) if config.mixer == "conv" else Attention(config)
        self.ffn_norm = nn.LayerNorm(config.n_embd, bias=False)
        self.up = nn.Linear(config.n_embd, config.ffn_dim, bias=False)
        self.down = nn.Linear(config.ffn_dim, config.n_embd, bias=False)

    def forward(self, x: Tensor, packing: Packing, seen: dict[Any, Any]) -> Tensor:
        if self.mixer.reach not in seen:
            seen[self.mixer.reach] = self.mixer.context(packing)
        x = x + self.mixer(self.mixer_norm(x), seen[self.mixer.reach])
        return x + self.down(F.gelu(self.up(self.ffn_norm(x)), approximate="tanh"))


class Attention(nn.Module):
    """Rotary self-attention, to `window` tokens on either side or to all of the row."""

    def __init__(self, config: PredictorConfig):
        super().__init__()
        self.heads, self.head_dim, self.theta = config.n_head, config.head_dim, config.rope_theta
        self.reach = config.window if config.mixer == "window" else None
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def context(self, packing: Packing) -> tuple[Packing, Tensor, Tensor, Tensor]:
        """What all layers share: the mask, and cosine and sine (n, 1, K/2) of the positions."""
        power = torch.arange(0, self.head_dim, 2, device=packing.live.device) / self.head_dim
        angle = packing.position[:, None].float() * self.theta**-power
        return packing, packing.attention_mask(self.reach), angle.cos()[:, None], angle.sin()[:, None]

    def forward(self, x: Tensor, context: tuple[Packing, Tensor, Tensor, Tensor]) -> Tensor:
        packing, mask, cos, sin = context
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, self.head_dim).unbind(1)  # (n, heads, K) each
        padded = packing.unpack(torch.stack((rotate(q, cos, sin), rotate(k, cos, sin), v), 1))  # (B, T, 3, heads, K)
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(packing.pack(mixed.transpose(1, 2).flatten(2)))


class Convolution(nn.Module):
    """A dense convolution over `window` tokens on either side, with gaps that grow from layer to layer."""

    def __init__(self, config: PredictorConfig, layer: int):
        super().__init__()
        self.reach = config.window, config.dilations[layer % len(config.dilations)]
        self.out = nn.Linear((2 * config.window + 1) * config.n_embd, config.n_embd, bias=False)

    def context(self, packing: Packing) -> Neighbours:
        return packing.neighbours(*self.reach)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        return self.out(neighbours(x))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021, arXiv:2104.09864) of x (n, heads, K), halves paired."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def predictor(vocab_size: int, context_length: int = 256, **shape: Any) -> PredictorOnlyModel:
    """A new predictor; `shape` are fields of `PredictorConfig`."""
    return PredictorOnlyModel(PredictorConfig(vocab_size, context_length, **shape))


predictor.accepts = PredictorConfig  # ty: ignore[missing-attribute]
