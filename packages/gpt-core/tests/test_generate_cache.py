"""The key/value cache against a plain forward pass, in float64, over the architectures."""

import pytest
import torch
from toys import any_gpt

from gpt_core.generate.cache import KVCache

CONTEXT = 24
ARCHITECTURES = {
    "gpt2": {},
    "smear": {"smear": True},
    "smear_windows": {"smear": True, "position_encoding": "rope", "window": 5, "window_pattern": "SSL"},
    "rope": {"position_encoding": "rope", "normalization": "rmsnorm", "ffn_type": "swiglu", "weight_tying": False},
    "rope_half": {"position_encoding": "rope", "rope_style": "half"},
    "no_positions": {"position_encoding": "none"},
    "grouped": {"position_encoding": "rope", "n_kv_head": 2},
    "multi_query": {"n_kv_head": 1},
    "window": {"position_encoding": "rope", "window": 5, "window_pattern": "S"},
    "window_of_one": {"position_encoding": "rope", "window": 1, "window_pattern": "SL"},
    "mixed_windows": {"window": 4, "window_pattern": "SSL", "n_kv_head": 2},
    "post_norm": {"norm_position": "post", "normalization": "layernorm", "bias": True},
    "qk_norm": {"qk_norm": True, "position_encoding": "rope"},
    "softcaps": {"attention_softcap": 5.0, "logit_softcap": 9.0},
    "manual": {"attention_backend": "manual", "window": 6, "window_pattern": "SL"},
}


def build(name, **more):
    """A model whose weights are large enough for its logits to depend on every token it sees."""
    fields = {"vocab_size": 41, "context_length": CONTEXT, "n_layer": 3, "n_head": 4, "n_embd": 32, "init_std": 0.25}
    return any_gpt(0, **fields, **ARCHITECTURES[name], **more)


def ids_of(batch_size, length):
    return torch.randint(41, (batch_size, length), generator=torch.Generator().manual_seed(1))


def new_cache(model, batch_size, max_length=CONTEXT, pads=None):
    return KVCache(model.config, batch_size, max_length, dtype=torch.float64, pads=pads)


def feed(model, ids_BT, cache, chunks):
    parts = [model(chunk, cache=cache) for chunk in ids_BT.split(chunks, dim=1)]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("chunks", [[1] * CONTEXT, [9] + [1] * 15, [2, 1, 7, 1, 1, 12], [CONTEXT]], ids=str)
@torch.no_grad()
def test_any_way_of_feeding_gives_the_logits_of_one_pass(name, chunks):
    model, ids = build(name), ids_of(2, CONTEXT)
    cache = new_cache(model, 2)
    torch.testing.assert_close(feed(model, ids, cache, chunks), model(ids), rtol=0, atol=1e-10)
    assert cache.length == CONTEXT


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_padded_rows_give_the_logits_of_each_row_alone(name):
    model, lengths, steps = build(name), [9, 4, 1], 12
    rows = [ids_of(1, length + steps)[0] + row for row, length in enumerate(lengths)]
    rows = [row % 41 for row in rows]
    pads = [max(lengths) - length for length in lengths]
    cache = new_cache(model, 3, max(lengths) + steps, pads)
    padded = torch.stack(
        [torch.cat([torch.zeros(pad, dtype=torch.long), row]) for pad, row in zip(pads, rows, strict=True)]
    )
    together = feed(model, padded, cache, [max(lengths)] + [1] * (steps - 3) + [3])
    for row, pad, logits in zip(rows, pads, together, strict=True):
        torch.testing.assert_close(logits[pad:], model(row[None])[0], rtol=0, atol=1e-10)
    assert together.isfinite().all(), "padding queries see themselves, so no softmax is empty"


def test_rows_of_equal_length_need_no_mask():
    model = build("mixed_windows")
    cache = new_cache(model, 2, pads=[0, 0])
    for T in (6, 1, 1, 3, 1):
        for layer in range(3):
            heads = torch.zeros(2, 2, T, 8, dtype=torch.float64)
            assert cache.update(layer, heads, heads)[2] is None
        cache.advance(T)


def test_a_window_that_left_the_padding_needs_no_mask():
    model = build("window")
    cache = new_cache(model, 2, pads=[0, 3])
    seen = []
    for _ in range(10):
        heads = torch.zeros(2, 4, 1, 8, dtype=torch.float64)
        for layer in range(3):
            mask = cache.update(layer, heads, heads)[2]
        cache.advance(1)
        seen.append(mask is None)
    assert seen == [False] * 7 + [True] * 3  # window 5 over slots 3 … 7 is the first without padding


def test_memory_is_what_the_layers_can_see():
    model = build("mixed_windows")  # windows 4, 4, none; 2 key/value heads of 8 channels
    cache = KVCache(model.config, 3, 20, dtype=torch.float32)
    assert cache.nbytes == 2 * 3 * 2 * 8 * (4 + 4 + 20) * 4
    assert cache.batch_size == 3


@pytest.mark.parametrize("name", ["gpt2", "window", "mixed_windows"])
@torch.no_grad()
def test_selected_rows_go_on_as_if_they_had_been_alone(name):
    model, ids = build(name), ids_of(3, 16)
    cache = new_cache(model, 3)
    feed(model, ids[:, :9], cache, [9])
    cache.select([2, 0, 2])
    got = feed(model, ids[[2, 0, 2], 9:], cache, [1] * 7)
    torch.testing.assert_close(got, model(ids)[[2, 0, 2], 9:], rtol=0, atol=1e-10)


@torch.no_grad()
def test_selection_keeps_the_padding_of_each_row():
    model, ids = build("rope"), ids_of(1, 12)
    cache = new_cache(model, 2, pads=[0, 4])
    feed(model, torch.cat([ids_of(1, 8), torch.cat([torch.zeros(1, 4, dtype=torch.long), ids[:, :4]], 1)]), cache, [8])
    cache.select([1])
    torch.testing.assert_close(feed(model, ids[:, 4:], cache, [1] * 8), model(ids)[:, 4:], rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_full_cache_says_so():
    model = build("gpt2")
    cache = new_cache(model, 1, 4)
    feed(model, ids_of(1, 4), cache, [3, 1])
    with pytest.raises(ValueError, match="holds 4 tokens per row, got 5"):
        model(ids_of(1, 1), cache=cache)


@pytest.mark.parametrize(("batch_size", "max_length"), [(0, 4), (2, 0)])
def test_an_empty_cache_is_refused(batch_size, max_length):
    with pytest.raises(ValueError, match="at least one row and one slot"):
        KVCache(build("gpt2").config, batch_size, max_length)
