"""FLOPs, peaks and MFU: the exact figures that papers and other trainers print for these models."""

import dataclasses

import pytest

from gpt_core.models import GPTConfig
from gpt_core.monitor import MFUMeter, flops_breakdown, flops_per_token, hardware_peak, peak_flops
from gpt_core.monitor.flops import matmul_parameters

GPT2 = GPTConfig(vocab_size=50304, context_length=1024)
LLAMA = GPTConfig(
    vocab_size=50304,
    context_length=1024,
    ffn_type="swiglu",
    normalization="rmsnorm",
    position_encoding="rope",
    weight_tying=False,
)
GPT2_1B = GPTConfig(vocab_size=50304, context_length=2048, n_layer=18, n_head=18, n_embd=2304)
LLAMA_1B = GPTConfig(
    vocab_size=32000, context_length=2048, n_layer=18, n_head=18, n_embd=2304, ffn_type="swiglu", weight_tying=False
)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(GPT2, 854_654_976), (LLAMA, 854_654_976), (GPT2_1B, 8_594_325_504), (LLAMA_1B, 8_341_291_008)],
)
def test_palm_flops_per_token(config, expected):
    assert flops_per_token(config) == expected
    assert isinstance(flops_per_token(config), int)


@pytest.mark.parametrize("config", [GPT2, LLAMA, LLAMA_1B, GPTConfig(vocab_size=96, context_length=32, n_kv_head=4)])
def test_identity_of_palm(config):
    """6 FLOPs per matrix parameter and token, and 12LHS for attention: the formula everyone quotes."""
    attention = 12 * config.n_layer * config.n_embd * config.context_length
    assert flops_per_token(config) == 6 * matmul_parameters(config) + attention


def test_causal_counts_half_the_square():
    assert flops_per_token(GPT2, "causal") == 798_031_872
    assert flops_breakdown(GPT2)["attention_to_ffn_ratio"] == pytest.approx(0.8333, abs=1e-4)
    assert flops_breakdown(GPT2, "causal")["attention_to_ffn_ratio"] == pytest.approx(0.6667, abs=1e-3)


def test_rows_of_one_layer():
    S, H, V = 1024, 768, 50304
    breakdown = flops_breakdown(LLAMA)
    assert (
        breakdown["per_layer"]
        == [
            {
                "projections": 8 * S * H * H,
                "scores": 4 * S * S * H,
                "ffn": 6 * S * H * 2048,
                "rope": 6 * S * H,
                "norm": 8 * S * H,
            }
        ]
        * 12
    )
    assert breakdown["total"]["head"] == breakdown["logit_flops"] == 2 * S * H * V
    assert breakdown["total"]["norm"] == (2 * 12 + 1) * 4 * S * H
    rows = breakdown["total"]
    assert breakdown["forward"] == rows["projections"] + rows["scores"] + rows["ffn"] + rows["head"]
    assert breakdown["train"] == 3 * breakdown["forward"] == breakdown["flops_per_token"] * S


def test_grouped_queries_make_only_the_projections_cheaper():
    grouped = GPTConfig(vocab_size=50304, context_length=1024, n_kv_head=3)
    full, few = flops_breakdown(GPT2)["per_layer"][0], flops_breakdown(grouped)["per_layer"][0]
    assert full["projections"] - few["projections"] == 4 * 1024 * 768 * (768 - 192)
    assert {k: v for k, v in full.items() if k != "projections"} == {k: v for k, v in few.items() if k != "projections"}


def test_windows_count_the_keys_that_are_seen():
    config = GPTConfig(
        vocab_size=64, context_length=32, n_layer=4, n_head=2, n_embd=16, window=8, window_pattern="SSSL"
    )
    palm = [layer["scores"] for layer in flops_breakdown(config)["per_layer"]]
    assert palm == [4 * 32 * 8 * 16] * 3 + [4 * 32 * 32 * 16]
    causal = [layer["scores"] for layer in flops_breakdown(config, "causal")["per_layer"]]
    # Against a count of the pairs that a mask really leaves, up to the half diagonal that the convention drops.
    pairs = sum(min(query + 1, 8) for query in range(32))
    assert causal[0] == 4 * 16 * (pairs - 8 // 2)
    assert causal[3] == palm[3] // 2


def test_window_as_long_as_the_context_is_full_attention():
    def scores(**kwargs):
        config = GPTConfig(vocab_size=64, context_length=32, n_layer=2, n_head=2, n_embd=16, **kwargs)
        return [flops_breakdown(config, convention)["total"]["scores"] for convention in ("palm", "causal")]

    assert scores(window=100, window_pattern="S") == scores()


def test_unknown_convention():
    with pytest.raises(ValueError, match=r"'exact'.*palm"):
        flops_per_token(GPT2, "exact")  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bfloat16", 835),
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA H200", "fp8", 1979),
        ("NVIDIA GH200 480GB", "fp16", 989.5),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA GB200", "bf16", 2500),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-PCIE-32GB", "torch.float16", 112),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", "bf16", 364),
        ("NVIDIA RTX A6000", "bf16", 154.8),
    ],
)
def test_peaks(name, precision, tflops):
    assert peak_flops(name, precision) == tflops * 1e12


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Tesla V100-SXM2-16GB", "bf16"),  # no such units
        ("NVIDIA A100-SXM4-80GB", "fp8"),
        ("Tesla V100-SXM2-16GB", "tf32"),
        ("AMD EPYC 7B13", "fp32"),
        ("cpu", "fp32"),
        (None, "fp32"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),  # another chip under the same number
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),  # a seventh of one
        ("NVIDIA L40", "bf16"),
        ("Quadro RTX 6000", "fp16"),
        ("NVIDIA H1000", "bf16"),
    ],
)
def test_unknown_hardware_has_no_peak(name, precision):
    assert peak_flops(name, precision) is None
    assert hardware_peak(name, precision).flops is None


def test_peak_says_where_it_comes_from():
    assert str(hardware_peak("NVIDIA H200", "bf16")) == "989.5 TFLOPS (H200 bf16 dense)"
    assert "V100 has no bf16 units" in str(hardware_peak("Tesla V100-SXM2-16GB", "bf16"))
    assert hardware_peak("NVIDIA H200", "bf16", override_tflops=100).flops == 100e12
    with pytest.raises(ValueError, match="peak_tflops: got -1"):
        hardware_peak(None, "fp32", override_tflops=-1)


def test_sparse_peaks_are_labelled_and_only_where_the_hardware_has_sparsity():
    assert peak_flops("NVIDIA H200", "bf16", sparse=True) == 1979e12
    assert "sparse" in str(hardware_peak("NVIDIA H200", "bf16", sparse=True))
    assert peak_flops("NVIDIA H200", "fp32", sparse=True) == 67e12
    assert peak_flops("Tesla V100-SXM2-16GB", "fp16", sparse=True) == 125e12
    assert "dense" in str(hardware_peak("Tesla V100-SXM2-16GB", "fp16", sparse=True))


def meter(device="NVIDIA A100-SXM4-80GB", **kwargs):
    settings = {"tokens_per_step": 491_520, "device_name": device, "precision": "bf16", **kwargs}
    return MFUMeter(GPT2, **settings)


@pytest.mark.parametrize(
    ("device", "rate"), [("A100", 182_530), ("H100", 578_889), ("H200", 578_889), ("B200", 1_316_321)]
)
def test_tokens_per_second_at_half_mfu(device, rate):
    assert meter(device).expected_tokens_per_sec(0.5) == pytest.approx(rate, abs=1)
    seconds = 491_520 / rate
    running = meter(device, skip=0)
    assert running.update(seconds)["mfu"] == pytest.approx(0.5, rel=1e-5)


def test_mfu_skips_warm_up_then_averages():
    running = meter(device="A100", world_size=2, skip=5)
    peak, flops = 312e12 * 2, 854_654_976
    for _ in range(5):
        assert running.update(1.0)["mfu"] is None
    first = running.update(2.0)["mfu"]
    assert first == pytest.approx(flops * 491_520 / 2.0 / peak)
    second = running.update(1.0)["mfu"]
    assert second == pytest.approx(0.9 * first + 0.1 * flops * 491_520 / peak)


def test_several_steps_in_one_update_weigh_as_many():
    one, many = meter("A100", skip=0), meter("A100", skip=0)
    one.update(1.0)
    many.update(1.0)
    for _ in range(10):
        one.update(3.0)
    assert many.update(30.0, steps=10)["mfu"] == pytest.approx(one.mfu)


def test_an_architecture_that_changes_counts_step_by_step():
    """Half of the interval at each context: the mean of both, not the latter's."""
    meter = MFUMeter(GPT2, tokens_per_step=10, device_name="cpu", precision="fp32", peak_tflops=1, skip=0)
    long = dataclasses.replace(GPT2, context_length=2048)
    flops = 10 * meter.flops_per_token
    meter.follow(long)
    flops += 10 * meter.flops_per_token
    assert meter.flops_per_token == flops_per_token(long) > flops_per_token(GPT2)
    found = meter.update(2.0, steps=2, flops=flops)
    assert found["flops_achieved"] == 5 * (flops_per_token(GPT2) + flops_per_token(long))
    assert found["mfu"] == pytest.approx(found["flops_achieved"] / 1e12)


def test_mfu_record_has_every_key_and_is_null_on_unknown_hardware():
    running = meter(device=None, skip=0)
    record = running.update(0.5)
    assert record["mfu"] is record["mfu_percent"] is record["hardware_peak_flops"] is None
    assert record["tokens_per_sec"] == 983_040
    assert record["achieved_tflops"] == pytest.approx(983_040 * 854_654_976 / 1e12)
    assert set(record) >= set(
        [
            "mfu",
            "mfu_percent",
            "flops_achieved",
            "flops_achieved_per_gpu",
            "achieved_tflops",
            "flops_per_token",
            "tokens_per_sec",
            "tokens_per_sec_per_gpu",
            "tokens_per_iter",
            "hardware_peak_flops",
            "hardware_peak_tflops",
            "gpu_name",
            "precision",
            "num_gpus",
            "attention_flops_per_layer",
            "ffn_flops_per_layer",
            "logit_flops",
            "attention_to_ffn_ratio",
            "architecture",
            "calculation_method",
        ]
    )
    assert running.expected_tokens_per_sec() is None


def test_peak_override_gives_a_cpu_an_mfu():
    running = meter(device=None, peak_tflops=2.0, skip=0)
    assert running.update(1.0)["mfu"] == pytest.approx(491_520 * 854_654_976 / 2e12)


def test_mfu_refuses_impossible_times():
    with pytest.raises(ValueError, match="step time of 0"):
        meter().update(0.0)
