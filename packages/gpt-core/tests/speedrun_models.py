"""Small speedrun models for tests: records by number, parameters that all matter."""

import torch

from gpt_core.models.speedrun import speedrun

VOCABULARY = 100

R70 = {"value_std": 0.01, "value_shift": True, "value_gate_token": True}
R73 = {**R70, "sublayer_lambdas": True, "parallel_lanes": True}
R74 = {**R73, "drop_post_attention": True}
R77 = {**R70, "sublayer_lambdas": True, "cached_attention": True}
R80 = {**R77, "pair_banks": True}
R81 = {**R80, "mudd": True}
R82 = {**R81, "xsa": True}
R83 = {**R82, "bigram_signs": True, "bigram_dim": 16, "bigram_rows": 15 * 128}
R85 = {**R82, "bigram_signs": True, "bigram_rows": 15 * 128, "mudd_gates": True, "dynamic_heads": True}
RECORDS = {68: {}, 70: R70, 73: R73, 74: R74, 77: R77, 80: R80, 81: R81, 82: R82, 83: R83, 85: R85}
"""Fields of every record that changes the model."""

NEEDED_BY = {
    "windows": ("yarn",),
    "half_rotary": ("key_offset",),
    "value_embeddings": ("value_gates",),
    "attention_free_layer": ("skip",),
}


def without(*switches):
    """Fields that switch these off, and what needs them."""
    off = {name for switch in switches for name in (switch, *NEEDED_BY.get(switch, ()))}
    return dict.fromkeys(sorted(off), False)


def new(**fields):
    """A model as it is made, of six layers."""
    sizes = {"vocab_size": VOCABULARY, "context_length": 32, "n_layer": 6, "n_head": 4, "n_embd": 48, "init_seed": 3}
    return speedrun(**{**sizes, "window_short": 5, "window_long": 11, **fields})


def make(**fields):
    """A model in float64 in which every parameter matters."""
    model = new(**fields)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.02 if name in ("attn", "qk", "vo", "mlp") else 0.3
            parameter.add_(torch.empty_like(parameter).uniform_(-spread, spread, generator=generator))
    return model.double()


def tokens(count=47, seed=0):
    return torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))
