"""From the section `scaling` to the configuration that a run is built from.

In this order, each step with what the ones before it found: sizes, windows; parameters and FLOPs, counted on the model
itself (on the "meta" device); tokens per step; the device batch that makes them; the number of steps; factors of the
learning rates and the weight decay. What the command line says, or `scaling.keep` names, is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt_core.checkpoint import CheckpointError, read_meta
from gpt_core.config import Config, ConfigError, Factory
from gpt_core.config.factory import load, signature_of
from gpt_core.config.overrides import COMMAND_LINE
from gpt_core.monitor.flops import flops_per_token
from gpt_core.scaling.batch import Step, align
from gpt_core.scaling.config import ScalingConfig, StepsBy
from gpt_core.scaling.counts import Counts, counts_of
from gpt_core.scaling.horizon import DEFAULT_RATIO, epochs_of, steps_of_epochs, steps_of_flops, steps_of_ratio
from gpt_core.scaling.meta import on_meta
from gpt_core.scaling.rules import (
    REFERENCE_DEPTH,
    Factors,
    automatic_batch,
    device_batch,
    factors_of,
)
from gpt_core.scaling.sizes import sizes_of, windows_of

MODEL, TRAINING, OPTIMIZER = "model.module_kwargs", "training", "optimizer.module_kwargs"
STEPS, EPOCHS, DEVICE_BATCH = (f"{TRAINING}.{name}" for name in ("max_steps", "epochs", "device_batch_size"))
BATCH, ACCUMULATION = f"{TRAINING}.global_batch_size", f"{TRAINING}.gradient_accumulation_steps"
FACTORS = {"rate": "rate_factor", "width": "width_factor", "decay": "decay_factor"}
"""Factor -> the optimizer's argument for it."""


@dataclass(frozen=True)
class Plan:
    """What a run will be, before anything is built."""

    config: Config
    """With everything that `scaling` has set."""
    counts: Counts
    flops_per_token: float
    step: Step
    steps: int
    steps_by: StepsBy
    context_length: int
    vocab_size: int
    factors: Factors
    width: int
    depth: int
    epoch_tokens: int | None
    """Tokens in one pass over the training data; None: not known."""
    derived: Mapping[str, str]
    """Key -> what set it."""
    kept: Mapping[str, str]
    """Key -> what it says, and what the rules would have said."""
    warnings: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return self.steps * self.step.tokens

    @property
    def flops(self) -> float:
        return self.tokens * self.flops_per_token

    @property
    def epochs(self) -> float | None:
        return self.tokens / self.epoch_tokens if self.epoch_tokens else None


@dataclass(frozen=True)
class Data:
    """What must be known of the data."""

    vocab_size: int
    epoch_tokens: int | None


def resolve(
    config: Config,
    *,
    world_size: int,
    device_type: str,
    data: Data | None = None,
    weights: str | Path | None = None,
) -> Plan | None:
    """The plan of a run of `world_size` processes on devices of this type; None where `scaling` asks for nothing.

    data: None opens the component of the configuration to see. weights: the checkpoint that a new run starts from,
    which then decides the sizes. ValueError for what does not go together; every process comes to the same result.
    """
    scaling: ScalingConfig = config.section("scaling")
    if not scaling.is_active:
        return None
    if config.section("stages").device_batch_size is not None:
        raise ValueError(
            "scaling sets one batch for the whole run, stages.device_batch_size changes it on the way: leave one of "
            "the two out"
        )
    return _Resolver(config, scaling, world_size, device_type, weights).resolve(data or look_at(config))


def look_at(config: Config) -> Data:
    """Open the data of a configuration, for its vocabulary and its size."""
    training = config.section("training")
    splits = config.component("data").build(
        context_length=training.context_length,
        device_batch_size=1,
        rank=0,
        world_size=1,
        seed=config.section("general").seed,
    )
    try:
        epoch_tokens = splits.train.batches_per_epoch * training.context_length
    except (AttributeError, ValueError):  # a stream of no known length
        epoch_tokens = None
    return Data(splits.dataset.vocab_size, epoch_tokens)


def by_epochs(config: Config) -> bool:
    """Whether training.epochs says how long a run is, not training.max_steps.

    The one that the command line has; of both or neither the steps, where they are not 0.
    """
    training = config.section("training")
    epochs, steps = (origin_of(config, key) == COMMAND_LINE for key in (EPOCHS, STEPS))
    return training.epochs is not None and (epochs > steps or (epochs == steps and not training.max_steps))


@dataclass
class _Resolver:
    config: Config
    scaling: ScalingConfig
    world_size: int
    device_type: str
    weights: str | Path | None
    values: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def resolve(self, data: Data) -> Plan:
        self._size()
        depth, reference = self._count(data.vocab_size)
        total, chosen = self._total_batch(depth, reference)
        step = self._step(depth, total)
        steps, steps_by = self._steps(step.tokens, data)
        factors = self._factors(depth, reference, step.tokens, chosen)
        keep = tuple(dict.fromkeys((*self.scaling.keep, *self.kept)))
        record = {"scaling.keep": list(keep), "scaling.derived": dict(self.derived), "scaling.steps_by": steps_by}
        plan = Plan(
            config=self.config.changed({**self.values, **record}, "scaling"),
            counts=self.counts,
            flops_per_token=self.flops,
            step=step,
            steps=steps,
            steps_by=steps_by,
            context_length=self.config.section("training").context_length,
            vocab_size=data.vocab_size,
            factors=factors,
            width=self.width,
            depth=depth,
            epoch_tokens=data.epoch_tokens,
            derived=self.derived,
            kept=self.kept,
        )
        if plan.epochs is not None and plan.tokens - step.tokens >= (data.epoch_tokens or 0):  # not by rounding alone
            self.warnings.append(
                f"{plan.tokens:,} tokens are {plan.epochs:.2f} epochs of the training data ({data.epoch_tokens:,} "
                "tokens): text that is repeated teaches less, and the fit of a scaling law would bend; prepare more "
                "data, or train for fewer tokens"
            )
        return replace(plan, warnings=tuple(self.warnings))

    def _size(self) -> None:
        """Layers, width, heads and windows."""
        scaling = self.scaling
        if scaling.depth is not None:
            if self.weights is not None:
                raise ValueError(
                    f"scaling.depth sizes a new model, and general.init_from={self.config.section('general').init_from}"
                    " brings one with sizes of its own: leave one of the two out"
                )
            missing = {"n_layer", "n_embd", "n_head"} - self._takes("model").keys()
            if missing:
                raise ValueError(
                    f"scaling.depth sets {', '.join(sorted(missing))}, which {self.config.component('model').path} "
                    "does not take: this model has sizes of its own"
                )
            sizes = sizes_of(scaling.depth, scaling.aspect_ratio, scaling.head_dim)
            why = f"depth {scaling.depth} x aspect_ratio {scaling.aspect_ratio}, heads of {scaling.head_dim}"
            self._set(f"{MODEL}.n_layer", sizes.n_layer, f"depth {scaling.depth}")
            self._set(f"{MODEL}.n_embd", sizes.n_embd, why + (f": nudge +{sizes.nudge}" if sizes.nudge else ""))
            self._set(f"{MODEL}.n_head", sizes.n_head, why)
        if scaling.windows is not None:
            layers = self._model_kwargs().get("n_layer") or self._takes("model")["n_layer"].default
            pattern, window = windows_of(scaling.windows, layers, self.config.section("training").context_length)
            self._set(f"{MODEL}.window_pattern", pattern, f"windows {scaling.windows}, the last layer full")
            self._set(f"{MODEL}.window", window, "a quarter of the context, in tiles of 128 keys")

    def _count(self, vocab_size: int) -> tuple[int, int]:
        """The model's depth, and N of the reference; keeps the model's counts."""
        factory = self.config.component("model")
        given = {"vocab_size": vocab_size, "context_length": self.config.section("training").context_length}
        if self.weights is None:
            model = _on_meta(factory, {**given, **self._model_kwargs()})
        else:
            model = _of_checkpoint(Path(self.weights))
        self.counts = counts_of(model)
        architecture: Any = model.config
        self.flops, self.width = flops_per_token(architecture), architecture.n_embd
        if self.scaling.depth is None:
            return architecture.n_layer, self.counts.scaling
        sizes = sizes_of(REFERENCE_DEPTH, self.scaling.aspect_ratio, self.scaling.head_dim)
        own = {"n_layer": sizes.n_layer, "n_embd": sizes.n_embd, "n_head": sizes.n_head}
        reference = _on_meta(factory, {**given, **self._model_kwargs(), **own})
        return architecture.n_layer, counts_of(reference).scaling

    def _total_batch(self, depth: int, reference: int) -> tuple[int, bool]:
        """Tokens per step that are wanted, and whether the rules chose them."""
        scaling, training = self.scaling, self.config.section("training")
        T, written = training.context_length, _tokens_written(training, self.world_size)
        ruled = scaling.depth is not None and scaling.rules != "off"
        given = [key for key in (BATCH, ACCUMULATION) if origin_of(self.config, key) == COMMAND_LINE]
        if given and origin_of(self.config, "scaling.total_batch_size") == COMMAND_LINE:
            raise ValueError(f"scaling.total_batch_size and {given[0]} say the same thing twice: leave one out")
        if scaling.total_batch_size is not None and not given:
            self.derived[BATCH] = f"total_batch_size {scaling.total_batch_size:,}"
            return scaling.total_batch_size, False
        for key in (BATCH, ACCUMULATION):
            if self._is_kept(key) and getattr(training, key.rpartition(".")[2]) is not None:
                self.kept[key] = f"{written:,} tokens per step"
                return written, False
        if not ruled:
            return written, False
        total = automatic_batch(scaling.rules, self.counts.scaling, reference)
        self.derived[BATCH] = f"{scaling.rules}: {total:,} tokens of {T} per sequence"
        return total, True

    def _step(self, depth: int, total: int) -> Step:
        """The device batch and the micro-steps that make `total` tokens."""
        scaling, training = self.scaling, self.config.section("training")
        T, size = training.context_length, training.device_batch_size
        if self._is_kept(DEVICE_BATCH):
            self.kept[DEVICE_BATCH] = f"{size} at most"
        elif scaling.depth is not None and scaling.rules != "off" and self.device_type == "cuda":
            size = device_batch(depth, T)
            self.derived[DEVICE_BATCH] = f"depth {depth} on 80 GB"
        step = align(total, size, T, self.world_size, scaling.strict_batch)
        if step.realigned:
            self.warnings.append(step.note or "")
        elif step.note:
            self.derived[DEVICE_BATCH] = step.note
        changed = (step.device_batch_size, step.tokens) != (training.device_batch_size, total)
        if BATCH in self.derived or changed:
            self.values |= {
                DEVICE_BATCH: step.device_batch_size,
                BATCH: step.tokens // T,
                ACCUMULATION: None,
            }
            self.derived.setdefault(BATCH, "aligned to whole micro-steps")
        return step

    def _steps(self, batch_tokens: int, data: Data) -> tuple[int, StepsBy]:
        """num_iterations, else target_flops, else epochs, else tokens per parameter, else what is configured; which."""
        scaling, training = self.scaling, self.config.section("training")
        written, in_epochs = training.max_steps, by_epochs(self.config) and scaling.target_flops is None
        if self._is_kept(STEPS) and not in_epochs:
            self.kept[STEPS] = f"{written:,}"
            return written, "max_steps"
        if scaling.target_flops is not None:
            steps = steps_of_flops(scaling.target_flops, self.flops, batch_tokens)
            self._set(STEPS, steps, f"target_flops {scaling.target_flops:g}")
            return steps, "target_flops"
        if in_epochs:
            if data.epoch_tokens is None:  # said by who makes the steps of a run
                return written, "epochs"
            epochs = epochs_of(training.epochs, data.epoch_tokens, batch_tokens)
            steps = steps_of_epochs(epochs, data.epoch_tokens, batch_tokens)
            self.values |= {STEPS: steps, EPOCHS: epochs}
            self.derived[STEPS] = f"epochs {epochs:g}"
            return steps, "epochs"
        if scaling.param_data_ratio is not None or scaling.depth is not None:
            ratio = DEFAULT_RATIO if scaling.param_data_ratio is None else scaling.param_data_ratio
            steps = steps_of_ratio(ratio, self.counts.scaling, batch_tokens)
            self._set(STEPS, steps, f"param_data_ratio {ratio:g}{'' if scaling.param_data_ratio else ' (default)'}")
            return steps, "param_data_ratio"
        return written, "max_steps"

    def _factors(self, depth: int, reference: int, batch_tokens: int, batch_is_ruled: bool) -> Factors:
        """Factors of the optimizer, where it takes them."""
        rules = self.scaling.rules
        if self.scaling.depth is None or rules == "off":
            return Factors()
        parameters = self.counts.scaling
        factors = factors_of(rules, depth, self.width, parameters, reference, batch_tokens, batch_is_ruled)
        takes = self._takes("optimizer")
        if not takes.keys() >= set(FACTORS.values()):
            self.warnings.append(
                f"{self.config.component('optimizer').path} takes no {', '.join(FACTORS.values())}: its learning rates "
                f"and weight decay stay as they are written ({rules} would multiply them: "
                f"{_spoken(factors)}). gpt_optim.depth takes them; --scaling off says that they are meant"
            )
            return Factors()
        used = {}
        for name, argument in FACTORS.items():
            key, value = f"{OPTIMIZER}.{argument}", getattr(factors, name)
            used[name] = self._set(key, value, f"{rules}, N {parameters:,}, N_ref {reference:,}")
        return Factors(**used)

    def _set(self, key: str, value: Any, why: str) -> Any:
        """Derive a value, unless the user has fixed it; returns the one that holds."""
        if self._is_kept(key):
            own = self._written(key)
            self.kept[key] = f"{own!r}, not {value!r} ({why})" if own != value else f"{own!r}"
            return own
        self.values[key], self.derived[key] = value, why
        return value

    def _is_kept(self, key: str) -> bool:
        """Whether the user has said it on the command line, or named it in `scaling.keep`."""
        return key in self.scaling.keep or origin_of(self.config, key) == COMMAND_LINE

    def _written(self, key: str) -> Any:
        section, _, name = key.rpartition(".")
        return self.config.component(section.partition(".")[0]).kwargs.get(name)

    def _model_kwargs(self) -> dict[str, Any]:
        """The model's arguments with what is derived so far."""
        own = {key.rpartition(".")[2]: value for key, value in self.values.items() if key.startswith(MODEL)}
        return {**self.config.component("model").kwargs, **own}

    def _takes(self, component: str) -> Mapping[str, Any]:
        return signature_of(self.config.component(component).target).parameters


def _on_meta(factory: Factory, arguments: Mapping[str, Any]) -> Any:
    """The model without memory for its weights."""
    known = signature_of(factory.target)
    taken = {key: value for key, value in arguments.items() if known.open or key in known.parameters}
    with on_meta():
        return factory.target(**taken)


def _of_checkpoint(checkpoint: Path) -> Any:
    try:
        saved = read_meta(checkpoint)["model"]
    except (CheckpointError, NotADirectoryError) as error:  # a name on the Hub, a folder of others; a .pt file
        raise CheckpointError(
            f"the section scaling counts the weights that a run starts from, a checkpoint of ours: {error}. With other "
            "weights set training.max_steps, training.global_batch_size and the rates yourself, and leave "
            "--target-flops, --param-data-ratio, --total-batch-size and --windows out"
        ) from error
    return _on_meta(Factory(saved["module"], {}, load(saved["module"])), saved["module_kwargs"])


def _tokens_written(training: Any, world_size: int) -> int:
    """Tokens per step that the section training asks for, before any rounding."""
    sequences = training.device_batch_size * world_size
    if training.global_batch_size is not None:
        sequences = training.global_batch_size
    elif training.gradient_accumulation_steps is not None:
        sequences = training.device_batch_size * training.gradient_accumulation_steps
    return sequences * training.context_length


def origin_of(config: Config, key: str) -> str | None:
    """Where a key was written; None: nowhere."""
    try:
        return config.origin(key)
    except ConfigError:
        return None


def _spoken(factors: Factors) -> str:
    return ", ".join(f"{argument} {getattr(factors, name):.4g}" for name, argument in FACTORS.items())
