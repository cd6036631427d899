"""Fused operations inside the model: equal to the separate ones, and only where nobody has a hand in between."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gpt_core.models import ffn, gpt
from gpt_core.models.linear import Linear
from gpt_core.models.norms import NORMS
from gpt_core.training.parallel import checkpoint_activations
from gpt_core.training.precision import autocast, multiply_in_float8
from gpt_kernels import FP8Linear, convert_to_fp8

CPU = torch.device("cpu")


def build(activation="relu2", seed=0, **fields):
    torch.manual_seed(seed)
    return gpt(61, 16, n_layer=2, n_head=2, n_embd=32, activation=activation, init_std=0.2, **fields)


def ids():
    return torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(1))


def outcome(model):
    """Logits, then gradients."""
    model.zero_grad(set_to_none=True)
    logits = model(ids())
    logits.float().square().mean().backward()
    return [logits.detach(), *(p.grad for p in model.parameters())]


@pytest.fixture
def fused_calls(monkeypatch):
    calls, original = [], ffn.relu2_mlp
    monkeypatch.setattr(ffn, "relu2_mlp", lambda *args: calls.append(1) or original(*args))
    return calls


def separate(model):
    """A hook that does nothing, which is enough to have the modules called."""
    for block in model.blocks:
        block.ffn.up.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_relu2_is_fused_and_the_same(fused_calls, dtype):
    model, plain = build().to(dtype), separate(build()).to(dtype)
    found = outcome(model)
    assert len(fused_calls) == 2
    bounds = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for ours, theirs in zip(found, outcome(plain), strict=True):
        assert (ours - theirs).norm() <= bounds * theirs.norm() + 1e-30
    assert len(fused_calls) == 2
    if dtype == torch.float32:
        assert torch.equal(found[0], plain(ids())), "forward is bit for bit what it was"


def test_relu2_under_autocast_and_with_recomputed_activations(fused_calls):
    with autocast(torch.bfloat16, CPU):
        expected, model = outcome(build()), build()
        checkpoint_activations(model)
        again = outcome(model)
    assert expected[0].dtype == torch.bfloat16
    assert len(fused_calls) == 2 + 4, "forward ran again in the backward pass"
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))


def test_relu2_takes_matrices_that_fsdp_gathered_in_half_precision(fused_calls):
    """There x is float32 and autocast rounds it."""
    network = build().blocks[0].ffn
    x = torch.randn(2, 11, 32)
    with autocast(torch.bfloat16, CPU):
        expected = network(x)
        network.to(torch.bfloat16)
        assert torch.equal(network(x), expected)
    assert len(fused_calls) == 2


def test_relu2_keeps_one_hidden_tensor_for_backward():
    def kept(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
            model.blocks[0].ffn(torch.randn(2, 11, 32, requires_grad=True))
        return sum(size in ((2, 11, 128), (22, 128)) for size in sizes)

    assert kept(build()) == 1 < kept(separate(build()))


class Adapted(nn.Module):
    """A low-rank adapter around a linear map."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.weight = inner, inner.weight
        self.more = nn.Linear(inner.in_features, inner.out_features, bias=False)

    def forward(self, x):
        return self.inner(x) + self.more(x)


def adapt(model):
    for block in model.blocks:
        block.ffn.up = Adapted(block.ffn.up)


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"ffn_bias": True}, None),
        ({"activation": "gelu"}, None),
        ({"ffn_type": "swiglu"}, None),
        ({}, adapt),
        ({}, lambda model: convert_to_fp8(model, backend="emulated")),
    ],
)
def test_other_networks_are_called_as_they_are(fused_calls, fields, change):
    model = build(**fields)
    before = model(ids())
    fused_calls.clear()
    if change:
        change(model)
    assert all(gradient is not None for gradient in outcome(model))
    assert not fused_calls
    assert torch.equal(model(ids()), before) == (change is None), "what was put in place has its say"


def test_swiglu_and_norms_are_torchs_own_bit_for_bit_on_cpus():
    torch.manual_seed(0)
    network = build(ffn_type="swiglu").blocks[0].ffn
    x = torch.randn(3, 5, 32)
    assert torch.equal(network(x), network.down(F.silu(network.gate(x)) * network.up(x)))
    for name in ("layernorm", "layernorm_nobias"):
        norm = NORMS[name](32, 1e-5)
        nn.init.normal_(norm.weight)
        assert torch.equal(norm(x), F.layer_norm(x, (32,), norm.weight, getattr(norm, "bias", None), 1e-5))


# --- float8 ------------------------------------------------------------------------------------------------------


def test_float8_takes_the_place_of_the_blocks_linear_maps():
    model, plain = build(weight_tying=False), build(weight_tying=False)
    names = list(model.state_dict())
    parameters = list(model.parameters())
    multiply_in_float8(model)
    converted = [name for name, module in model.named_modules() if isinstance(module, FP8Linear)]
    assert converted == [
        f"blocks.{i}.{name}" for i in (0, 1) for name in ("attn.qkv", "attn.out", "ffn.up", "ffn.down")
    ]
    assert type(model.head) is Linear
    assert list(model.state_dict()) == names and all(
        a is b for a, b in zip(parameters, model.parameters(), strict=True)
    )
    # no float8 units here: the products stay what they were
    found, expected = outcome(model), outcome(separate(plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_training_with_emulated_float8_learns_as_much(toys):
    def losses(model):
        seen, state = [], toys.state(model, data=toys.Loader(masked=False))
        for step in range(1, 13):
            state.status = "running"
            toys.train(state, step)
            seen.append(float(state.last.loss_sum) / state.last.count)
        return torch.tensor(seen)

    model, plain = toys.gpt(), toys.gpt()
    convert_to_fp8(model.blocks, backend="emulated")
    found, expected = losses(model), losses(plain)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "training.fp8 needs a model with .blocks; Linear has none"),
        (gpt(61, 16, n_layer=1, n_head=2, n_embd=12), "nothing was converted.*multiples of 16"),
    ],
)
def test_models_without_linear_maps_for_float8_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        multiply_in_float8(model)
