"""The modular GPT: an independent float64 forward, causality, caches, initialization, windows, soft caps."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gpt_core.models import GPT, GPTConfig, gpt

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32}
VARIANTS = {
    "gpt2": {"preset": "gpt2"},
    "gpt2_pre": {"preset": "gpt2_pre"},
    "gpt2_pre-biased": {"preset": "gpt2_pre", "normalization": "layernorm", "bias": True},
    "llama": {"preset": "llama"},
    "llama3-half": {"preset": "llama3", "n_kv_head": 2, "rope_style": "half"},
    "team-mqa-qknorm": {"preset": "team", "n_kv_head": 1, "qk_norm": True, "vocab_multiple_of": 32},
    "hybrid": {"preset": "hybrid"},
    "nopos-relu2": {"position_encoding": "none", "activation": "relu2", "normalization": "rmsnorm"},
    "windows": {"preset": "llama", "window": 3, "window_pattern": "SL"},
    "softcaps": {"preset": "hybrid", "attention_softcap": 5.0, "logit_softcap": 3.0},
}


def make(variant, **overrides):
    """A float64 model with every parameter moved away from its initial value."""
    torch.manual_seed(0)
    model = gpt(61, 16, **{**SMALL, **VARIANTS[variant], **overrides}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def ids(batch=2, length=11, vocab=61):
    return torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(1))


def oracle(model, ids_BT):
    """The model's equations on its parameters, head by head and without gpt_kernels."""
    c, w = model.config, {name: p.detach() for name, p in model.named_parameters()}
    T, K = ids_BT.shape[1], c.n_embd // c.n_head

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(x, name):
        if c.normalization == "rmsnorm":
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)

    def rotate(x):
        if c.position_encoding != "rope":
            return x
        pair = torch.arange(0, K, 2, dtype=torch.float64)
        angle = torch.arange(T)[:, None] * c.rope_theta ** (-pair / K)
        a, b = (x[..., ::2], x[..., 1::2]) if c.rope_style == "interleaved" else x.split(K // 2, -1)
        out = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.stack(out, -1).flatten(-2) if c.rope_style == "interleaved" else torch.cat(out, -1)

    def attend(x, layer):
        G, name = c.n_kv_head or c.n_head, f"blocks.{layer}.attn"
        heads = linear(x, f"{name}.qkv").split(K, -1)
        outs = []
        for h in range(c.n_head):
            g = h * G // c.n_head
            q, k, v = heads[h], heads[c.n_head + g], heads[c.n_head + G + g]
            if c.qk_norm:
                q, k = (t / (t.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() for t in (q, k))
            score = rotate(q) @ rotate(k).mT / math.sqrt(K)
            if c.attention_softcap:
                score = c.attention_softcap * (score / c.attention_softcap).tanh()
            distance = torch.arange(T)[:, None] - torch.arange(T)
            short = c.window is not None and c.window_pattern[layer % len(c.window_pattern)] == "S"
            hidden = (distance < 0) | (distance >= (c.window if short else T))
            outs.append(score.masked_fill(hidden, -torch.inf).softmax(-1) @ v)
        return linear(torch.cat(outs, -1), f"{name}.out")

    def feed(x, layer):
        name = f"blocks.{layer}.ffn"
        up = linear(x, f"{name}.up")
        if c.ffn_type == "swiglu":
            return linear(F.silu(linear(x, f"{name}.gate")) * up, f"{name}.down")
        act = up.clamp(min=0) ** 2 if c.activation == "relu2" else up * 0.5 * (1 + torch.erf(up / 2**0.5))
        return linear(act, f"{name}.down")

    x = w["embed.weight"][ids_BT]
    if c.position_encoding == "learned_absolute":
        x = x + w["position.weight"][:T]
    for i in range(c.n_layer):
        a, f = f"blocks.{i}.attn_norm", f"blocks.{i}.ffn_norm"
        if c.norm_position == "pre":
            x = x + attend(norm(x, a), i)
            x = x + feed(norm(x, f), i)
        else:
            x = norm(x + attend(x, i), a)
            x = norm(x + feed(x, i), f)
    logits = norm(x, "norm") @ w.get("head.weight", w["embed.weight"])[: c.vocab_size].T
    return c.logit_softcap * (logits / c.logit_softcap).tanh() if c.logit_softcap else logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_the_written_equations(variant):
    model = make(variant)
    logits = model(ids())
    assert logits.shape == (2, 11, 61)
    tolerance = 1e-6 if model.config.logit_softcap else 1e-10  # soft-capped logits are float32
    torch.testing.assert_close(logits.double(), oracle(model, ids()), atol=tolerance, rtol=0)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "softcaps"])  # sdpa has none
def test_manual_and_sdpa_agree_with_gradients(variant):
    results = []
    for backend in ("manual", "sdpa"):
        model = make(variant, attention_backend=backend).float()
        logits = model(ids())
        logits.square().mean().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for manual, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, manual, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_token_leaves_earlier_logits_alone(variant):
    model = make(variant)
    before, changed = ids(), ids()
    changed[:, 6] = (changed[:, 6] + 1) % 61
    a, b = model(before), model(changed)
    torch.testing.assert_close(a[:, :6], b[:, :6], atol=0, rtol=0)
    assert ((a[:, 6] - b[:, 6]).abs().amax(-1) > 1e-6).all()


def test_a_window_limits_what_a_layer_sees():
    model = make("llama", n_layer=1, window=3, window_pattern="S")
    changed = ids()
    changed[:, 2] = (changed[:, 2] + 1) % 61
    moved = (model(ids()) - model(changed)).abs().amax((0, 2)) > 1e-9
    assert moved.tolist() == [False, False, True, True, True, *[False] * 6]


def test_only_last_is_the_last_row():
    model = make("llama")
    torch.testing.assert_close(model(ids(), only_last=True), model(ids())[:, -1:], atol=1e-12, rtol=0)
    torch.testing.assert_close(model.logits(model.hidden(ids())), model(ids()), atol=0, rtol=0)


def test_logits_are_soft_capped():
    model = make("hybrid", logit_softcap=0.5)
    logits = model(ids())
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= 0.5
    uncapped = F.linear(model.hidden(ids()), model.embed.weight)
    torch.testing.assert_close(logits.double(), 0.5 * (uncapped / 0.5).tanh(), atol=1e-6, rtol=0)


# --- cache -------------------------------------------------------------------------------------------------


class ListCache:
    """The smallest cache that obeys the protocol: concatenation, a dense mask, windows given at construction."""

    def __init__(self, config):
        self.windows = [config.layer_window(layer) for layer in range(config.n_layer)]
        self.kv, self.length = {}, 0

    def positions(self, T):
        return torch.arange(self.length, self.length + T)

    def update(self, layer, k_BGTK, v_BGTK):
        if layer in self.kv:
            k_BGTK, v_BGTK = (torch.cat(pair, 2) for pair in zip(self.kv[layer], (k_BGTK, v_BGTK), strict=True))
        self.kv[layer] = (k_BGTK, v_BGTK)
        S, window = k_BGTK.shape[2], self.windows[layer]
        if self.length == 0 and window is None:
            return k_BGTK, v_BGTK, None
        distance = torch.arange(self.length, S)[:, None] - torch.arange(S)
        return k_BGTK, v_BGTK, (distance >= 0) & (distance < (window or S))

    def advance(self, T):
        self.length += T


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("steps", [[5, 1, 1, 4], [1] * 11])
def test_a_cache_gives_the_logits_of_the_whole_sequence(variant, steps):
    model = make(variant)
    cache = ListCache(model.config)
    parts = [model(part, cache=cache) for part in ids().split(steps, 1)]
    assert cache.length == 11
    torch.testing.assert_close(torch.cat(parts, 1), model(ids()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", ["gpt2_pre", "llama"])
def test_positions_per_sequence(variant):
    class Shifted(ListCache):
        def positions(self, T):
            return torch.arange(T) + torch.tensor([[0], [3]])

    model = make(variant)
    shifted = model(ids(), cache=Shifted(model.config))
    plain = model(ids())
    torch.testing.assert_close(shifted[0], plain[0], atol=1e-10, rtol=0)
    same = torch.allclose(shifted[1], plain[1], atol=1e-10)
    assert same == (variant == "llama")  # rotary scores depend on offsets only, learned positions do not


# --- initialization ----------------------------------------------------------------------------------------


def test_initial_standard_deviations():
    torch.manual_seed(0)
    model = gpt(2000, 256, n_layer=12, n_head=4, n_embd=128, bias=True, normalization="layernorm")
    for name, p in model.named_parameters():
        if name.endswith(("attn.out.weight", "ffn.down.weight")):
            assert p.std().item() == pytest.approx(0.02 / math.sqrt(24), rel=0.03), name
        elif p.ndim == 2:
            assert p.std().item() == pytest.approx(0.02, rel=0.03), name
        else:
            assert (p == (0 if name.endswith("bias") else 1)).all(), name


def test_initial_standard_deviations_can_be_set():
    fields = {"init_std": 0.1, "residual_init_std": 0.01, "embedding_init_std": 0.5, "head_init_std": 0.001}
    model = gpt(2000, 16, preset="llama", n_layer=2, n_head=4, n_embd=128, **fields)
    expected = {
        "embed": 0.5,
        "head": 0.001,
        "blocks.1.attn.out": 0.01,
        "blocks.1.attn.qkv": 0.1,
        "blocks.0.ffn.gate": 0.1,
    }
    for name, std in expected.items():
        assert model.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.05), name


@pytest.mark.parametrize(("vocab", "loss"), [(65, 4.174), (50304, 10.826)])
@pytest.mark.parametrize("preset", ["gpt2_pre", "llama"])
def test_initial_loss_is_the_log_of_the_vocabulary(vocab, loss, preset):
    model = gpt(vocab, 32, preset=preset, n_layer=2, n_head=4, n_embd=64, init_seed=0)
    x, y = ids(2, 32, vocab), torch.randint(vocab, (64,), generator=torch.Generator().manual_seed(2))
    assert F.cross_entropy(model(x).flatten(0, 1), y).item() == pytest.approx(loss, abs=0.05)


def test_init_seed_is_independent_of_the_global_generator():
    state = torch.get_rng_state()
    a = gpt(61, 16, init_seed=5, **SMALL)
    assert not a.embed.weight.eq(gpt(61, 16, init_seed=6, **SMALL).embed.weight).any()
    torch.rand(3)
    b = gpt(61, 16, init_seed=5, **SMALL)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    torch.set_rng_state(state)


# --- dropout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["attention", "residual", "ffn", "embedding"])
def test_each_dropout_acts_in_training_only(place):
    model = make("llama", **{f"{place}_dropout": 0.5})
    torch.testing.assert_close(model(ids()), model(ids()), atol=0, rtol=0)
    model.train()
    assert (model(ids()) - model(ids())).abs().max() > 1e-3
    assert model.config.dropout == 0


# --- meta device, dtypes, compile --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["gpt2_pre", "llama"])
def test_a_model_built_on_meta_works_after_its_weights_are_loaded(preset):
    source = gpt(61, 16, preset=preset, **SMALL).eval()
    with torch.device("meta"):
        model = GPT(source.config)
    model = model.to_empty(device="cpu").eval()
    model.load_state_dict(source.state_dict())
    torch.testing.assert_close(model(ids()), source(ids()), atol=0, rtol=0)


def test_rotary_table_is_never_below_float32_and_not_saved():
    model = gpt(61, 16, preset="llama", **SMALL)
    exact = model.position.cos.clone()
    half = copy.deepcopy(model).bfloat16()
    assert half(ids()).dtype == torch.bfloat16
    assert half.position.cos.dtype == torch.float32
    torch.testing.assert_close(half.position.cos, exact, atol=0, rtol=0)
    assert model.double().position.cos.dtype == torch.float64
    assert not [name for name in model.state_dict() if name.startswith("position")]


def test_autocast_runs_every_preset():
    for variant in VARIANTS:
        model = make(variant).float()
        exact = model(ids())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids())
        assert (logits - exact).abs().mean() < 0.1 * exact.abs().mean(), variant


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="17 tokens do not fit the context of 16"):
        gpt(61, 16, **SMALL)(ids(length=17))


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_documents_are_as_if_alone(variant):
    """One row of 16 + 1 + 5 tokens, longer than the context of 16: each document gives the logits it gives alone."""
    model, lengths = make(variant), [16, 1, 5]
    packed = ids(batch=1, length=sum(lengths))
    ends = torch.tensor([0, 16, 17, 22, 22, 22], dtype=torch.int32)
    alone = [model(document) for document in packed.split(lengths, 1)]
    torch.testing.assert_close(model(packed, cu_seqlens=ends), torch.cat(alone, 1), atol=1e-11, rtol=0)


def test_a_packed_document_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match=r"a document of 17 tokens does not fit the context of 16.*max_document"):
        gpt(61, 16, **SMALL)(ids(1, 20), cu_seqlens=torch.tensor([0, 3, 20], dtype=torch.int32))


def test_packed_documents_and_a_cache_exclude_each_other():
    with pytest.raises(ValueError, match="packed documents"):
        gpt(61, 16, **SMALL)(ids(1), cache=object(), cu_seqlens=torch.tensor([0, 11]))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gpt2_pre", "windows", "softcaps", "team-mqa-qknorm"])
def test_compiles_to_one_graph(variant):
    model = make(variant).float()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids()), model(ids()), atol=1e-5, rtol=1e-5)
    compiled(ids()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_blocks_can_be_replaced_by_checkpointed_ones():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, *args):
            return checkpoint(self.block, *args, use_reentrant=False)

    grads = []
    for wrap in (False, True):
        model = make("llama", dropout=0.1).train()
        for i, block in enumerate(model.blocks):
            model.blocks[i] = Checkpointed(block) if wrap else block
        torch.manual_seed(0)
        model(ids()).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, wrapped in zip(*grads, strict=True):
        torch.testing.assert_close(wrapped, plain, atol=0, rtol=0)


def test_config_defaults_are_gpt2_pre():
    assert gpt(61, 16, **SMALL).config == GPTConfig(61, 16, **SMALL)
