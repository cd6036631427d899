"""Peak arithmetic rates of GPUs: dense, per GPU, from the vendor's data sheets. Unknown hardware is unknown.

The figures most often quoted are for 2:4 sparse matrices, twice what a dense training step can reach; they are
given only for `sparse=True`.
"""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GPU:
    """Dense peaks in TFLOPS by compute precision (absent = the hardware has no such units)."""

    name: str
    words: frozenset[str]
    tflops: dict[str, float]


def _gpu(name: str, **tflops: float) -> GPU:
    return GPU(name, frozenset(name.upper().split()), tflops)


# Where data sheets of different dates disagree (fp32 of GB200, H100 NVL and B200) the lower figure stands. Those of
# workstation and GeForce cards are with float32 accumulation.
# A device name is split into words ("NVIDIA A100-SXM4-80GB" -> NVIDIA A100 SXM4 80GB); an entry matches when all
# its words are there, and the entry with the most words wins. Whole words keep A100 from A10 and L40S from L4.
GPUS: tuple[GPU, ...] = (
    _gpu("GB200", bf16=2500, fp16=2500, tf32=1250, fp32=80, fp8=5000),
    _gpu("B200", bf16=2250, fp16=2250, tf32=1125, fp32=75, fp8=4500),
    _gpu("GH200", bf16=989.5, fp16=989.5, tf32=494.7, fp32=67, fp8=1979),
    _gpu("H200", bf16=989.5, fp16=989.5, tf32=494.7, fp32=67, fp8=1979),
    _gpu("H200 NVL", bf16=835.5, fp16=835.5, tf32=417.5, fp32=60, fp8=1671),
    _gpu("H100", bf16=989.5, fp16=989.5, tf32=494.7, fp32=67, fp8=1979),
    _gpu("H100 PCIE", bf16=756, fp16=756, tf32=378, fp32=51, fp8=1513),
    _gpu("H100 NVL", bf16=835, fp16=835, tf32=417.5, fp32=60, fp8=1671),
    _gpu("A100", bf16=312, fp16=312, tf32=156, fp32=19.5),
    _gpu("V100", fp16=125, fp32=15.7),
    _gpu("V100 PCIE", fp16=112, fp32=14),
    _gpu("A10", bf16=125, fp16=125, tf32=62.5, fp32=31.2),
    _gpu("L4", bf16=121, fp16=121, tf32=60, fp32=30.3, fp8=242.5),
    _gpu("L40S", bf16=362, fp16=362, tf32=183, fp32=91.6, fp8=733),
    _gpu("A6000", bf16=154.8, fp16=154.8, tf32=77.4, fp32=38.7),
    _gpu("RTX 6000 ADA", bf16=364, fp16=364, tf32=182.1, fp32=91.1, fp8=728.5),
    _gpu("RTX 5090", bf16=209.5, fp16=209.5, tf32=104.8, fp32=104.8, fp8=419),
    _gpu("RTX 4090", bf16=165.2, fp16=165.2, tf32=82.6, fp32=82.6, fp8=330.3),
    _gpu("RTX 3090", bf16=71, fp16=71, tf32=35.6, fp32=35.6),
)

# Words that mark another product or a slice of one: a 4090 laptop part, a 3090 Ti, a MIG slice of an A100.
_OTHER_PRODUCT = frozenset({"LAPTOP", "MOBILE", "MAX", "D", "TI", "SUPER", "MIG"})
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
_HAS_SPARSITY = ("bf16", "fp16", "tf32", "fp8")


def find_gpu(device_name: str | None) -> GPU | None:
    """The table's entry for a name as `torch.cuda.get_device_name()` gives it, or None if there is none."""
    words = frozenset(re.split(r"[^A-Z0-9]+", (device_name or "").upper())) - {""}
    # SXM2 and the capacity say which variant it is, not which product.
    if words & _OTHER_PRODUCT:
        return None
    matches = [gpu for gpu in GPUS if gpu.words <= words]
    return max(matches, key=lambda gpu: len(gpu.words), default=None)


def peak_flops(device_name: str | None, precision: str, *, sparse: bool = False) -> float | None:
    """Peak FLOP/s of one device at a compute precision (bf16, fp16, tf32, fp32, fp8, or a torch dtype's name).

    None for the CPU, an unknown device, or a precision without hardware (bf16 on V100). `sparse` doubles the
    tensor-core figures where the hardware has 2:4 sparsity (Ampere and later).
    """
    gpu, column = find_gpu(device_name), precision_name(precision)
    if gpu is None or column not in gpu.tflops:
        return None
    has_sparsity = "tf32" in gpu.tflops and column in _HAS_SPARSITY
    return gpu.tflops[column] * 1e12 * (2 if sparse and has_sparsity else 1)


def precision_name(precision: Any) -> str:
    """`torch.bfloat16`, "bfloat16" or "bf16" -> "bf16"."""
    name = str(precision).removeprefix("torch.").lower()
    name = _PRECISIONS.get(name, name)
    return "fp8" if name.startswith("float8") else name


def compute_precision(dtype: Any, device_type: str = "cuda") -> str:
    """The precision that matrix multiplications run in: the autocast dtype, and tf32 where fp32 is allowed to be."""
    name = precision_name(dtype)
    if name != "fp32" or device_type != "cuda":
        return name
    import torch

    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "fp32"


@dataclass(frozen=True)
class HardwarePeak:
    """Peak FLOP/s of one device (None = unknown) and where the figure comes from, for people."""

    flops: float | None
    source: str

    def __str__(self) -> str:
        return f"n/a ({self.source})" if self.flops is None else f"{self.flops / 1e12:.1f} TFLOPS ({self.source})"


def hardware_peak(
    device_name: str | None,
    precision: str,
    *,
    override_tflops: float | None = None,
    sparse: bool = False,
) -> HardwarePeak:
    """The peak to measure a run against; `override_tflops` (configuration) beats the table."""
    column = precision_name(precision)
    if override_tflops is not None:
        if not override_tflops > 0:
            raise ValueError(f"peak_tflops: got {override_tflops}, expected a positive number of TFLOPS per device")
        return HardwarePeak(override_tflops * 1e12, "given in the configuration")
    flops, gpu = peak_flops(device_name, column, sparse=sparse), find_gpu(device_name)
    if gpu is None:
        return HardwarePeak(None, f"no peak is known for {device_name or 'this device'}; set peak_tflops to give one")
    if flops is None:
        return HardwarePeak(None, f"{gpu.name} has no {column} units")
    kind = "dense" if flops == gpu.tflops[column] * 1e12 else "2:4 sparse, not reachable by dense work"
    return HardwarePeak(flops, f"{gpu.name} {column} {kind}")
