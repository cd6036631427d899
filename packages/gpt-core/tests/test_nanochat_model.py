"""nanochat's model: each extra does what it says, and without all of them it is the GPT."""

import pytest
import torch

from gpt_core.generate.cache import KVCache
from gpt_core.models import gpt
from gpt_core.models.nanochat import nanochat

SIZES = {"n_layer": 5, "n_head": 2, "n_embd": 32, "init_seed": 3}
OFF = dict.fromkeys(("value_embeddings", "resid_lambdas", "x0_lambdas", "smear", "backout"), False)


def build(stirred=True, **fields):
    """A model whose maps to the stream, zero at first, are not."""
    model = nanochat(50, 16, **{**SIZES, **fields})
    if stirred:
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def ids(rows=2, tokens=16):
    return torch.randint(50, (rows, tokens), generator=torch.Generator().manual_seed(1))


def test_without_extras_it_is_the_gpt():
    model = build(**OFF)
    same = gpt(
        50, 16, preset="depth", **SIZES, rope_theta=100_000.0, rope_style="half", qk_norm_gain=1.2, norm_eps=1e-6
    )
    same.load_state_dict(model.state_dict())
    assert torch.equal(model(ids()), same(ids()))


@pytest.mark.parametrize("switch", OFF)
def test_every_extra_has_parameters_of_its_own_and_changes_the_model(switch):
    names = {name for name, _ in build().named_parameters()}
    without = {name for name, _ in build(**{switch: False}).named_parameters()}
    own = names - without
    words = {"value_embeddings": ("value_embeds", "value_gate"), "smear": ("smear",), "backout": ("backout",)}
    assert own and all(any(word in name for word in words.get(switch, (switch,))) for name in own)
    model, off = build(), build(stirred=False, **{switch: False})
    off.load_state_dict({name: model.state_dict()[name] for name in off.state_dict()})
    assert (model(ids()) - off(ids())).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient():
    model = build()
    torch.nn.functional.cross_entropy(model(ids()).flatten(0, 1), ids().flatten()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_first_values_are_nanochats():
    model = build(stirred=False)
    assert model.resid_lambdas.tolist() == pytest.approx([1.15, 1.125, 1.1, 1.075, 1.05])
    assert model.x0_lambdas.tolist() == pytest.approx([0.2, 0.1625, 0.125, 0.0875, 0.05])
    assert (model.smear_lambda.item(), model.backout_lambda.item()) == (0.0, pytest.approx(0.2))
    assert sorted(model.value_embeds) == ["0", "2", "4"], "every second layer, the last included"
    block = model.blocks[2]
    assert not block.attn.out.weight.any() and not block.ffn.down.weight.any()
    assert block.attn.qkv.weight.std().item() == pytest.approx(32**-0.5, rel=0.05)
    assert block.ffn.up.weight.std().item() == pytest.approx(0.4 * 32**-0.5, rel=0.05)
    assert block.value_gate.weight.min() >= 0 and block.value_gate.weight.max() <= 0.02
    again = build(stirred=False)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_documents_of_a_packed_row_do_not_see_each_other():
    model = build()
    row = ids(1)
    packed = model(row, cu_seqlens=torch.tensor([0, 5, 6, 16], dtype=torch.int32))
    alone = torch.cat([model(row[:, begin:end]) for begin, end in ((0, 5), (5, 6), (6, 16))], 1)
    assert torch.allclose(packed, alone, atol=1e-5)


@pytest.mark.parametrize("smear", [True, False])
def test_it_decodes_with_a_cache(smear):
    model = build(smear=smear).eval()
    assert model.looks_back == smear
    whole, parts = model(ids()), []
    cache = KVCache(model.config, 2, 16)
    with torch.no_grad():
        for begin, end in ((0, 7), (7, 8), (8, 16)):
            parts.append(model(ids()[:, begin:end], cache=cache))
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"norm_position": "post"}, "norm_position pre"), ({"n_embd": 16}, "n_embd is 16"), ({"qk_norm_gain": 0}, "gain")],
)
def test_impossible_models_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)
