"""The startup report: what is about to be trained, on what, and how fast it could be. Real numbers only."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from .mfu import MFUMeter, describe_architecture
from .redact import redact
from .text import count, printable

_WIDTH = 80


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model. `non_embedding` leaves out learned positions only, as nanoGPT counts."""

    total: int
    trainable: int
    non_embedding: int


@dataclass(frozen=True)
class StartupInfo:
    """Everything known when training starts: the source of the report and of the `start` event."""

    run_name: str
    model_config: Any
    """The model's `.config` (a GPTConfig)."""
    parameters: ParameterCounts
    mfu: MFUMeter
    hardware: Mapping[str, Any]
    """As `hardware_record(device)` returns it."""
    device_batch_size: int
    accumulation_steps: int
    max_steps: int
    world_size: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    strategy: str = "single"
    """single | ddp | zero1 | zero2 | fsdp"""
    state_bytes: Mapping[str, Any] = field(default_factory=dict)
    """Bytes of weights, gradients and optimizer that a rank holds; recorded."""
    state_sentence: str | None = None
    """The same in words; shown."""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """As `optimizer_record(optimizer)` returns it."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further settings to show: learning_rate, weight_decay, grad_clip, warmup, decay."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration tree; recorded, not shown."""
    start_step: int = 0

    @property
    def effective_batch_size(self) -> int:
        return self.device_batch_size * self.accumulation_steps * self.world_size

    def record(self) -> dict[str, Any]:
        """The data of the `start` event, in the groups of `run.json`, without secrets."""
        return {
            "run_name": self.run_name,
            "start_time": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "start_step": self.start_step,
            "max_steps": self.max_steps,
            "config": redact(self.config),
            "model": {
                "total_params": self.parameters.total,
                "trainable_params": self.parameters.trainable,
                "non_embedding_params": self.parameters.non_embedding,
                "architecture": describe_architecture(self.model_config),
                "vocab_size": self.model_config.vocab_size,
            },
            "optimizer": dict(self.optimizer),
            "hardware": {
                "gpu_name": self.hardware.get("gpu_name"),
                "num_gpus": self.world_size if self.device.startswith("cuda") else 0,
                "gpu_memory_gb": self.hardware.get("gpu_memory_gb"),
                "precision": self.mfu.constants()["precision"],
                "parallelism": self.strategy,
                "cpu_name": self.hardware.get("cpu_name"),
            },
            "metadata": {
                "world_size": self.world_size,
                "device": self.device,
                "dtype": self.dtype,
                "compile": self.compile,
                "use_zero1": self.strategy == "zero1",
                "use_fsdp": self.strategy == "fsdp",
            },
            "state_bytes": dict(self.state_bytes),
            "mfu": self.mfu.constants(),
        }


def parameter_counts(model: Any) -> ParameterCounts:
    """Count each parameter once, however often it is used (tied embeddings)."""
    parameters = dict(model.named_parameters())  # named_parameters() already skips repeats
    positions = sum(p.numel() for name, p in parameters.items() if _is_position_table(name))
    total = sum(p.numel() for p in parameters.values())
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    return ParameterCounts(total, trainable, total - positions)


def _is_position_table(name: str) -> bool:
    return any(part in ("wpe", "position", "positions", "position_embedding") for part in name.split("."))


def optimizer_record(optimizer: Any) -> dict[str, Any]:
    """Type and parameter groups of an optimizer, numbers only."""
    groups = [_group_record(group) for group in optimizer.param_groups]
    return {"type": type(optimizer).__name__, "param_groups": groups}


def _group_record(group: Mapping[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in group.items() if k != "params" and isinstance(v, int | float | str | bool | tuple)}
    parameters = list(group["params"])
    return {"tensors": len(parameters), "params": sum(p.numel() for p in parameters), **settings}


def startup_report(info: StartupInfo, stream: TextIO | None = None) -> str:
    """The report as text, in ASCII if `stream` cannot print UTF-8."""
    sections = [
        ("MODEL ARCHITECTURE", _model_rows(info)),
        ("TRAINING CONFIGURATION", _training_rows(info)),
        ("HARDWARE", _hardware_rows(info)),
        ("THEORETICAL PERFORMANCE", _performance_rows(info)),
    ]
    lines = [_banner(f"TRAINING INITIALIZATION: {info.run_name}")]
    for title, rows in sections:
        lines.append(f"\n{title}\n{'─' * _WIDTH}")
        lines += [f"  {name + ':':<26}{value}" for name, value in rows]
    verb = "RESUMING TRAINING" if info.start_step else "STARTING TRAINING"
    lines.append("\n" + _banner(f"{verb} at step {info.start_step}" if info.start_step else verb))
    text = "\n".join(lines)
    return text if stream is None else printable(text, stream)


def _banner(title: str) -> str:
    rule = "=" * _WIDTH
    return f"{rule}\n{title}\n{rule}"


Rows = Iterable[tuple[str, str]]


def _model_rows(info: StartupInfo) -> Rows:
    config, parameters = info.model_config, info.parameters
    yield "Architecture", describe_architecture(config)
    yield "Total parameters", _both(parameters.total)
    yield "Trainable parameters", _both(parameters.trainable)
    yield "Without positions", _both(parameters.non_embedding)
    yield "Layers", str(config.n_layer)
    yield "Hidden size", f"{config.n_embd:,}"
    kv_heads = getattr(config, "n_kv_head", None)
    yield "Attention heads", str(config.n_head) + (f" (key/value: {kv_heads})" if kv_heads else "")
    yield "Sequence length", f"{config.context_length:,}"
    yield "Vocabulary size", f"{config.vocab_size:,}"
    for name in (
        *("normalization", "norm_position", "position_encoding", "ffn_type", "activation", "attention_backend"),
        *("bias", "weight_tying", "qk_norm", "logit_softcap", "window", "dropout"),
    ):
        value = getattr(config, name, None)
        # Options that are off say nothing about this model, except the two that people look for.
        if value not in (None, False, 0, 0.0) or name in ("bias", "weight_tying"):
            yield _label(name), str(value)


def _training_rows(info: StartupInfo) -> Rows:
    yield "Micro batch size", f"{info.device_batch_size} sequences"
    yield "Gradient accumulation", f"{info.accumulation_steps} steps"
    ranks = f" x {info.world_size} ranks" if info.world_size > 1 else ""
    product = f"{info.device_batch_size} x {info.accumulation_steps}{ranks}"
    yield "Effective batch size", f"{info.effective_batch_size} sequences ({product})"
    yield "Tokens per iteration", f"{info.mfu.tokens_per_step:,}"
    yield "Max iterations", f"{info.max_steps:,}"
    yield "Total tokens", count(float(info.mfu.tokens_per_step * info.max_steps))
    if info.optimizer:
        yield "Optimizer", str(info.optimizer.get("type", "?"))
        for group in info.optimizer.get("param_groups", []):
            kind = f", {group['kind']}" if "kind" in group else ""
            rates = f"rate {group.get('lr', 0):g}, decay {group.get('weight_decay', 0)}"
            yield "  group", f"{_both(group['params'])} in {group['tensors']} tensors{kind}, {rates}"
    for name, value in info.training.items():
        if value is not None:
            yield _label(name), f"{value:g}" if isinstance(value, float) else str(value)


def _hardware_rows(info: StartupInfo) -> Rows:
    if info.device.startswith("cuda"):
        yield "Device", f"{info.hardware.get('gpu_name')} ({info.device})"
        yield "GPUs", str(info.world_size)
        memory = info.hardware.get("gpu_memory_gb")
        yield "GPU memory", "n/a" if memory is None else f"{memory:.1f} GB each"
    else:
        yield "Device", f"{info.hardware.get('cpu_name')} ({info.device})"
        yield "Threads", f"{info.hardware.get('torch_threads')} of {info.hardware.get('cpu_count')} processors"
        memory = info.hardware.get("memory_gb")
        yield "Memory", "n/a" if memory is None else f"{memory:.1f} GB"
    precision = info.mfu.constants()["precision"]
    yield "Precision", f"{info.dtype} (compute {precision})"
    if info.device.startswith("cuda"):
        yield "TF32", "on" if precision == "tf32" else "off"
    yield "torch.compile", "on" if info.compile else "off"
    names = {"single": "single process", "ddp": "DDP", "zero1": "DDP + ZeRO-1", "zero2": "ZeRO-2", "fsdp": "FSDP"}
    yield "Parallelism", names.get(info.strategy, info.strategy)
    if info.state_sentence:
        yield "State per rank", info.state_sentence


def _performance_rows(info: StartupInfo) -> Rows:
    constants = info.mfu.constants()
    yield "Hardware peak", str(info.mfu.peak) + (f" x {info.world_size}" if info.world_size > 1 else "")
    method = constants["calculation_method"].partition(":")[0]
    yield "FLOPs per token", f"{constants['flops_per_token'] / 1e9:.4g} GFLOP ({method})"
    yield "FLOPs per iteration", f"{constants['flops_per_token'] * info.mfu.tokens_per_step / 1e12:.4g} TFLOP"
    yield "Attention/FFN ratio", f"{constants['attention_to_ffn_ratio']:.3f}"
    expected = info.mfu.expected_tokens_per_sec(0.5)
    yield "Tokens/s at 50 % MFU", "n/a" if expected is None else f"{expected:,.0f}"


def _both(number: int) -> str:
    return f"{number:,} ({count(float(number))})"


def _label(name: str) -> str:
    """`ffn_type` -> `FFN type`."""
    words = name.split("_")
    first = words[0].upper() if words[0] in ("ffn", "qk", "lr") else words[0].capitalize()
    return " ".join([first, *words[1:]])
