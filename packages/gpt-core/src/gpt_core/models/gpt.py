"""GPT: token embedding, blocks, final norm, head.

Dimensions: B batch, T tokens, D model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpt_kernels

from .attention import KVCache
from .block import BLOCKS
from .config import GPTConfig
from .linear import Linear, is_just
from .norms import NORMS
from .positions import POSITIONS, Rotary, positions_in_documents


class GPT(nn.Module):
    """A decoder-only transformer made of the components that its config names.

    Attributes that other packages rely on: `config`, `embed` (nn.Embedding), `blocks` (nn.ModuleList, one
    per layer, each called as block(x_BTD, rotary, cache, cu_seqlens)), `norm`, `head` (nn.Linear, or None when tied).
    """

    supports_cache = True
    looks_back = False
    """Whether a token's first vector depends on the token before it: a cache must then know that one (`before`)."""
    supports_packing = True

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.position = POSITIONS[config.position_encoding](config)
        self.blocks = nn.ModuleList(self.make_block(layer) for layer in range(config.n_layer))
        self.norm = NORMS[config.normalization](config.n_embd, config.norm_eps)
        tied = config.weight_tying
        self.head = None if tied else Linear(config.n_embd, config.padded_vocab_size, bias=False)
        init_weights(self)

    def make_block(self, layer: int) -> nn.Module:
        """The block at this place."""
        return BLOCKS[self.config.norm_position](self.config, layer)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        cache: KVCache | None = None,
        only_last: bool = False,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the next token at every position; only_last gives (B, 1, V).

        cu_seqlens: (D+1,) int32 from 0 to T: the row (B = 1) holds D documents, each with positions from 0 and without
        sight of the others, and each no longer than the context length.
        """
        x_BTD = self.hidden(ids_BT, cache=cache, cu_seqlens=cu_seqlens)
        return self.logits(x_BTD[:, -1:] if only_last else x_BTD)

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Vectors after the final norm, (B, T, D): what the head reads."""
        x_BTD, rotary = self.embedded(ids_BT, cache, cu_seqlens)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary, cache, cu_seqlens)
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return self.norm(x_BTD)

    def embedded(
        self, ids_BT: Tensor, cache: KVCache | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Rotary | None]:
        """What the first block is given, (B, T, D), and the rotary table of the tokens' positions.

        ValueError: more tokens than the context holds, or a cache with packed documents.
        """
        T = ids_BT.shape[1]
        if cu_seqlens is not None:
            if cache is not None:
                raise ValueError("packed documents (cu_seqlens) cannot be decoded with a cache; give one of the two")
            self._check_documents(cu_seqlens)
            positions = positions_in_documents(cu_seqlens, T)
        elif self.config.context_length < T:
            raise ValueError(f"{T} tokens do not fit the context of {self.config.context_length}; crop them")
        else:
            positions = None if cache is None else cache.positions(T)
        return self._vectors(ids_BT, positions)

    def _vectors(self, ids_BT: Tensor, positions: Tensor | None) -> tuple[Tensor, Rotary | None]:
        x_BTD, rotary = self.position(self.embed(ids_BT), positions)
        if self.config.embedding_norm:
            x_BTD = gpt_kernels.rms_norm(x_BTD, eps=self.config.norm_eps)
        if self.config.embedding_dropout_p:
            x_BTD = F.dropout(x_BTD, self.config.embedding_dropout_p, self.training)
        return x_BTD, rotary

    def _check_documents(self, cu_seqlens: Tensor) -> None:
        """ValueError for a document longer than the context; not on a GPU, where looking would wait for it."""
        if cu_seqlens.device.type != "cpu" or torch.compiler.is_compiling():
            return
        if (longest := int(cu_seqlens.diff().max())) > self.config.context_length:
            raise ValueError(
                f"a document of {longest} tokens does not fit the context of {self.config.context_length}; pack "
                "documents with max_document and cut_validation so that none is longer"
            )

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Head and soft cap: (B, T, D) -> (B, T, V). Soft-capped logits are float32."""
        logits_BTV = gpt_kernels.linear(x_BTD, self.embed.weight) if self.head is None else self.head(x_BTD)
        if self.config.padded_vocab_size != self.config.vocab_size:
            logits_BTV = logits_BTV[..., : self.config.vocab_size]
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits_BTV.float() / cap) if cap else logits_BTV

    def head_weight(self) -> Tensor | None:
        """(V, D): `logits` are x times this, transposed and soft-capped, for losses that never hold them all.

        None where someone has a hand in the logits: a subclass, a hook, another module as the head. Under fsdp it is
        whole only while the module that gathers it runs.
        """
        if not is_just(self, GPT) or not (self.head is None or is_just(self.head, Linear)):
            return None
        weight = self.embed.weight if self.head is None else self.head.weight
        return weight[: self.config.vocab_size]


def init_weights(model: GPT) -> None:
    """Set every parameter of the model; the only place where weights get their first value.

    Linear and embedding weights: normal with std init_std (embeddings and head may have their own). The two
    maps of each block that write to the residual stream: init_std / sqrt(2 · n_layer), so that the sum of
    2 · n_layer contributions keeps its size. Biases 0, norm weights 1.
    """
    if model.embed.weight.is_meta:  # nothing to set, and torch would import its compiler to do so
        return
    config = model.config
    generator = None
    if config.init_seed is not None:
        generator = torch.Generator(model.embed.weight.device).manual_seed(config.init_seed)
    residual_std = config.residual_init_std
    if residual_std is None:
        residual_std = config.init_std / (2 * config.n_layer) ** 0.5
    stds = {
        "attn.out.weight": residual_std,
        "ffn.down.weight": residual_std,
        "embed.weight": config.embedding_init_std,
        "position.weight": config.embedding_init_std,
        "head.weight": config.head_init_std,
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim < 2:
                parameter.fill_(1.0)
            else:
                std = next((std for end, std in stds.items() if name.endswith(end)), None)
                parameter.normal_(0.0, config.init_std if std is None else std, generator=generator)


def gpt(vocab_size: int, context_length: int, preset: str = "gpt2_pre", **fields: Any) -> GPT:
    """Build a GPT from a preset (see presets.PRESETS) and any fields of GPTConfig, which override it."""
    return GPT(GPTConfig.from_preset(preset, vocab_size=vocab_size, context_length=context_length, **fields))


gpt.accepts = GPTConfig  # ty: ignore[missing-attribute]  # the config checker reads valid keywords from here
