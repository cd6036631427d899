"""Weights in and out: parity with Hugging Face, nanoGPT checkpoints, safetensors, exported folders."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from gpt_core.checkpoint import save_model
from gpt_core.models import GPT, GPTConfig, gpt
from gpt_core.models.convert import (
    crop_context,
    from_hf_gpt2,
    from_hf_llama,
    from_nanogpt,
    load_gpt,
    load_pretrained,
    load_weights,
    save_weights,
    strip_prefixes,
    to_hf,
    with_dropout,
)

transformers = pytest.importorskip("transformers")
SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32}


def randomize(module, seed=0):
    """Every parameter, biases and norm weights too, far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def ids(vocab=61, batch=2, length=13):
    return torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(1))


def small_hf_gpt2(**overrides):
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=16, n_layer=2, n_head=4, n_embd=32, bos_token_id=None, eos_token_id=None
    )
    config.update(overrides)
    return randomize(transformers.GPT2LMHeadModel(config))


def small_hf_llama(**overrides):
    options = {
        "vocab_size": 61,
        "max_position_embeddings": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return randomize(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**options, **overrides})))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_gpt2_of_hugging_face_gives_the_same_logits(activation):
    hf = small_hf_gpt2(activation_function=activation)
    ours = from_hf_gpt2(hf).eval()
    torch.testing.assert_close(ours(ids()), hf(ids()).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("overrides", [{}, {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}])
def test_llama_of_hugging_face_gives_the_same_logits(overrides):
    hf = small_hf_llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0}, **overrides)
    ours = from_hf_llama(hf).eval()
    torch.testing.assert_close(ours(ids()), hf(ids()).logits, atol=1e-4, rtol=0)


def test_hugging_face_folder_is_read(tmp_path):
    hf = small_hf_gpt2()
    hf.save_pretrained(tmp_path)
    torch.testing.assert_close(from_hf_gpt2(tmp_path).eval()(ids()), hf(ids()).logits, atol=1e-4, rtol=0)


def test_wrong_sources_are_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no retries against a network
    with pytest.raises(ValueError, match="neither a folder here nor reachable"):
        from_hf_gpt2("no-such-owner/no-such-model")
    with pytest.raises(ValueError, match="expected a GPT2LMHeadModel"):
        from_hf_gpt2(3)  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx"):
        from_hf_gpt2(small_hf_gpt2(scale_attn_by_inverse_layer_idx=True))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="rope_type='linear'"):
        from_hf_llama(small_hf_llama(rope_parameters=scaled))


EXPORTS = {
    "gpt2_pre": {},
    "gpt2_pre-biased": {"preset": "gpt2_pre", "normalization": "layernorm", "bias": True},
    "gpt2_pre-untied-relu2": {"preset": "gpt2_pre", "weight_tying": False, "activation": "relu2", "d_ff": 40},
    "gpt2_pre-padded": {"preset": "gpt2_pre", "vocab_multiple_of": 16},
    "llama": {},
    "llama-gqa-half": {"preset": "llama", "n_kv_head": 2, "rope_style": "half", "norm_eps": 1e-3},
    "llama-qkv-bias": {"preset": "llama", "qkv_bias": True, "n_kv_head": 1},
    "llama3": {"n_kv_head": 2, "vocab_multiple_of": 64},
    "team": {"weight_tying": True},
}


@pytest.mark.parametrize("case", EXPORTS)
def test_export_loads_through_auto_model_with_equal_logits(case, tmp_path):
    fields = {"preset": case, **SMALL, **EXPORTS[case]}
    model = randomize(gpt(61, 16, **fields))
    to_hf(model, tmp_path, eos_token_id=7)
    hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(hf(ids()).logits, model(ids()), atol=2e-5, rtol=0)
    assert hf.config.vocab_size == 61
    assert hf.config.eos_token_id == 7


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"preset": "gpt2"}, "norm_position=post"),
        ({"preset": "hybrid"}, "position_encoding=rope"),
        ({"preset": "llama", "qk_norm": True}, "qk_norm=True"),
        ({"preset": "llama", "window": 4, "window_pattern": "SL"}, "window=4"),
        ({"preset": "gpt2_pre", "logit_softcap": 15.0}, "logit_softcap=15.0"),
        ({"preset": "gpt2_pre", "n_kv_head": 2}, "kv_heads=2"),
    ],
)
def test_export_without_an_equivalent_names_the_reason(fields, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        to_hf(gpt(61, 16, **SMALL, **fields), tmp_path)
    assert not any(tmp_path.iterdir())


# --- nanoGPT -----------------------------------------------------------------------------------------------


def nanogpt_forward(state, ids_BT, n_layer, n_head):
    """The published GPT-2 equations in float64 on nanoGPT's names: an oracle that shares no code with ours."""
    w = {name: tensor.double() for name, tensor in state.items()}
    x = w["transformer.wte.weight"][ids_BT] + w["transformer.wpe.weight"][: ids_BT.shape[1]]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w.get(f"{name}.bias"), 1e-5)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    T, K = ids_BT.shape[1], x.shape[-1] // n_head
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    for layer in range(n_layer):
        h = f"transformer.h.{layer}"
        q, k, v = (
            t.unflatten(-1, (n_head, K)).transpose(1, 2)
            for t in linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").chunk(3, -1)
        )
        weights = (q @ k.mT / K**0.5).masked_fill(future, -torch.inf).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{h}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")), f"{h}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["lm_head.weight"].T


def write_nanogpt_checkpoint(path, *, bias, prefix):
    """A `ckpt.pt` in nanoGPT's layout with random weights; returns its model state with bare names."""
    D, V, S = 32, 61, 16
    shapes = {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (S, D)}
    for layer in range(2):
        h = f"transformer.h.{layer}"
        linears = {"attn.c_attn": (96, 32), "attn.c_proj": (32, 32), "mlp.c_fc": (128, 32), "mlp.c_proj": (32, 128)}
        shapes |= {f"{h}.{norm}.weight": (D,) for norm in ("ln_1", "ln_2")}
        shapes |= {f"{h}.{name}.weight": shape for name, shape in linears.items()}
        if bias:
            shapes |= {f"{h}.{norm}.bias": (D,) for norm in ("ln_1", "ln_2")}
            shapes |= {f"{h}.{name}.bias": shape[:1] for name, shape in linears.items()}
    shapes["transformer.ln_f.weight"] = (D,)
    if bias:
        shapes["transformer.ln_f.bias"] = (D,)
    generator = torch.Generator().manual_seed(3)
    state = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    args = {"n_layer": 2, "n_head": 4, "n_embd": D, "block_size": S, "bias": bias, "vocab_size": V, "dropout": 0.1}
    causal_masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, S, S) for i in range(2)}  # old torch only
    checkpoint = {
        "model": {prefix + name: tensor for name, tensor in (state | causal_masks).items()},
        "optimizer": {"state": {}, "param_groups": []},
        "model_args": args,
        "iter_num": 10,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    }
    torch.save(checkpoint, path)
    return state


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "_orig_mod.module."])
def test_nanogpt_checkpoint_gives_the_logits_of_the_equations(bias, prefix, tmp_path):
    state = write_nanogpt_checkpoint(tmp_path / "ckpt.pt", bias=bias, prefix=prefix)
    model = from_nanogpt(tmp_path / "ckpt.pt").double().eval()
    assert model.config.dropout == 0.1
    expected = nanogpt_forward(state, ids(), n_layer=2, n_head=4)
    torch.testing.assert_close(model(ids()), expected, atol=1e-12, rtol=0)


def test_a_file_that_is_no_nanogpt_checkpoint_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a nanoGPT checkpoint"):
        from_nanogpt(tmp_path / "other.pt")


# --- safetensors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_safetensors_round_trip_rebuilds_the_model(tied, tmp_path):
    model = randomize(gpt(61, 16, preset="llama", weight_tying=tied, **SMALL))
    save_weights(model, tmp_path / "model.safetensors")
    loaded = load_gpt(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.eval()(ids()), model(ids()), atol=0, rtol=0)


def test_shared_tensors_are_written_once_and_loaded_for_both_names(tmp_path):
    from gpt_core.models.plugins import hf_gpt2

    model = randomize(hf_gpt2(61, 16, **SMALL))
    assert model.hf.lm_head.weight is model.hf.transformer.wte.weight
    save_weights(model, tmp_path / "model.safetensors")
    other = hf_gpt2(61, 16, **SMALL).eval()
    load_weights(other, tmp_path / "model.safetensors")
    torch.testing.assert_close(other(ids()), model(ids()), atol=0, rtol=0)


def test_wrapped_models_are_saved_with_bare_names(tmp_path):
    model = randomize(gpt(61, 16, **SMALL))
    compiled = torch.nn.Module()  # named as torch.compile does it, without its cost
    compiled._orig_mod = model
    save_weights(compiled, tmp_path / "model.safetensors")
    assert load_gpt(tmp_path / "model.safetensors").state_dict().keys() == model.state_dict().keys()
    nested = {"module._orig_mod.blocks.0._checkpoint_wrapped_module.attn.qkv.weight": torch.zeros(1)}
    assert list(strip_prefixes(nested)) == ["blocks.0.attn.qkv.weight"]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_weights(gpt(61, 16, **SMALL), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"position.weight \(16, 32\), expected \(8, 32\)"):
        load_weights(gpt(61, 8, **SMALL), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \['head.weight'\]"):
        load_weights(gpt(61, 16, weight_tying=False, **SMALL), tmp_path / "model.safetensors")


# --- context -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["gpt2_pre", "llama"])
def test_cropped_context_keeps_the_logits(preset):
    model = randomize(gpt(61, 16, preset=preset, **SMALL))
    cropped = crop_context(model, 8)
    assert cropped.config == dataclasses.replace(model.config, context_length=8)
    torch.testing.assert_close(cropped(ids(length=8)), model(ids(length=8)), atol=0, rtol=0)
    with pytest.raises(ValueError, match="do not fit the context of 8"):
        cropped(ids(length=9))


def test_only_learned_positions_cannot_grow():
    with pytest.raises(ValueError, match="cannot grow"):
        crop_context(gpt(61, 16, **SMALL), 32)
    longer = crop_context(gpt(61, 16, preset="llama", **SMALL), 32)
    assert longer(ids(length=32)).shape == (2, 32, 61)


def test_copies_own_their_weights():
    model = GPT(GPTConfig(61, 16, **SMALL))
    crop_context(model, 16).embed.weight.data.zero_()
    assert model.embed.weight.abs().sum() > 0


# --- one door ----------------------------------------------------------------------------------------------


def test_load_pretrained_reads_every_kind(tmp_path):
    write_nanogpt_checkpoint(tmp_path / "ckpt.pt", bias=False, prefix="")
    save_weights(gpt(61, 16, preset="llama", **SMALL), tmp_path / "model.safetensors")
    small_hf_gpt2().save_pretrained(tmp_path / "gpt2")
    small_hf_llama().save_pretrained(tmp_path / "llama")
    kwargs = {"vocab_size": 61, "context_length": 16, "preset": "hybrid", **SMALL}
    (tmp_path / "step_000005").mkdir()
    meta = {"model": {"module": "gpt_core.models.gpt", "module_kwargs": kwargs}}
    save_model(tmp_path / "step_000005", gpt(**kwargs), meta)
    names = {
        "step_000005": "2L-4H-32D-RoPE-LN-NB-GELU-PreNorm",
        "ckpt.pt": "2L-4H-32D-AbsPos-LN-NB-GELU-PreNorm",
        "model.safetensors": "2L-4H-32D-RoPE-RMS-SwiGLU-PreNorm",
        "gpt2": "2L-4H-32D-AbsPos-LN-GELU_TANH-PreNorm",
        "llama": "2L-4H-32D-GQA2-RoPE-RMS-SwiGLU-PreNorm",
    }
    for source, name in names.items():
        model = load_pretrained(tmp_path / source, dropout=0.3)
        assert model.config.name == name
        assert model.blocks[0].ffn.dropout == 0.3
        torch.testing.assert_close(model.eval()(ids()), load_pretrained(tmp_path / source).eval()(ids()))


def test_a_folder_of_another_architecture_is_not_filled_with_random_weights(tmp_path):
    small_hf_llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not a GPT2LMHeadModel: it has no transformer\."):
        from_hf_gpt2(tmp_path)


def test_loading_leaves_the_random_state_alone(tmp_path):
    save_weights(gpt(61, 16, preset="llama", **SMALL), tmp_path / "model.safetensors")
    state = torch.get_rng_state()
    loaded = load_gpt(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in loaded.state_dict().values())


def test_load_pretrained_refuses_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no Hugging Face folder"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a 'bert' model; we read gpt2 and llama"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="is not the folder of a GPT2LMHeadModel"):  # no weights in it
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither a file or folder here"):
        load_pretrained("no-such-owner/no-such-model")
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match="only dropout rates can be changed here, got n_layer"):
        with_dropout(gpt(61, 16, **SMALL), n_layer=3)
