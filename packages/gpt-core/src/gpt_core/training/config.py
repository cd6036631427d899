"""The sections of a configuration that are not components."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpt_core.generate.sampling import Sampling


def _at_least(section: str, config: object, **lowest: float) -> None:
    """ValueError for a field below its lowest value; null is no value."""
    for name, least in lowest.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{section}.{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class GeneralConfig:
    """Where and on what a run happens."""

    project_name: str = "gpt"
    """What a series of runs has in common."""
    run_name: str | None = None
    """Folder of the run; null: <project_name>-<time> for a new run, the project's newest run for a resumed one."""
    run_description: str = ""
    out_dir: str = "out"
    seed: int = 1337
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """auto (float32 on a CPU), fastest, float32, bfloat16 or float16."""
    compile: Literal["off", "block", "model"] = "off"
    """torch.compile nothing, each block (quick to compile), or model and loss as a whole."""
    threads: int | None = None
    """CPU threads of each process; null: torch's choice."""
    init_from: str = "scratch"
    """scratch; resume, latest or best of the run; gpt2, gpt2-medium, ...; or a run, checkpoint or ckpt.pt."""
    warm_start_optimizer: Literal["none", "momenta"] = "none"
    """Of a new run that starts from a checkpoint: momenta takes over its optimizer's state, rates are as configured."""
    phase: Literal["pretraining", "mid-training"] = "pretraining"
    """Recorded in every checkpoint."""

    def __post_init__(self) -> None:
        _at_least("general", self, threads=1)


@dataclass(frozen=True)
class ParallelConfig:
    """How several processes share the work."""

    strategy: Literal["auto", "single", "ddp", "zero1", "zero2", "fsdp"] = "auto"
    """auto: single in one process, `several` in several. zero1, zero2: optimizer state sharded; fsdp: everything."""
    several: Literal["ddp", "zero1", "zero2", "fsdp"] = "ddp"
    """What auto means in several processes."""
    backend: str = "auto"
    """auto (nccl on GPUs, gloo on CPUs), nccl or gloo."""
    timeout_minutes: float = 30.0


@dataclass(frozen=True)
class TrainingConfig:
    """The optimization itself."""

    context_length: int = 256
    """Tokens per sequence."""
    device_batch_size: int = 16
    """Sequences per micro-step and process."""
    global_batch_size: int | None = None
    """Sequences per optimizer step over all processes; null: one micro-step per process."""
    gradient_accumulation_steps: int | None = None
    """Micro-steps per optimizer step over all processes together (nanoGPT's meaning); instead of global_batch_size."""
    halve_batch: bool | Literal["auto"] = "auto"
    """Try one micro-step before the first step; where it does not fit in memory, take half the sequences at a time and
    more micro-steps; auto: on GPUs."""
    max_steps: int = 1000
    epochs: float | Literal["auto"] | None = None
    """Passes over the training split; count where max_steps is 0, or where the command line has them and no max_steps.
    auto: one, and over little data as many as make 250 steps, at most 20, each of a tenth of the data at most."""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0: no clipping."""
    activation_checkpointing: bool = False
    """Recompute each block's activations in the backward pass: less memory, about a third more time."""
    fused_loss: bool | Literal["auto"] = "auto"
    """Head and loss in one, some rows at a time, so that all logits are never held; auto: where it is no slower."""
    fp8: bool = False
    """Multiply in float8 in the blocks' linear maps, on GPUs that can; elsewhere products stay what they are."""
    max_nonfinite_steps: int | None = None
    """A step whose gradient is not finite is skipped; this many in a row end the run. null: 3, in float16 20."""

    def __post_init__(self) -> None:
        sizes = dict.fromkeys(
            ("context_length", "device_batch_size", "global_batch_size", "gradient_accumulation_steps"), 1
        )
        if isinstance(self.epochs, int | float) and not 0 < self.epochs < math.inf:
            raise ValueError(f"training.epochs must be positive, got {self.epochs}")
        _at_least("training", self, **sizes, max_steps=0, grad_clip=0, max_nonfinite_steps=1)


@dataclass(frozen=True)
class EvalConfig:
    """Loss on held-out data, always the same data, and benchmarks where the app brings them."""

    validate: bool = True
    """False: no evaluation on held-out data, so no best checkpoint either."""
    eval_every: int = 250
    """Steps between evaluations; 0: only at the end; -1 (auto): a tenth of the run, 100 to 500."""
    eval_iters: int | None = 20
    """Micro-batches per evaluation, over all processes; null: once through the validation split."""
    eval_tokens: int | None = None
    """Tokens per evaluation instead, so that runs with other batches are judged on the same ones; of a smaller split
    all."""
    at_start: bool = True
    eval_only: bool = False
    """Evaluate once, before the first step, and end."""
    test_at_end: bool = True
    """Also evaluate the test split, where there is one, at the end."""
    core_every: int = 0
    """Steps between evaluations on CORE's benchmarks, and at the end; 0: never; -1 (auto): a quarter of the run, 250 or
    more, but half of it at most."""
    chatcore_every: int = 0
    """Steps between evaluations on ChatCORE's benchmarks, and at the end; 0: never; -1 (auto): an epoch where
    training.epochs is set (with more than four, a quarter of the run), else as for CORE."""
    bundle: str | None = None
    """Folder with the benchmarks' data (docs/evaluation.md)."""
    limit: int | None = 500
    """Items of each benchmark; null: all. A score of fewer than all is called partial."""
    allow_code_execution: bool = False
    """Let benchmarks run programs that the model writes (HumanEval in ChatCORE), in a sandbox."""

    def __post_init__(self) -> None:
        _at_least("eval", self, eval_every=-1, eval_iters=1, eval_tokens=1, core_every=-1, chatcore_every=-1, limit=1)
        if (self.core_every or self.chatcore_every) and self.bundle is None:
            raise ValueError("eval.core_every and eval.chatcore_every need eval.bundle, the folder with the benchmarks")


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save. The final state is always saved."""

    save_every: int = 0
    """Steps between checkpoints; 0: off."""
    checkpoint_every_hr: float = 0.0
    """Hours between checkpoints; 0: off."""
    checkpoint_after: float = 0.0
    """Hours before the first time-based checkpoint."""
    checkpoint_keep_best: bool = True
    """Save whenever the validation loss improves."""
    keep_last: int = 2
    """Checkpoints kept besides the best one; 0: all."""

    def __post_init__(self) -> None:
        _at_least("checkpoint", self, save_every=0, checkpoint_every_hr=0, checkpoint_after=0, keep_last=0)


@dataclass(frozen=True)
class LoggingConfig:
    """What is measured and where it goes."""

    log_every: int = 10
    style: Literal["compact", "blocks", "quiet", "speedrun", "steps"] = "compact"
    gradient_log_interval: int = 0
    """Steps between gradient statistics; 0: off (the global norm is always logged)."""
    log_save_interval: int = 100
    """Steps between rewrites of run.json."""
    enable_wandb: bool = False
    enable_tensorboard: bool = False
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device, for the MFU of hardware that the table does not know."""
    use_sparse_specs: bool = False
    """Measure the MFU against the peak with 2:4 sparsity, which dense training cannot reach."""
    profile_steps: int = 0
    """Steps to record with torch.profiler, after ten steps of warm-up; 0: off."""

    def __post_init__(self) -> None:
        _at_least("logging", self, log_every=1, gradient_log_interval=0, log_save_interval=1, profile_steps=0)


@dataclass(frozen=True)
class SampleConfig:
    """Text generated at the end of a run."""

    prompt: str = "\n"
    num_samples: int = 1
    max_new_tokens: int = 200
    """0: no sample."""
    temperature: float = 0.8
    top_k: int | None = 200
    top_p: float | None = None
    repetition_penalty: float = 1.0
    sample_every: int = 0
    """Steps between samples; 0: only at the end."""

    def __post_init__(self) -> None:
        _at_least("generate", self, num_samples=1, max_new_tokens=0, sample_every=0)
        try:
            Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty)
        except ValueError as error:
            raise ValueError(f"generate.{error}") from error
