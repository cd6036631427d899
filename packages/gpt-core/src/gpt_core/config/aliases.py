"""The one table of short names: nanoGPT's and its descendants' flat keys, and where each lives in the tree.

A key with several places means the first one that the configuration at hand knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Alias:
    """A flat key whose values have other names in the tree."""

    to: str | tuple[str, ...]
    values: tuple[tuple[Any, Any], ...] = ()
    """(value of the flat key, value in the tree); other values stay as they are."""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.to,) if isinstance(self.to, str) else self.to


Aliases: TypeAlias = "Mapping[str, str | Alias]"


def _same(component: str, *names: str) -> dict[str, str]:
    return {name: f"{component}.module_kwargs.{name}" for name in names}


_COMPILE = Alias("general.compile", ((True, "model"), (False, "off")))

_GENERAL = {
    "out_dir": "general.out_dir",
    "run_name": "general.run_name",
    "project_name": "general.project_name",
    "run_description": "general.run_description",
    "seed": "general.seed",
    "device": "general.device",
    "dtype": "general.dtype",
    "threads": "general.threads",
    "init_from": "general.init_from",
    "warm_start_optimizer": "general.warm_start_optimizer",
    "compile": _COMPILE,
    "general.compile": _COMPILE,  # true and false work here too
    "general.torch_compile": _COMPILE,
    "general.device_type": "general.device",
    "backend": "parallel.backend",
    "timeout_minutes": "parallel.timeout_minutes",
    "strategy": "parallel.strategy",
    "use_zero1": Alias("parallel.strategy", ((True, "zero1"), (False, "auto"))),
    "use_fsdp": Alias("parallel.strategy", ((True, "fsdp"), (False, "auto"))),
}

_MODEL = {
    **_same("model", "n_layer", "n_head", "n_embd", "d_ff", "ffn_expansion_ratio", "ffn_multiple_of", "vocab_size"),
    **_same("model", "normalization", "norm_position", "norm_eps", "activation", "ffn_type"),
    **_same("model", "position_encoding", "rope_theta", "rope_style", "attention_backend", "qk_norm", "qk_norm_gain"),
    **_same("model", "window", "window_pattern", "logit_softcap", "attention_softcap"),
    **_same("model", "bias", "weight_tying", "dropout", "attention_dropout", "residual_dropout"),
    **_same("model", "embedding_dropout", "ffn_dropout", "n_kv_head", "preset"),
    **_same(
        "model", "vocab_multiple_of", "qkv_bias", "attention_out_bias", "ffn_bias", "init_std", "residual_init_std"
    ),
    **_same("model", "embedding_norm", "embedding_init_std", "head_init_std", "init_seed"),
    **_same("model", "dag_depth", "gate_mode", "plan_source", "predictor"),
    "arch_preset": "model.module_kwargs.preset",
    "num_key_value_heads": "model.module_kwargs.n_kv_head",
    "tie_lm_head": "model.module_kwargs.weight_tying",
}

_DATA = {
    "dataset": "data.module_kwargs.dataset",
    "data_root": "data.module_kwargs.data_root",
    "loss_on": Alias("data.module_kwargs.loss_on", (("assistant", "mask"),)),
}

_TRAINING = {
    "block_size": "training.context_length",
    "context_length": "training.context_length",
    # nanoGPT: batch_size is the micro batch, gradient_accumulation_steps counts micro steps over all processes
    "batch_size": "training.device_batch_size",
    "device_batch_size": "training.device_batch_size",
    "global_batch_size": "training.global_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "num_iterations": "training.max_steps",
    "epochs": "training.epochs",
    "max_iters": "training.max_steps",
    "max_steps": "training.max_steps",
    "grad_clip": "training.grad_clip",
    "activation_checkpointing": "training.activation_checkpointing",
    "fused_loss": "training.fused_loss",
    "fp8": "training.fp8",
    "max_nonfinite_steps": "training.max_nonfinite_steps",
    "fsdp_activation_checkpointing": "training.activation_checkpointing",
    "z_loss": "loss.module_kwargs.z_loss",
}

_SCALING = {
    "scaling": "scaling.rules",
    **{
        name: f"scaling.{name}"
        for name in ("depth", "aspect_ratio", "head_dim", "windows", "target_flops", "param_data_ratio")
    },
    **{name: f"scaling.{name}" for name in ("total_batch_size", "strict_batch")},
}

_OPTIMIZER = {
    **_same("optimizer", "learning_rate", "weight_decay", "eps", "clip_muon"),
    "beta1": Alias(("optimizer.module_kwargs.beta1", "optimizer.module_kwargs.betas.0")),
    "beta2": Alias(("optimizer.module_kwargs.beta2", "optimizer.module_kwargs.betas.1")),
    **_same("scheduler", "min_lr", "warmup_iters", "lr_decay_iters", "decay_lr", "end_factor"),
    **_same("scheduler", "cooldown_iters", "cooldown_frac", "range_coeff"),
}

_AUTO = (("auto", -1),)
_EVERY = Alias("eval.eval_every", _AUTO)
_PERIODIC = {
    "eval_interval": _EVERY,
    "eval_every": _EVERY,
    "eval.eval_every": _EVERY,
    "eval.core_every": Alias("eval.core_every", _AUTO),
    "eval.chatcore_every": Alias("eval.chatcore_every", _AUTO),
    "no_evals": Alias("eval.validate", ((True, False), (False, True))),
    "run_core_evals": Alias("eval.core_every", ((True, -1), (False, 0))),
    "run_chatcore_evals": Alias("eval.chatcore_every", ((True, -1), (False, 0))),
    "eval_iters": "eval.eval_iters",
    "eval_at_start": "eval.at_start",
    "test_at_end": "eval.test_at_end",
    "eval_only": "eval.eval_only",
    # nanoGPT saves at every evaluation, or (off) only when the validation loss improves, which is always done here
    "always_save_checkpoint": Alias("checkpoint.save_every", ((True, "_copy: /eval/eval_every"), (False, 0))),
    "keep_last": "checkpoint.keep_last",
    "keep_all_checkpoints": Alias("checkpoint.keep_last", ((True, 0), (False, 2))),
    "save_every": "checkpoint.save_every",
    "checkpoint_after": "checkpoint.checkpoint_after",
    "eval.checkpoint_after": "checkpoint.checkpoint_after",
    "eval.checkoint_after": "checkpoint.checkpoint_after",  # spelled so in older configurations
    "eval.checkpoint_every_hr": "checkpoint.checkpoint_every_hr",
    "eval.checkpoint_keep_best": "checkpoint.checkpoint_keep_best",
    "log_interval": "logging.log_every",
    "log_every": "logging.log_every",
    "training.log_every": "logging.log_every",
    "gradient_log_interval": "logging.gradient_log_interval",
    "log_save_interval": "logging.log_save_interval",
    "style": "logging.style",
    "peak_tflops": "logging.peak_tflops",
    "profile_steps": "logging.profile_steps",
    "enable_wandb": "logging.enable_wandb",
    "enable_tensorboard": "logging.enable_tensorboard",
    "wandb_log": "logging.enable_wandb",
    "wandb_project": "general.project_name",
    "wandb_run_name": "general.run_name",
    "start": Alias(("generate.prompt", "sample.prompt")),
    "sample_every": "generate.sample_every",
    **{
        name: Alias((f"generate.{name}", f"sample.{name}"))
        for name in ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty")
    },
}

ALIASES: Aliases = {**_GENERAL, **_MODEL, **_DATA, **_TRAINING, **_SCALING, **_OPTIMIZER, **_PERIODIC}
"""Flat key -> key in the tree."""

SWITCHES = frozenset({"no_evals", "run_core_evals", "run_chatcore_evals"})
"""Flat keys that are true without a value."""
