"""GPTConfig, presets, named models and the exact parameter formula."""

import dataclasses

import pytest
import torch

from gpt_core.models import (
    COMPONENTS,
    PRESETS,
    GPTConfig,
    count_model_parameters,
    count_parameters,
    gpt,
    parameter_group,
)
from gpt_core.models.norms import NORMS, RMSNorm

BASE_124M = {"vocab_size": 50304, "context_length": 1024}
BASE_1_36B = {"context_length": 2048, "n_layer": 18, "n_head": 18, "n_embd": 2304}

SIZES = {
    "gpt2-124m": {**BASE_124M, "preset": "gpt2"},
    "gpt2-pre-124m": {**BASE_124M, "preset": "gpt2_pre"},
    "llama-124m": {**BASE_124M, "preset": "llama"},
    "team-124m": {**BASE_124M, "preset": "team"},
    "hybrid-124m": {**BASE_124M, "preset": "hybrid"},
    "custom-124m": {
        **BASE_124M,
        "preset": "custom",
        "normalization": "rmsnorm",
        "position_encoding": "rope",
    },
    "gpt2-1.36b": {**BASE_1_36B, "preset": "gpt2", "vocab_size": 50304},
    "llama-1.36b": {**BASE_1_36B, "preset": "llama", "vocab_size": 32000},
    "quick-test": {
        "preset": "gpt2",
        "vocab_size": 50304,
        "context_length": 256,
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 384,
        "dropout": 0.2,
    },
    "byte-tinyshakespeare": {
        "preset": "gpt2_pre",
        "vocab_size": 260,
        "context_length": 256,
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 384,
        "dropout": 0.2,
    },
    "baseline": {
        "preset": "gpt2_pre",
        "vocab_size": 65,
        "context_length": 64,
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 128,
    },
}

TOTALS = {  # (all parameters, all but the position table)
    "gpt2-124m": (124_373_760, 123_587_328),
    "gpt2-pre-124m": (124_373_760, 123_587_328),
    "llama-124m": (162_220_800, 162_220_800),
    "team-124m": (162_220_800, 162_220_800),
    "hybrid-124m": (123_587_328, 123_587_328),
    "custom-124m": (123_587_328, 123_587_328),
    "gpt2-1.36b": (1_267_322_112, 1_262_603_520),
    "llama-1.36b": (1_294_159_104, 1_294_159_104),
    "quick-test": (30_036_864, 29_938_560),
    "byte-tinyshakespeare": (10_819_968, 10_721_664),
    "baseline": (804_096, 795_904),
}


def on_meta(name, **overrides):
    with torch.device("meta"):
        return gpt(**SIZES[name] | overrides)


@pytest.mark.parametrize("name", SIZES)
def test_named_models_have_their_published_size(name):
    model = on_meta(name)
    counted = count_model_parameters(model)
    assert (counted.total, counted.non_position) == TOTALS[name]
    assert counted.total == sum(p.numel() for p in model.parameters())
    assert count_parameters(model.config) == counted


@pytest.mark.parametrize(
    ("name", "overrides", "total"),
    [
        ("gpt2-124m", {"position_encoding": "rope"}, 124_373_760 - 786_432),
        ("gpt2-124m", {"ffn_type": "swiglu"}, 124_373_760),
        ("gpt2-124m", {"normalization": "rmsnorm"}, 124_373_760),
        ("llama-1.36b", {"vocab_size": 50304}, 1_378_503_936),
        ("quick-test", {"vocab_size": 65}, 10_745_088),
        ("gpt2-pre-124m", {"vocab_size": 50257}, 124_337_664),
        (
            "gpt2-pre-124m",
            {"vocab_size": 50257, "normalization": "layernorm", "bias": True},
            124_439_808,
        ),
    ],
)
def test_published_sizes_of_variants(name, overrides, total):
    model = on_meta(name, **overrides)
    assert count_model_parameters(model).total == total == count_parameters(model.config).total


@pytest.mark.parametrize("normalization", NORMS)
@pytest.mark.parametrize("ffn", [{}, {"ffn_type": "swiglu", "ffn_multiple_of": 32, "ffn_bias": True}])
@pytest.mark.parametrize(
    "rest",
    [
        {"bias": True, "n_kv_head": 2, "weight_tying": False, "vocab_multiple_of": 64},
        {"qkv_bias": True, "n_kv_head": 1, "position_encoding": "rope"},
        {"attention_out_bias": True, "position_encoding": "none", "d_ff": 50},
        {"norm_position": "post", "ffn_expansion_ratio": 3.3, "qk_norm": True},
    ],
)
def test_formula_equals_the_built_model(normalization, ffn, rest):
    model = gpt(61, 16, n_layer=2, n_head=4, n_embd=40, normalization=normalization, **{**ffn, **rest})
    assert count_parameters(model.config) == count_model_parameters(model)


def test_baseline_splits_into_decayed_and_undecayed_tensors():
    parameters = dict(gpt(**SIZES["baseline"]).named_parameters())
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    vectors = [p for p in parameters.values() if p.ndim < 2]
    assert (sum(p.numel() for p in matrices), len(matrices)) == (802_944, 18)
    assert (sum(p.numel() for p in vectors), len(vectors)) == (1_152, 9)


def test_parameter_names_are_the_documented_ones():
    model = gpt(61, 16, preset="llama", n_layer=1, n_head=2, n_embd=8, bias=True, normalization="layernorm")
    names = [
        *("embed.weight", "norm.weight", "norm.bias", "head.weight"),
        *(f"blocks.0.{norm}.{kind}" for norm in ("attn_norm", "ffn_norm") for kind in ("weight", "bias")),
        *(f"blocks.0.attn.{part}.{kind}" for part in ("qkv", "out") for kind in ("weight", "bias")),
        *(f"blocks.0.ffn.{part}.{kind}" for part in ("gate", "up", "down") for kind in ("weight", "bias")),
    ]
    assert sorted(model.state_dict()) == sorted(names)
    assert "position.weight" in gpt(61, 16, n_layer=1, n_head=2, n_embd=8).state_dict()
    assert parameter_group("module._orig_mod.blocks.3.attn_norm.weight") == "norm"
    with pytest.raises(ValueError, match=r"'lm_head.weight' is not the name"):
        parameter_group("lm_head.weight")


# --- config ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", COMPONENTS)
def test_unknown_component_lists_the_options(field):
    with pytest.raises(ValueError, match=f"unknown {field} 'nope'; choose one of") as error:
        GPTConfig(61, 16, **{field: "nope"})
    assert all(option in str(error.value) for option in COMPONENTS[field])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 50, "n_head": 4}, "n_embd must be a multiple of n_head, got 50 and 4"),
        ({"n_kv_head": 5}, "n_head must be a multiple of n_kv_head, got 12 and 5"),
        ({"n_embd": 12, "n_head": 4, "position_encoding": "rope"}, "even head dimension"),
        ({"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ({"d_ff": -3}, "d_ff must be at least 1, got -3"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"logit_softcap": -1.0}, "logit_softcap must be 0"),
        ({"norm_eps": 0.0}, "norm_eps must be positive, got 0.0"),
        ({"rope_theta": -1.0}, "rope_theta must be positive, got -1.0"),
        ({"init_std": -0.1}, "init_std must not be negative, got -0.1"),
        ({"window": 4}, "come together"),
        ({"window_pattern": "SL"}, "come together"),
        ({"window_pattern": "SX", "window": 4}, "string of S and L, got 'SX'"),
    ],
)
def test_values_that_make_no_model_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(61, 16, **fields)


def test_explicit_fields_override_the_preset():
    for name in PRESETS:
        config = gpt(61, 16, preset=name, n_layer=1, n_head=8, n_embd=16, activation="relu").config
        assert config.activation == "relu"
    assert gpt(61, 16, preset="llama", normalization="layernorm", n_layer=1).config.normalization == "layernorm"
    with pytest.raises(ValueError, match="unknown preset 'gpt3'; choose one of gpt2_pre, gpt2, llama"):
        gpt(61, 16, preset="gpt3")
    with pytest.raises(ValueError, match=r"unknown model fields normalisation; did you mean 'normalization'\?"):
        gpt(61, 16, normalisation="rmsnorm")


def test_factory_tells_which_keywords_it_accepts():
    assert gpt.accepts is GPTConfig


@pytest.mark.parametrize("fields", [{}, {"window": 8, "window_pattern": "SSL", "n_kv_head": 4, "init_seed": 3}])
def test_json_round_trip(fields, tmp_path):
    config = GPTConfig.from_preset("llama", vocab_size=61, context_length=16, **fields)
    config.save(tmp_path / "config.json")
    assert GPTConfig.load(tmp_path / "config.json") == config
    assert {f.name for f in dataclasses.fields(config)} == config.to_dict().keys()


@pytest.mark.parametrize(
    ("preset", "fields", "name"),
    [
        ("gpt2", {}, "12L-12H-768D-AbsPos-LN-NB-GELU-PostNorm"),
        ("llama", {}, "12L-12H-768D-RoPE-RMS-SwiGLU-PreNorm"),
        ("llama3", {"n_head": 32, "n_embd": 4096}, "12L-32H-4096D-GQA8-RoPE-RMS-SwiGLU-PreNorm"),
        (
            "custom",
            {"position_encoding": "none", "normalization": "layernorm", "activation": "relu2"},
            "12L-12H-768D-NoPos-LN-RELU2-PreNorm",
        ),
    ],
)
def test_name(preset, fields, name):
    assert GPTConfig.from_preset(preset, vocab_size=61, context_length=16, **fields).name == name


def test_notes_on_unusual_mixes():
    assert GPTConfig(61, 16).notes() == []
    notes = GPTConfig(61, 16, ffn_type="swiglu").notes()
    assert ["learned positions" in notes[0], "LayerNorm" in notes[1], len(notes)] == [True, True, 2]


def test_widths():
    assert GPTConfig(61, 16, n_embd=768).ffn_dim == 3072
    assert GPTConfig(61, 16, n_embd=100, n_head=4, ffn_type="swiglu").ffn_dim == 266
    assert GPTConfig(61, 16, n_embd=100, n_head=4, ffn_type="swiglu", ffn_multiple_of=64).ffn_dim == 320
    assert GPTConfig(61, 16, ffn_expansion_ratio=3.5).ffn_dim == 2688
    assert GPTConfig(61, 16, ffn_expansion_ratio=3.5, d_ff=100, ffn_multiple_of=64).ffn_dim == 100
    config = GPTConfig(61, 16, window=5, window_pattern="SSL")
    assert [config.layer_window(layer) for layer in range(4)] == [5, 5, None, 5]


def test_a_new_component_is_one_registry_entry(monkeypatch):
    monkeypatch.setitem(NORMS, "mine", RMSNorm)
    model = gpt(61, 16, n_layer=1, n_head=2, n_embd=8, normalization="mine")
    assert isinstance(model.norm, RMSNorm)
    with pytest.raises(ValueError, match="no parameter formula for 'mine'"):
        count_parameters(model.config)
