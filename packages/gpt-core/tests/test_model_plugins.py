"""Plugin factories: architecture, initialization, forward contract, and what is missing is named."""

import math
import sys
import types

import pytest
import torch

from gpt_core.models import GPTConfig, count_parameters
from gpt_core.models.plugins import hf_gpt2, hf_llama, nanogpt, te_llama3, tinyllama

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32}


def ids(vocab=61, length=9):
    return torch.randint(vocab, (2, length), generator=torch.Generator().manual_seed(0))


def build(factory):
    if factory in (hf_gpt2, hf_llama):
        pytest.importorskip("transformers")
    return factory(61, 16, **SMALL).eval()


@pytest.mark.parametrize("factory", [nanogpt, tinyllama, hf_gpt2, hf_llama])
def test_forward_contract(factory):
    model = build(factory)
    assert isinstance(model.config, GPTConfig)
    logits = model(ids())
    assert logits.shape == (2, 9, 61)
    torch.testing.assert_close(model(ids(), only_last=True), logits[:, -1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(model.logits(model.hidden(ids())), logits, atol=0, rtol=0)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("factory", [nanogpt, tinyllama, hf_gpt2, hf_llama])
def test_config_describes_the_model(factory):
    model = build(factory)
    assert count_parameters(model.config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("factory", [hf_gpt2, hf_llama])
def test_config_of_a_wrapped_model_computes_the_same(factory):
    from gpt_core.models.convert import from_hf_gpt2, from_hf_llama

    model = build(factory)
    ours = {hf_gpt2: from_hf_gpt2, hf_llama: from_hf_llama}[factory](model.hf).eval()
    torch.testing.assert_close(ours(ids()), model(ids()), atol=1e-5, rtol=0)
    shared = ("n_kv_head", "normalization", "activation", "rope_style", "ffn_dim", "norm_eps", "weight_tying")
    assert [getattr(ours.config, f) for f in shared] == [getattr(model.config, f) for f in shared]
    with pytest.raises(ValueError, match="KV cache"):
        model(ids(), cache=object())


def test_nanogpt_has_its_own_seed_and_switches():
    torch.manual_seed(1)
    a = nanogpt(61, 16, **SMALL)
    torch.manual_seed(2)
    b = nanogpt(61, 16, **SMALL)
    assert torch.equal(a.embed.weight, b.embed.weight)
    assert a.blocks[0].ffn.down.weight.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.05)
    assert not any(name.endswith("bias") for name, _ in a.named_parameters())
    c = nanogpt(61, 16, **SMALL, mlp_bias=True, attn_kv_bias=True, layer_norm_bias=True, tie_lm_head=False)
    biased = {name.split(".")[-2] for name, _ in c.named_parameters() if name.endswith("bias")}
    assert biased == {"up", "down", "qkv", "attn_norm", "ffn_norm", "norm"}
    assert c.head is not None
    assert nanogpt(260, 256, 6, 6, 384).config.activation == "gelu_tanh"


def test_tinyllama_shapes_and_initialization():
    model = tinyllama(1000, 16, n_layer=4, n_head=4, n_embd=128)
    config = model.config
    assert (config.kv_heads, config.ffn_dim, config.padded_vocab_size) == (1, 2048, 1024)
    assert model.embed.weight.std().item() == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.03)
    assert model.blocks[1].ffn.up.weight.std().item() == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.03)
    assert model.blocks[1].ffn.down.weight.std().item() == pytest.approx(1 / (math.sqrt(128) * 4), rel=0.03)
    assert model(ids(1000)).shape == (2, 9, 1000)


def test_hf_llama_widths():
    pytest.importorskip("transformers")
    assert hf_llama(61, 16, n_layer=1, n_head=4, n_embd=96).config.ffn_dim == 256
    config = hf_llama(61, 16, n_layer=1, n_head=4, n_embd=192, use_gqa=True).config
    assert (config.ffn_dim, config.kv_heads) == (512, 1)


def test_te_llama3_passes_the_architecture_to_transformer_engine(monkeypatch):
    """Stand-ins with the arguments Transformer Engine documents; its arithmetic needs a GPU."""
    received = []

    class Layer(torch.nn.Module):
        def __init__(self, **options):
            super().__init__()
            received.append(options)

        def forward(self, x_BTD, *, rotary_pos_emb):
            assert rotary_pos_emb.shape == (x_BTD.shape[1], 1, 1, 8)
            return x_BTD

    fake = types.ModuleType("transformer_engine.pytorch")
    fake.TransformerLayer, fake.RMSNorm, fake.Linear = Layer, torch.nn.RMSNorm, torch.nn.Linear
    parent = types.ModuleType("transformer_engine")
    parent.pytorch = fake
    monkeypatch.setitem(sys.modules, "transformer_engine", parent)
    monkeypatch.setitem(sys.modules, "transformer_engine.pytorch", fake)
    model = te_llama3(61, 16, **SMALL, n_kv_head=2, ffn_dim_multiplier=1.3, multiple_of=32)
    assert model(ids(), only_last=True).shape == (2, 1, 61)
    assert model.embed.weight.std().item() == pytest.approx(0.023, rel=0.05)
    sizes = [(o["hidden_size"], o["ffn_hidden_size"], o["num_gqa_groups"], o["bias"]) for o in received]
    assert sizes == [(32, 128, 2, False)] * 2  # int(1.3 * 85) = 110, up to a multiple of 32
    assert [o["layer_number"] for o in received] == [1, 2]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformer_engine.pytorch", None)
    monkeypatch.setitem(sys.modules, "transformer_engine", None)
    with pytest.raises(ImportError, match="NVIDIA Transformer Engine"):
        te_llama3(61, 16, **SMALL, n_kv_head=2)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for factory in (hf_gpt2, hf_llama):
        with pytest.raises(ImportError, match=r"pip install 'gpt-core\[hf\]'"):
            factory(61, 16, **SMALL)


def test_importing_models_imports_nothing_heavy(tmp_path, fork):
    code = (
        "import sys, gpt_core.models, gpt_core.models.convert, gpt_core.models.plugins as p\n"
        "assert not {'transformers', 'matplotlib', 'transformer_engine'} & set(sys.modules)"
    )
    done = fork(tmp_path, exec, code, {})
    assert done.code == 0, done.stderr
