"""One knob for the size: every figure against nanochat's formulas, counted on real models on the meta device."""

import math
from functools import cache

import pytest
import torch

from gpt_core.models import gpt
from gpt_core.models.nanochat import nanochat
from gpt_core.monitor.flops import flops_per_token, matmul_parameters
from gpt_core.scaling import (
    Factors,
    align,
    automatic_batch,
    counts_of,
    device_batch,
    factors_of,
    on_meta,
    sizes_of,
    steps_of_flops,
    steps_of_ratio,
    windows_of,
)

GPT2_TOKENS, REFERENCE = 50257, 123_568_128

# depth: width, heads, wte (and head), blocks, untied, tied, FLOPs per token; of 1e18 FLOPs: steps, tokens per N
PLAIN = {
    6: (384, 3, 19_316_736, 10_616_832, 49_250_304, 29_933_568, 207_912_960, 9174, 160.7),
    8: (512, 4, 25_755_648, 25_165_824, 76_677_120, 50_921_472, 355_860_480, 5360, 55.2),
    10: (640, 5, 32_194_560, 49_152_000, 113_541_120, 81_346_560, 566_722_560, 3366, 21.7),
    12: (768, 6, 38_633_472, 84_934_656, 162_201_600, 123_568_128, 854_654_976, 2232, 9.47),
    14: (896, 7, 45_072_384, 134_873_088, 225_017_856, 179_945_472, 1_233_813_504, 1546, 4.50),
    20: (1280, 10, 64_389_120, 393_216_000, 521_994_240, 457_605_120, 3_060_203_520, 623, 0.71),
    26: (1664, 13, 83_705_856, 863_895_552, 1_031_307_264, 947_601_408, 6_217_236_480, 307, 0.17),
}

# depth: wte, value embeddings, head, blocks, scalars, total, N, FLOPs per token at 2048 tokens with SSSL
NANOCHAT = {
    6: (12_582_912, 37_748_736, 12_582_912, 10_616_940, 38, 73_531_538, 23_199_852, 167_510_808),
    8: (16_777_216, 67_108_864, 16_777_216, 25_166_016, 42, 125_829_354, 41_943_232, 295_699_728),
    10: (20_971_520, 104_857_600, 20_971_520, 49_152_300, 46, 195_952_986, 70_123_820, 495_454_104),
    12: (25_165_824, 150_994_944, 25_165_824, 84_935_088, 50, 286_261_730, 110_100_912, 759_696_048),
    14: (29_360_128, 205_520_896, 29_360_128, 134_873_676, 54, 399_114_882, 164_233_804, 1_128_533_592),
    20: (41_943_040, 419_430_400, 41_943_040, 393_217_200, 66, 896_533_746, 435_160_240, 2_886_212_784),
    26: (54_525_952, 708_837_376, 54_525_952, 863_897_580, 78, 1_681_786_938, 918_423_532, 5_991_051_288),
}

# depth: rate and decay of legacy; batch, rate and decay of auto
RULES = {
    6: (1.4142, 4.000, 262_144, 0.7071, 2.919),
    8: (1.2247, 2.250, 524_288, 1, 2.427),
    10: (1.0954, 1.440, 524_288, 1, 1.519),
    12: (1, 1, 524_288, 1, 1),
    14: (0.9258, 0.7347, 524_288, 1, 0.6867),
    20: (0.7746, 0.3600, 1_048_576, 1.4142, 0.3819),
    26: (0.6794, 0.2130, 1_048_576, 1.4142, 0.1844),
}


def fields(depth):
    sizes = sizes_of(depth)
    return {"n_layer": sizes.n_layer, "n_embd": sizes.n_embd, "n_head": sizes.n_head}


@cache
def plain(depth, **other):
    with on_meta():
        return gpt(GPT2_TOKENS, 1024, preset="depth", **fields(depth), **other)


@cache
def extras(depth, vocab_size=32_768):
    pattern, window = windows_of("SSSL", depth, 2048)
    with on_meta():
        return nanochat(vocab_size, 2048, window_pattern=pattern, window=window, **fields(depth))


@pytest.mark.parametrize("depth", PLAIN)
def test_the_plain_model(depth):
    width, heads, vocabulary, blocks, untied, tied, flops, steps, ratio = PLAIN[depth]
    model = plain(depth)
    counts = counts_of(model)
    assert (model.config.n_layer, model.config.n_embd, model.config.n_head) == (depth, width, heads)
    assert (counts.wte, counts.lm_head, counts.transformer_matrices) == (vocabulary, vocabulary, blocks)
    assert (counts.total, counts.total_tied, counts.scaling) == (untied, tied, tied)
    assert counts.scalars == counts.value_embeds == counts.position == 0
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert flops_per_token(model.config) == flops
    assert steps_of_flops(1e18, flops, 2**19) == steps
    assert steps * 2**19 / counts.scaling == pytest.approx(ratio, rel=5e-3 if ratio > 1 else 0.02)


@pytest.mark.parametrize("depth", NANOCHAT)
def test_the_model_with_extras(depth):
    *groups, total, scaling, flops = NANOCHAT[depth]
    model = extras(depth)
    counts = counts_of(model)
    assert [counts.wte, counts.value_embeds, counts.lm_head, counts.transformer_matrices, counts.scalars] == groups
    assert (counts.total, counts.scaling) == (total, scaling)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert flops_per_token(model.config) == flops
    windows = sum(min(2048, model.config.layer_window(layer) or 2048) for layer in range(depth))
    assert 6 * matmul_parameters(model.config) + 12 * model.config.n_embd * windows == flops


@pytest.mark.parametrize("depth", RULES)
def test_both_sets_of_rules(depth):
    rate, decay, batch, auto_rate, auto_decay = RULES[depth]
    width, parameters = sizes_of(depth).n_embd, counts_of(plain(depth)).scaling
    legacy = factors_of("legacy", depth, width, parameters, REFERENCE, 2**19, True)
    assert legacy == Factors(pytest.approx(rate, abs=5e-5), 1.0, pytest.approx(decay, abs=5e-5))
    assert automatic_batch("legacy", parameters, REFERENCE) == 2**19
    assert automatic_batch("auto", parameters, REFERENCE) == batch
    auto = factors_of("auto", depth, width, parameters, REFERENCE, batch, True)
    by_width = (width / 768) ** -0.5
    assert auto == Factors(
        pytest.approx(auto_rate, abs=5e-5), pytest.approx(by_width), pytest.approx(auto_decay, abs=5e-4)
    )
    fixed = factors_of("auto", depth, width, parameters, REFERENCE, 2**16, False)
    assert fixed.rate == 1 and fixed.decay == pytest.approx(REFERENCE / parameters / 8)
    chosen = auto.decay * auto.rate / batch  # decay · rate · N / B is the same for all
    assert chosen == pytest.approx(fixed.decay / 2**16) == pytest.approx(REFERENCE / parameters / 2**19)


def test_figures_that_no_table_has():
    assert steps_of_flops(6e18, 854_654_976, 2**19) == 13_390
    assert steps_of_flops(1.0, 854_654_976, 2**19) == steps_of_ratio(0.001, REFERENCE, 2**19) == 1
    assert steps_of_ratio(12, REFERENCE, 2**19) == int(12 * REFERENCE) // 2**19 == 2828
    for tokens in (GPT2_TOKENS, 50266):
        with on_meta():
            assert gpt(tokens, 8, preset="depth", n_layer=1).embed.num_embeddings == 50304
    odd = sizes_of(7)
    assert (odd.n_embd, odd.n_head, odd.nudge) == (512, 4, 64)
    assert sizes_of(11).n_embd == sizes_of(12).n_embd == 768
    assert automatic_batch("auto", counts_of(extras(8)).scaling, counts_of(extras(12)).scaling) == 2**18
    counts = counts_of(extras(12, 50304))
    assert (counts.value_embeds, counts.total) == (231_800_832, 394_002_914)
    tied = counts_of(plain(12, weight_tying=True))
    assert (tied.total, tied.total_tied, tied.scaling, tied.lm_head) == (REFERENCE, REFERENCE, REFERENCE, 0)
    assert [device_batch(depth, 1024) for depth in (8, 9, 12, 18, 20, 23)] == [64, 32, 16, 8, 4, 2]
    assert device_batch(12, 2048) == 8 and device_batch(26, 8192) == 1


def test_windows_cover_a_quarter_in_tiles_and_the_last_layer_everything():
    assert windows_of("SSSL", 6, 2048) == ("SSSLSL", 512)
    assert windows_of("SSSL", 7, 1000) == ("SSSLSSL", 256)
    assert windows_of("S", 2, 4096) == ("SL", 1024)
    assert windows_of("L", 3, 2048) == windows_of("S", 3, 128) == ("L", None)
    for pattern in ("", "SXL"):
        with pytest.raises(ValueError, match="pattern of S"):
            windows_of(pattern, 4, 2048)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_step_is_the_same_on_any_number_of_processes(world_size):
    step = align(2**19, 64, 1024, world_size)
    assert (step.device_batch_size, step.micro_steps, step.tokens) == (64, 8 // world_size, 2**19)
    assert step.note is None and not step.realigned


@pytest.mark.parametrize("world_size", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("device_batch_size", [1, 24, 64, 600])
@pytest.mark.parametrize("tokens", [2**19, 4096, 1])
def test_every_step_is_whole_and_says_what_it_changed(tokens, device_batch_size, world_size):
    step = align(tokens, device_batch_size, 1024, world_size)
    assert step.tokens == step.device_batch_size * step.micro_steps * world_size * 1024
    assert 1 <= step.device_batch_size <= device_batch_size and step.micro_steps >= 1
    assert step.realigned == (step.tokens != tokens)
    assert (step.note is None) == ((step.tokens, step.device_batch_size) == (tokens, device_batch_size))
    if step.realigned:
        assert f"{tokens:,} -> {step.tokens:,} tokens" in step.note
        assert abs(step.tokens - tokens) <= max(step.device_batch_size, 1) * world_size * 1024
    elif step.note:
        larger = range(step.device_batch_size + 1, device_batch_size + 1)
        assert not [size for size in larger if tokens % (size * 1024 * world_size) == 0]


def test_a_strict_step_lists_what_would_fit():
    assert align(2**19, 64, 1024, 8, strict=True).micro_steps == 1
    with pytest.raises(ValueError, match=r"no device batch does; total batches.*: 393,216 or 589,824"):
        align(2**19, 64, 1024, 3, strict=True)
    with pytest.raises(ValueError, match=r"make 524,288: 1, 2, 4, 8, 16; total batches"):
        align(2**19, 24, 1024, 4, strict=True)
    assert align(2**19, 64, 1024, 3).tokens == 589_824


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: steps_of_flops(-1, 1, 1), "budget of -1"),
        (lambda: steps_of_ratio(-1, 100, 10), "ratio of -1"),
        (lambda: automatic_batch("auto", 0, 10), "got 0 and 10"),
        (lambda: factors_of("auto", 6, 384, 5, -5, 10, True), "got 5 and -5"),
        (lambda: automatic_batch("off", 1, 1), "must be auto or legacy, got 'off'"),
        (lambda: sizes_of(0), "depth must be at least 1, got 0"),
        (lambda: align(0, 1, 1, 1), "total_batch_size must be at least 1, got 0"),
        (lambda: counts_of(torch.nn.Linear(1, 1)), "for a GPT .* got a Linear"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_is_scaled_with_the_rules_off():
    assert factors_of("off", 6, 384, 1, 2, 3, True) == Factors()
    assert math.isclose(Factors().rate, 1)
