"""Switches of the speedrun's model: prerequisites, what is a no-op at first, gradients, who sees whom."""

import pytest
import torch
from speedrun_models import R77, R80, R81, R82, R85, RECORDS, make, new, tokens

from gpt_core.models.speedrun import SpeedrunConfig, parameter_shapes, speedrun, speedrun_loss
from gpt_core.models.speedrun.attention import Row, _paired, _plain
from gpt_core.models.speedrun.composition import compose
from gpt_core.models.speedrun.rotary import RotaryState
from gpt_core.monitor.flops import flops_breakdown

CU_SEQLENS = torch.tensor([0, 20, 47], dtype=torch.int32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": False}, "yarn needs windows: switch yarn off, or windows on"),
        ({"half_rotary": False}, "key_offset needs half_rotary"),
        ({"value_embeddings": False}, "value_gates needs value_embeddings"),
        ({"attention_free_layer": False}, "skip needs attention_free_layer"),
        ({"parallel_lanes": True}, "parallel_lanes needs sublayer_lambdas"),
        ({"cached_attention": True}, "cached_attention needs sublayer_lambdas"),
        ({**R77, "parallel_lanes": True}, "cached_attention replaces parallel_lanes"),
        ({"mudd": True}, "mudd needs cached_attention"),
        ({"mudd_gates": True}, "mudd_gates needs mudd and xsa"),
        ({"dynamic_heads": True}, "dynamic_heads needs mudd_gates"),
        ({"bigram_embeddings": False, "bigram_signs": True}, "bigram_signs needs bigram_embeddings"),
        ({"n_head": 3}, "paired_heads needs an even number of heads, got n_head=3"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_head": 8}, "heads need a multiple of 4 channels, at least 8"),
        ({"n_layer": 3}, "skip needs a layer before the one without attention; n_layer=3 is too few"),
        ({"n_layer": 4, **R77}, "cached_attention needs layers after the one that it reads; n_layer=4"),
        ({"window_short": 12, "window_long": 4}, "window_short <= window_long"),
        ({"bigram_dim": 49}, "bigram_dim must be from 1 to n_embd = 48"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ({"fp8_mlp": "down"}, "fp8_mlp must be one of off, up, both"),
        ({"key_offsets": True}, "unknown speedrun fields key_offsets; did you mean 'key_offset'"),
    ],
)
def test_bad_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        new(**fields)


def test_config_round_trip():
    config = SpeedrunConfig(300, n_layer=6, n_embd=96, **R85)
    assert SpeedrunConfig.from_dict(config.to_dict()) == config
    assert config.name == "speedrun-6L-6H-96D"


@pytest.mark.parametrize("record", RECORDS)
def test_banks_are_padded_for_eight_ranks(record):
    shapes = parameter_shapes(new(**RECORDS[record]).config)
    views = {"attn": 4, "qk": 1, "vo": 1, "mlp": 2}  # matrices in a row of the bank
    assert all(shapes[name][0] * each % 8 == 0 for name, each in views.items() if name in shapes)


@pytest.mark.parametrize(
    ("base", "switch"),
    [
        ({}, {"smear": False}),
        ({}, {"x0_lambdas": False}),
        ({}, {"bigram_embeddings": False}),
        ({}, {"value_embeddings": False, "value_gates": False}),
        ({}, {"value_gates": False}),
        ({}, {"value_shift": True}),
        ({}, {"bigram_signs": True}),
        ({}, {"bigram_dim": 16}),
        ({}, {"xsa": True}),
        (R80, {"mudd": True, "value_std": 0.0}),
        ({**R85, "dynamic_heads": False}, {"dynamic_heads": True}),
    ],
)
def test_switches_that_change_nothing_at_first(base, switch):
    """They start from zero: the same numbers with and without."""
    base = {**base, "value_std": 0.0} if "value_std" in switch else base
    with_it, without_it = new(**{**base, **switch}), new(**base)
    ids = tokens()[None]
    torch.testing.assert_close(with_it(ids), without_it(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "switch",
    ["paired_heads", "attention_free_layer", "windows", "half_rotary", "key_offset", "attention_gates", "backout"],
)
def test_switches_that_change_something_at_first(switch):
    needing = {"windows": "yarn", "half_rotary": "key_offset", "attention_free_layer": "skip"}
    off = {switch: False} | ({needing[switch]: False} if switch in needing else {})
    ids = tokens()[None]
    assert (new(**off)(ids) - new()(ids)).abs().max() > 1e-4


@pytest.mark.parametrize("record", RECORDS)
def test_every_parameter_learns_and_padding_does_not(record):
    model, ids = make(**RECORDS[record]), tokens(48)[None]
    loss = speedrun_loss([1, 0.5])
    x = model.hidden(ids[:, :-1], cu_seqlens=CU_SEQLENS)
    loss.of_hidden(x, model.head_weight(), ids[:, 1:], softcap=model.config.logit_softcap).objective.backward()
    config = model.config
    used = {"attn": config.attention_layers, "mlp": config.n_layer, "vo": 2 * config.attention_layers}
    used["qk"] = config.attention_layers * config.n_head
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        for i, part in enumerate(parameter.grad if name in used else [parameter.grad]):
            assert part.any() == (name not in used or i < used[name]), f"{name} {i}"


@pytest.mark.parametrize("record", RECORDS)
def test_nobody_sees_what_comes_later(record):
    model, ids = make(**RECORDS[record]), tokens()[None]
    later = ids.clone()
    later[0, 30:] = tokens(17, seed=1)
    first, second = model(ids), model(later)
    torch.testing.assert_close(first[:, :30], second[:, :30], rtol=0, atol=1e-12)
    assert (first[:, 30:] - second[:, 30:]).abs().max() > 1e-3


@pytest.mark.parametrize("record", [68, 85])
def test_documents_are_apart_where_they_should_be(record):
    """Isolated they know nothing of each other; else, as upstream, smear, bigram and key offset look one token back."""
    other = tokens()[None].clone()
    other[0, :20] = tokens(20, seed=1)
    difference = {}
    for isolated in (True, False):
        model = make(isolate_documents=isolated, **RECORDS[record])
        logits = [model(ids, cu_seqlens=CU_SEQLENS)[0, 20:] for ids in (tokens()[None], other)]
        difference[isolated] = (logits[0] - logits[1]).abs().max()
    assert difference[True] < 1e-12 and difference[False] > 1e-4
    off = {"smear": False, "key_offset": False} | ({"bigram_embeddings": False} if record == 68 else {})
    model = make(**{**RECORDS[record], **off})
    logits = [model(ids, cu_seqlens=CU_SEQLENS)[0, 20:] for ids in (tokens()[None], other)]
    if record == 68:  # without the three nothing crosses
        assert (logits[0] - logits[1]).abs().max() < 1e-12


@pytest.mark.parametrize("record", [68, 85])
def test_rows_of_a_batch_are_apart(record):
    model = make(**RECORDS[record])
    ids = torch.stack([tokens(24), tokens(24, seed=1)])
    both = model(ids)
    for row in (0, 1):
        torch.testing.assert_close(both[row : row + 1], model(ids[row : row + 1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(model(ids, only_last=True), both[:, -1:], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"packed documents .* one row, got 2"):
        model(ids, cu_seqlens=torch.tensor([0, 24], dtype=torch.int32))


def seen(core, T=6, window=1):
    """[T, H, T, H] bool: whether the output of a token's head depends on another token's value."""
    config = new().config
    H, K = config.n_head, config.head_dim
    q, k, v = (
        torch.randn(1, T, H, K, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1, 2)
    )
    tables = RotaryState(config).tables(T, torch.float64)
    row = Row(H, tables, 0.1, window, window, None, None, "auto")
    plan = config.layers[0 if core is _paired else 1]
    run = (lambda v: _paired(q, k, v, plan, row)) if core is _paired else (lambda v: _plain(q, k, v, plan, row, None))
    jacobian = torch.autograd.functional.jacobian(lambda v: run(v).sum(-1)[0], v)  # (T, H, 1, T, H, K)
    return jacobian[:, :, 0].abs().sum(-1) > 0


def test_a_window_of_one_is_the_token_and_the_one_before():
    T, see = 6, seen(_plain)
    for head in range(4):
        assert torch.equal(see[:, head, :, head], torch.eye(T).bool() | torch.eye(T).roll(-1, 1).tril().bool())
        assert not see[:, head][:, :, [other for other in range(4) if other != head]].any()


def test_paired_heads_see_each_other_in_one_order():
    """Of the pair (j, j + 2) the second sees the first of its own token, not the reverse; one position back is half a
    token: the first sees the second of the token before."""
    T, see = 6, seen(_paired)
    own, before = torch.eye(T).bool(), torch.eye(T).roll(-1, 1).tril().bool()
    for j in (0, 1):
        first, second = j, j + 2
        assert torch.equal(see[:, second, :, first], own) and torch.equal(see[:, first, :, second], before)
        assert torch.equal(see[:, first, :, first], own) and torch.equal(see[:, second, :, second], own)
        assert not see[:, first][:, :, [1 - j, 3 - j]].any()


def test_composed_heads_do_not_see_beyond_their_window():
    """The blocks of `compose` against dense masks, for lengths on and off the block, with documents."""
    B, H, T, K, W = 2, 3, 13, 8, 5
    q, k, v = (
        torch.randn(B, H, T, K, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1, 2)
    )
    w1, w2 = (torch.randn(B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (3, 4))
    for length in (3, 5, 10, 13):
        for cu_seqlens in (None, torch.tensor([0, 2, 2, min(7, length), length], dtype=torch.int32)):
            i = torch.arange(length)
            mask = (i[None] <= i[:, None]) & (i[None] > i[:, None] - W)
            if cu_seqlens is not None:
                document = (i[:, None] >= cu_seqlens[None]).sum(1)
                mask &= document[:, None] == document[None]
            at = (slice(None), slice(None), slice(length))
            scores = (q[at] @ k[at].mT * 0.3).masked_fill(~mask, -torch.inf)
            normed = w1[:, :length] * (w1[:, :length].square().mean(-1, keepdim=True) + 1e-6).rsqrt()
            mixed = (normed.mT.unsqueeze(-1) * scores.softmax(-1)).sum(1, keepdim=True)
            expected = w2[:, :length].mT.unsqueeze(-1) * (mixed @ v[at])
            options = {"scale": 0.3, "cu_seqlens": cu_seqlens, "window": W}
            got = compose(q[at], k[at], v[at], w1[:, :length], w2[:, :length], **options)
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_xsa_at_full_strength_leaves_nothing_along_the_value():
    from gpt_core.models.speedrun.attention import without_own_value

    y, v = (torch.randn(1, 5, 2, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    without = without_own_value(y, v, torch.full((2,), 30.0))
    assert (without * v).sum(-1).abs().max() < 1e-5
    torch.testing.assert_close(without_own_value(y, v, torch.zeros(2)), y)


def test_signs_are_those_of_the_seed_and_in_the_checkpoint():
    first, second = (new(bigram_signs=True, init_seed=seed) for seed in (3, 4))
    assert set(first.signs.unique().tolist()) == {-1.0, 1.0} and first.signs.shape == (8192, 48)
    assert torch.equal(first.signs, new(bigram_signs=True).signs) and not torch.equal(first.signs, second.signs)
    assert "signs" in first.state_dict() and "signs" not in new().state_dict()


def test_first_values():
    model = new(**{**R82, "parallel_lanes": False})
    layers = model.config.n_layer
    bound = 3**0.5 / 2 * 48**-0.5
    assert 0.9 * bound < model.vo.abs().max() <= bound and 0.9 * bound < model.mlp[:, 0].abs().max() <= bound
    assert not model.mlp[:, 1].any() and not model.xsa_alphas.any() and not model.x0_lambdas.any()
    assert model.scalars.tolist() == pytest.approx([*[0.5, 1.0] * layers, 0.0, -1.5])  # mudd has taken backout
    assert model.lm_head.std().item() == pytest.approx(0.005, rel=0.05)
    assert torch.equal(model.embed, model.lm_head.t())
    assert model.value_embed.std().item() == pytest.approx(0.01, rel=0.05)
    lanes = new(**RECORDS[73]).post_lambdas
    assert lanes[4:, 0, 1].unique().tolist() == [1.5] and lanes.sum() == lanes.numel() + 0.5 * 2


def test_a_seed_gives_the_same_weights_in_either_dtype():
    first, second, half = new(), new(), new(dtype="bfloat16")
    assert torch.equal(first.attn, second.attn) and torch.equal(first.attn.bfloat16(), half.attn)
    assert half.scalars.dtype == half.x0_lambdas.dtype == torch.float32
    logits = half(tokens()[None])
    assert half.hidden(tokens()[None]).dtype == torch.bfloat16 and logits.dtype == torch.float32
    torch.testing.assert_close(logits, first(tokens()[None]), rtol=0, atol=0.02)


@pytest.mark.parametrize("record", RECORDS)
def test_activations_stay_bfloat16(record):
    """Float32 lambdas and scalars are 0-d, and do not widen the stream."""
    model = new(dtype="bfloat16", **RECORDS[record])
    assert model.hidden(tokens()[None], cu_seqlens=CU_SEQLENS).dtype == torch.bfloat16


def test_flops_of_record_68_by_hand():
    """Ten layers of projections, eleven of MLPs and the head are upstream's 228.3 million per token; and the scores:
    of ten layers two see 384 + 1 keys, four see 128 + 1, and four pairs of heads 128 + 1 at twice the positions."""
    config = SpeedrunConfig(50257)
    found = flops_breakdown(config)
    matrices = 2 * (10 * 4 * 768**2 + 11 * 2 * 768 * 3072 + 768 * 50304)
    scores = 4 * 768 * (2 * 385 + (4 + 4) * 129)
    assert matrices == 228_261_888 and found["forward"] == 2048 * (matrices + scores)
    assert found["flops_per_token"] == 3 * (matrices + scores)
    assert not found["per_layer"][6]["projections"] and not found["per_layer"][6]["scores"]
    assert [config.layer_window(i) for i in (0, 3, 10)] == [129, 385, 385]
    whole = flops_breakdown(SpeedrunConfig(50257, windows=False, yarn=False))["total"]["scores"]
    assert whole == 4 * 768 * 2048 * (6 * 2048 + 4 * 4096), "pairs see all of 2T positions"


@pytest.mark.parametrize("windows", [True, False])
def test_scores_that_a_causal_mask_leaves(windows):
    """Against a count of (query, key) pairs; a window of w keys is charged w²/2 less than all of them, as elsewhere."""
    config = new(context_length=24, windows=windows, yarn=windows, window_short=3, window_long=8).config
    palm, causal = (flops_breakdown(config, convention)["per_layer"] for convention in ("palm", "causal"))
    for layer, plan in enumerate(config.layers):
        if plan.attention is None:
            continue
        heads, positions = (2, 48) if plan.attention == "paired" else (4, 24)
        window = (9 if plan.long else 4) if windows else positions
        per_pair = 4 * heads * config.head_dim
        assert palm[layer]["scores"] == per_pair * positions * window
        assert causal[layer]["scores"] == per_pair * (positions * window - window**2 / 2)


def test_flops_follow_the_windows_of_the_stages():
    model = new()
    before = flops_breakdown(model.architecture)
    model.set_windows(7, 23, yarn=False)
    after = flops_breakdown(model.architecture)
    assert model.architecture is model.architecture and model.architecture.window_long == 23
    assert after["total"]["scores"] > before["total"]["scores"] and after["total"]["ffn"] == before["total"]["ffn"]


def test_parameters_without_a_switch_are_not_there():
    names = set(parameter_shapes(speedrun(100, n_layer=6, n_embd=48, n_head=4, **R81).config))
    assert not names & {"attn", "xsa_alphas"} and names >= {"qk", "vo", "mudd_w1", "skip_gate"}
    gated = set(parameter_shapes(new(**R85).config))
    assert not gated & {"attn_gate_bank", "skip_gate", "x0_lambdas", "bigram_lambdas", "xsa_alphas"}
