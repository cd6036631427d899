"""Exact FLOPs of a GPT's matrix multiplications, per layer and in total (1 multiply-add = 2 FLOPs).

S tokens of context, H width, D feed-forward width, L layers, V vocabulary, kv·hd key/value width.

| part (forward, one layer, S tokens) | FLOPs                                            |
|--------------------------------------|--------------------------------------------------|
| projections Q, K, V, O               | 4SH² + 4SH·kv·hd                                 |
| scores QKᵀ and A·V, `palm`           | 4S²H, the full square; 4S·W·H with a window W    |
| scores, `causal`                     | half the square: 2S²H; 4H(S·W − W²/2) with W     |
| FFN                                  | 4SHD, with SwiGLU 6SHD                           |
| gates                                | 2S per weight (`gate_parameters(index)`)         |
| head                                 | 2SHV, once                                       |

A training step costs three forward passes (the backward pass computes two products per product); recomputation of
activations is work but not progress, so it is not counted. Norms and rotary embedding are reported, and left out
of the totals as in the PaLM paper (Chowdhery et al. 2022, appendix B, arXiv:2204.02311).

An architecture whose layers are not like that counts them itself, by `layer_flops(index, convention)`.
"""

from typing import Any, Literal, Protocol

Convention = Literal["palm", "causal"]


class Architecture(Protocol):
    """What is read of a `gpt_core.models.GPTConfig`; anything with these attributes will do."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def n_layer(self) -> int: ...
    @property
    def n_head(self) -> int: ...
    @property
    def n_embd(self) -> int: ...


def flops_breakdown(config: Architecture, convention: Convention = "palm") -> dict[str, Any]:
    """Every row of the table above for one sequence of `config.context_length` tokens.

    Returns `per_layer` (one dict per layer: projections, scores, ffn, rope, norm), `total` (the same rows summed,
    with `head` and the final norm), `forward`, `train`, `flops_per_token`, and for the log
    `attention_flops_per_layer` (projections + scores, mean over layers), `ffn_flops_per_layer`, `logit_flops`,
    `attention_to_ffn_ratio`.
    """
    if convention not in ("palm", "causal"):
        raise ValueError(f"FLOPs convention: got {convention!r}, expected 'palm' or 'causal'")
    layers = [_layer(config, index, convention) for index in range(config.n_layer)]
    total = {row: sum(layer[row] for layer in layers) for row in ("projections", "scores", "ffn", "rope", "norm")}
    total["norm"] += _norm(config)
    total["head"] = 2 * config.context_length * config.n_embd * _head_rows(config)
    forward = total["projections"] + total["scores"] + total["ffn"] + total["head"]
    attention = total["projections"] + total["scores"]
    return {
        "convention": convention,
        "context_length": config.context_length,
        "per_layer": layers,
        "total": total,
        "forward": forward,
        "train": 3 * forward,
        "flops_per_token": _divide(3 * forward, config.context_length),
        "attention_flops_per_layer": _divide(attention, config.n_layer),
        "ffn_flops_per_layer": _divide(total["ffn"], config.n_layer),
        "logit_flops": total["head"],
        "attention_to_ffn_ratio": attention / total["ffn"],
    }


def flops_per_token(config: Architecture, convention: Convention = "palm") -> int | float:
    """Training FLOPs per token, forward and backward. Whole unless a window does not divide the context."""
    return flops_breakdown(config, convention)["flops_per_token"]


def matmul_parameters(config: Architecture) -> int:
    """Parameters that take part in a matrix multiplication: `flops_per_token` = 6 of these + 12LHS (palm)."""
    H = config.n_embd
    per_layer = 2 * H * H + 2 * H * _kv_width(config) + _ffn_matrices(config) * H * ffn_width(config)
    gates = sum(_gates(config, index) for index in range(config.n_layer))
    return config.n_layer * per_layer + gates + _head_rows(config) * H


def ffn_width(config: Architecture) -> int:
    """Inner width of the FFN: the configuration's own `ffn_dim` or `d_ff`, else 8H/3 (swiglu) or 4H."""
    width = getattr(config, "ffn_dim", None) or getattr(config, "d_ff", None)
    if width is not None:
        return width
    return 8 * config.n_embd // 3 if _is_gated(config) else 4 * config.n_embd


def _head_rows(config: Architecture) -> int:
    """Rows of the head's matrix: padding is multiplied like everything else."""
    return getattr(config, "padded_vocab_size", config.vocab_size)


def _layer(config: Architecture, index: int, convention: Convention) -> dict[str, int]:
    if (counted := getattr(config, "layer_flops", None)) is not None:
        return counted(index, convention)
    S, H, kv = config.context_length, config.n_embd, _kv_width(config)
    mixer = getattr(config, "mixer_flops", None)  # per token, of layers that mix tokens without attention
    window = min(S, _window(config, index) or S)
    scores = 4 * S * window * H if convention == "palm" else 4 * H * S * window - 2 * H * window * window
    rope = 3 * S * (H + kv) if getattr(config, "position_encoding", "") == "rope" else 0
    qk_norm = 4 * S * (H + kv) if getattr(config, "qk_norm", False) else 0
    return {
        "projections": (4 * S * H * H + 4 * S * H * kv if mixer is None else S * mixer) + 2 * S * _gates(config, index),
        "scores": scores if mixer is None else 0,
        "ffn": 2 * S * H * ffn_width(config) * _ffn_matrices(config),
        "rope": rope,
        "norm": 2 * _norm(config) + qk_norm,
    }


def _norm(config: Architecture) -> int:
    """One norm of S tokens: RMS squares, adds, scales (twice with weights); LayerNorm also subtracts the mean."""
    per_value = {"rmsnorm": 4, "rmsnorm_weightless": 3, "layernorm_nobias": 6, "layernorm": 7}
    return per_value.get(getattr(config, "normalization", "layernorm"), 7) * config.context_length * config.n_embd


def _window(config: Architecture, index: int) -> int | None:
    layer_window = getattr(config, "layer_window", None)
    return layer_window(index) if layer_window is not None else getattr(config, "window", None)


def _gates(config: Architecture, index: int) -> int:
    """Weights of small linear maps beside those of the table, counted with the projections."""
    count = getattr(config, "gate_parameters", None)
    return count(index) if count is not None else 0


def _kv_width(config: Architecture) -> int:
    heads = getattr(config, "n_kv_head", None) or config.n_head
    return heads * (config.n_embd // config.n_head)


def _is_gated(config: Architecture) -> bool:
    return getattr(config, "ffn_type", "standard") == "swiglu"


def _ffn_matrices(config: Architecture) -> int:
    return 3 if _is_gated(config) else 2


def _divide(numerator: int, denominator: int) -> int | float:
    return numerator // denominator if numerator % denominator == 0 else numerator / denominator
