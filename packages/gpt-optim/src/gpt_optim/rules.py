"""Ready rules: which parameters of a model Muon takes, and what the optimizer must know of their layout.

Every function returns rules for `param_groups`, with the options of `MuonAdamW` in each:

- `kind`: "muon" for the matrices inside the blocks ("normuon" where `muon` says so), "adamw" for the rest;
- `split`: the rows of each matrix fused in one weight, e.g. (d, d, d) for queries, keys and values;
- `transposed`: True where a weight is stored (in, out), as Hugging Face's Conv1D does: `split` and the scale by shape
  then refer to its transpose;
- `weight_decay`: 0 for tensors of one dimension or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpt_optim.groups import Rule, clean_names, exactly

EMBEDDING = r"(?i)embed|position|wte|wpe"
HEAD = r"^(?!.*\.\d+\.)(.*\.)?(lm_head|head|output|embed_out|unembed|classifier|score)\.weight$"
QKV = r"(^|\.)(qkv|qkv_proj|Wqkv|(?<!crossattention\.)c_attn)\.weight$|(^|\.)in_proj_weight$"
"""Weights that hold all queries, then all keys, then all values (not those that alternate between heads)."""

HF_HEAD = r"^(lm_head|score|classifier|qa_outputs)\.weight$"

Options = Mapping[str, Any] | None


def default_rules(
    model: nn.Module,
    muon: Options = None,
    adamw: Options = None,
    embedding: Options = None,
    head: Options = None,
    vectors: Options = None,
    head_names: str = HEAD,
    qkv_names: str = QKV,
) -> list[Rule]:
    """Rules for any module, hidden matrices first.

    Muon: two-dimensional weights, except for embeddings (nn.Embedding, or a name like one) and the head: a weight
    whose name matches `head_names`, or the model's last matrix, if it has the shape of an embedding or is in no
    numbered block. Those whose name matches `qkv_names` are split. AdamW: everything else; tensors of one dimension or
    none do not decay. `muon` and `adamw` are options of the two; `embedding`, `head` and `vectors` override `adamw`.
    ValueError: a weight that matches `qkv_names` has a shape that cannot hold queries, keys and values.
    """
    tables = {m.weight for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    transposed = {m.weight for m in model.modules() if type(m).__name__ == "Conv1D" and hasattr(m, "weight")}
    last = _output_layer(model, {table.shape for table in tables})
    hidden: dict[tuple[bool, tuple[int, ...] | None], list[str]] = {}
    others: dict[str, list[str]] = {"embedding": [], "head": [], "rest": [], "vectors": []}
    for parameter, aliases in clean_names(model).items():
        fused = any(re.search(qkv_names, alias) for alias in aliases)
        if parameter.dim() < 2:
            others["vectors"].append(aliases[0])
        elif parameter in tables or any(re.search(EMBEDDING, alias) for alias in aliases):
            others["embedding"].append(aliases[0])
        elif any(re.search(head_names, alias) for alias in aliases) or (parameter is last and not fused):
            others["head"].append(aliases[0])
        elif parameter.dim() > 2:
            others["rest"].append(aliases[0])
        else:
            flipped = parameter in transposed
            split = qkv_split(aliases[0], parameter, flipped) if fused else None
            hidden.setdefault((flipped, split), []).append(aliases[0])
    rules = [Rule(exactly(members), _muon(muon, flipped, split)) for (flipped, split), members in hidden.items()]
    own = {"embedding": embedding, "head": head, "vectors": {"weight_decay": 0.0, **(vectors or {})}}
    for part, members in others.items():
        options = {"kind": "adamw", **(adamw or {}), **(own.get(part) or {})}
        rules += [Rule(exactly(members), options)] if members else []
    return rules


def _output_layer(model: nn.Module, table_shapes: set[torch.Size]) -> Tensor | None:
    """The model's last matrix, unless it belongs to a numbered block and has not the shape of an embedding."""
    matrices = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.dim() == 2]
    if not matrices:
        return None
    name, last = matrices[-1]
    return last if last.shape in table_shapes or not re.search(r"(^|\.)\d+\.(?!weight$)", name) else None


def gpt_rules(
    model: nn.Module,
    muon: Options = None,
    adamw: Options = None,
    embedding: Options = None,
    head: Options = None,
    vectors: Options = None,
) -> list[Rule]:
    """Rules for `gpt_core.models.GPT`: embed, position, blocks.*.attn.{qkv,out}, blocks.*.ffn.{gate,up,down}, head.

    `muon` holds for the matrices of the blocks, `adamw` for the rest; `embedding`, `head` and `vectors` override it.
    Rules without parameters (a tied head, a model without biases) are left out. A parameter with an unknown name is
    left over: `param_groups` says which.
    """
    adamw = {"kind": "adamw", **(adamw or {})}
    matrices = r"^blocks\.\d+\.(attn\.out|ffn\.(gate|up|down))\.weight$"
    rules = _fused(model, r"^blocks\.\d+\.attn\.qkv\.weight$", muon)
    rules += [
        Rule(matrices, _muon(muon)),
        Rule(r"^(embed|position)\.weight$", {**adamw, **(embedding or {})}),
        Rule(r"^head\.weight$", {**adamw, **(head or {})}),
        Rule(r"norm\.(weight|bias)$|\.bias$", {**adamw, "weight_decay": 0.0, **(vectors or {})}, ndim=1),
    ]
    return _present(model, rules)


def hf_gpt2_rules(
    model: nn.Module,
    muon: Options = None,
    adamw: Options = None,
    embedding: Options = None,
    head: Options = None,
    vectors: Options = None,
) -> list[Rule]:
    """Rules for GPT-2 of transformers, with or without a head; arguments as for `gpt_rules`.

    Its Conv1D stores weights (in, out), so every hidden matrix is "transposed" and c_attn, (d, 3·d), splits by columns.
    A head that shares the embedding's weight goes with the embedding.
    """
    adamw = {"kind": "adamw", **(adamw or {})}
    matrices = r"(^|\.)h\.\d+\.(attn\.c_proj|mlp\.c_(fc|proj))\.weight$"
    tables = r"(^|\.)(wte|wpe)\.weight$"
    rules = _fused(model, r"(^|\.)h\.\d+\.attn\.c_attn\.weight$", muon, transposed=True)
    rules += [
        Rule(matrices, _muon(muon, transposed=True)),
        Rule(tables, {**adamw, **(embedding or {})}),
        Rule(HF_HEAD, {**adamw, **(head or {})}, exclude=tables, ndim=2),
        Rule(r"(^|\.)ln_\w+\.(weight|bias)$|\.bias$", {**adamw, "weight_decay": 0.0, **(vectors or {})}, ndim=1),
    ]
    return _present(model, rules)


def hf_llama_rules(
    model: nn.Module,
    muon: Options = None,
    adamw: Options = None,
    embedding: Options = None,
    head: Options = None,
    vectors: Options = None,
) -> list[Rule]:
    """Rules for Llama of transformers and models with its names (Mistral, Qwen); arguments as for `gpt_rules`.

    Queries, keys, values, gate and up are weights of their own there, so nothing is split.
    """
    adamw = {"kind": "adamw", **(adamw or {})}
    matrices = r"(^|\.)layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight$"
    tables = r"(^|\.)embed_tokens\.weight$"
    rules = [
        Rule(matrices, _muon(muon)),
        Rule(tables, {**adamw, **(embedding or {})}),
        Rule(HF_HEAD, {**adamw, **(head or {})}, exclude=tables, ndim=2),
        Rule(r"norm\.weight$|\.bias$", {**adamw, "weight_decay": 0.0, **(vectors or {})}, ndim=1),
    ]
    return _present(model, rules)


def _muon(options: Options, transposed: bool = False, split: tuple[int, ...] | None = None) -> dict[str, Any]:
    layout = ({"transposed": True} if transposed else {}) | ({"split": split} if split else {})
    return {"kind": "muon", **(options or {}), **layout}


def _fused(model: nn.Module, pattern: str, muon: Options, transposed: bool = False) -> list[Rule]:
    """One rule for every way in which the weights that match `pattern` hold queries, keys and values."""
    splits: dict[tuple[int, ...] | None, list[str]] = {}
    for parameter, aliases in clean_names(model).items():
        if any(re.search(pattern, alias) for alias in aliases):
            splits.setdefault(qkv_split(aliases[0], parameter, transposed), []).append(aliases[0])
    alone = len(splits) == 1
    return [
        Rule(pattern if alone else exactly(names), _muon(muon, transposed, split)) for split, names in splits.items()
    ]


def qkv_split(name: str, weight: Tensor, transposed: bool) -> tuple[int, ...] | None:
    """(queries, keys, values) of a fused weight: as many queries as inputs; the rest is half keys and half values.

    None for a weight with no more outputs than inputs, which cannot be a fused one.
    """
    inputs, outputs = weight.shape if transposed else reversed(weight.shape)
    if outputs <= inputs:
        return None
    keys, odd = divmod(outputs - inputs, 2)
    if odd:
        raise ValueError(f"{name} of shape {tuple(weight.shape)} is no stack of queries, keys, values: narrow qkv")
    return (inputs, keys, keys)


def _present(model: nn.Module, rules: list[Rule]) -> list[Rule]:
    """The rules that take at least one parameter of the model."""
    names = clean_names(model)
    return [rule for rule in rules if any(rule.matches(aliases, p) for p, aliases in names.items())]
