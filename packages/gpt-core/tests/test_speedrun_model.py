"""The speedrun's forward pass against a slow float64 one that was written from its description, record by record."""

import pytest
import torch
from speedrun_reference import Reference

from gpt_core.models.speedrun import speedrun

CU_SEQLENS = torch.tensor([0, 9, 9, 31, 47, 47], dtype=torch.int32)
DOCUMENTS = torch.tensor([0] * 9 + [1] * 22 + [2] * 16)

R70 = {"value_std": 0.01, "value_shift": True, "value_gate_token": True}
R73 = {**R70, "sublayer_lambdas": True, "parallel_lanes": True}
R77 = {**R70, "sublayer_lambdas": True, "cached_attention": True}
R80 = {**R77, "pair_banks": True}
R81 = {**R80, "mudd": True}
R82 = {**R81, "xsa": True}
R83 = {**R82, "bigram_signs": True, "bigram_dim": 16, "bigram_rows": 15 * 128}
R85 = {**R82, "bigram_signs": True, "bigram_rows": 15 * 128, "mudd_gates": True, "dynamic_heads": True}
RECORDS = {68: {}, 70: R70, 73: R73, 77: R77, 80: R80, 81: R81, 82: R82, 83: R83, 85: R85}
TRICKS_OF_68 = (
    "paired_heads",
    "yarn",
    "half_rotary",
    "key_offset",
    "attention_gates",
    "value_gates",
    "bigram_embeddings",
    "smear",
    "skip",
    "x0_lambdas",
    "backout",
    "softcap",
)
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


def make(**fields):
    """A small model in which every parameter matters."""
    sizes = {"vocab_size": 100, "context_length": 32, "n_layer": 11, "n_head": 4, "n_embd": 48, "init_seed": 3}
    model = speedrun(**{**sizes, "window_short": 5, "window_long": 11, **fields})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.02 if name in ("attn", "qk", "vo", "mlp") else 0.3
            parameter.add_(torch.empty_like(parameter).uniform_(-spread, spread, generator=generator))
    return model.double()


def tokens():
    return torch.randint(100, (47,), generator=torch.Generator().manual_seed(0))


def compare(model):
    got = model(tokens()[None], cu_seqlens=CU_SEQLENS)[0]
    expected = Reference(model, tokens(), DOCUMENTS).logits()
    torch.testing.assert_close(got.double(), expected, atol=1e-9 if got.dtype == torch.float64 else 2e-5, rtol=0)
    assert expected.std() > 0.05  # there is something to be wrong about


@pytest.mark.parametrize("record", RECORDS)
def test_each_record_is_its_description(record):
    compare(make(**RECORDS[record]))


def test_after_windows_grew():
    model = make()
    model.set_windows(6, 19)
    compare(model)


@pytest.mark.parametrize("depth", [4, 6, 8])
def test_other_depths(depth):
    compare(make(n_layer=depth))
    if depth > 4:
        compare(make(n_layer=depth, **R85))


@pytest.mark.parametrize("switches", [*TRICKS_OF_68, *NEEDED_BY, "all"])
def test_each_trick_can_be_off(switches):
    names = (*TRICKS_OF_68, *NEEDED_BY) if switches == "all" else (switches,)
    compare(make(n_layer=6, **without(*names)))


@pytest.mark.parametrize("record", [68, 85])
def test_documents_kept_apart_on_request(record):
    compare(make(n_layer=6, isolate_documents=True, **RECORDS[record]))
