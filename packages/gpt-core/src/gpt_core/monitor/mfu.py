"""Model FLOPs utilisation: useful arithmetic per second as a share of what the hardware could do at most."""

from typing import Any

from .flops import Architecture, Convention, flops_breakdown
from .hardware import hardware_peak, precision_name


class MFUMeter:
    """MFU = FLOPs per token x global tokens per second / (peak of one device x devices).

    Give `update` pure step time: evaluation, checkpoints and logging are not training speed. The first `skip` steps
    (compilation, cold caches) are timed but not averaged; then an exponential average starts at the first sample.
    On unknown hardware everything but the MFU is still reported.
    """

    def __init__(
        self,
        config: Architecture,
        *,
        tokens_per_step: int,
        device_name: str | None,
        precision: str,
        world_size: int = 1,
        convention: Convention = "palm",
        peak_tflops: float | None = None,
        sparse: bool = False,
        skip: int = 5,
        decay: float = 0.9,
    ):
        """`tokens_per_step` counts all ranks and micro-batches; `peak_tflops` is per device."""
        self._config, self._convention = config, convention
        self.tokens_per_step = tokens_per_step
        self.world_size = world_size
        self.peak = hardware_peak(device_name, precision, override_tflops=peak_tflops, sparse=sparse)
        self._flops = flops_breakdown(config, convention)
        self._device_name = device_name
        self._precision = precision_name(precision)
        self._architecture = describe_architecture(config)
        self._skip = skip
        self._decay = decay
        self._steps = 0
        self._mfu: float | None = None
        self._rate: float | None = None
        self._achieved: float | None = None

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token, forward and backward, of the architecture as it is now."""
        return self._flops["flops_per_token"]

    def follow(self, config: Architecture) -> None:
        """Count as in `config` from now on: an architecture may change while it is trained, as its windows grow."""
        if config != self._config:
            self._config, self._flops = config, flops_breakdown(config, self._convention)

    @property
    def mfu(self) -> float | None:
        """The averaged MFU as a fraction, None before the first sample and on unknown hardware."""
        return self._mfu

    def update(
        self, seconds: float, *, steps: int = 1, tokens: int | None = None, flops: float | None = None
    ) -> dict[str, Any]:
        """Account for `steps` steps that took `seconds` in all; returns the metrics of these steps.

        tokens: of these steps together, where steps differ; None: `tokens_per_step` in each. flops: likewise; None:
        those of the architecture now.
        The dict holds everything, constants included; `metrics()` picks what changes per step.
        """
        if not seconds > 0:
            raise ValueError(f"MFU: got a step time of {seconds} s, expected a positive duration")
        if steps < 1:
            raise ValueError(f"MFU: got {steps} steps, expected at least 1")
        averaged = self._steps >= self._skip
        self._steps += steps
        self._rate = (self.tokens_per_step * steps if tokens is None else tokens) / seconds
        self._achieved = self._rate * self.flops_per_token if flops is None else flops / seconds
        if averaged and self.peak.flops is not None:
            sample = self._achieved / (self.peak.flops * self.world_size)
            keep = self._decay**steps
            self._mfu = sample if self._mfu is None else keep * self._mfu + (1 - keep) * sample
        return {**self.metrics(), **self.constants()}

    def metrics(self) -> dict[str, float | None]:
        """What changes from step to step: mfu (averaged), achieved FLOP/s and tokens/s (of the last update)."""
        achieved = self._achieved
        return {
            "mfu": self._mfu,
            "mfu_percent": None if self._mfu is None else 100 * self._mfu,
            "flops_achieved": achieved,
            "flops_achieved_per_gpu": None if achieved is None else achieved / self.world_size,
            "achieved_tflops": None if achieved is None else achieved / 1e12,
            "tokens_per_sec": self._rate,
            "tokens_per_sec_per_gpu": None if self._rate is None else self._rate / self.world_size,
        }

    def constants(self) -> dict[str, Any]:
        """What stays the same over a run: the arithmetic and the hardware it is measured against."""
        peak = self.peak.flops
        names = ("attention_flops_per_layer", "ffn_flops_per_layer", "logit_flops", "attention_to_ffn_ratio")
        return {
            "flops_per_token": self.flops_per_token,
            "tokens_per_iter": self.tokens_per_step,
            "hardware_peak_flops": peak,
            "hardware_peak_tflops": None if peak is None else peak / 1e12,
            "gpu_name": self._device_name,
            "precision": self._precision,
            "num_gpus": self.world_size,
            **{name: self._flops[name] for name in names},
            "architecture": self._architecture,
            "calculation_method": f"{self._flops['convention']}: 3 x forward matmul FLOPs, no recomputation, "
            f"norms and rope excluded; mfu averaged over steps ({self._decay} kept); peak: {self.peak.source}",
        }

    def expected_tokens_per_sec(self, mfu: float = 0.5) -> float | None:
        """Global tokens per second at a given MFU, None on unknown hardware."""
        if self.peak.flops is None:
            return None
        return mfu * self.peak.flops * self.world_size / self.flops_per_token


def describe_architecture(config: Any) -> str:
    """`12L-12H-768D-…`: the configuration's own name if it has one, else its sizes."""
    return getattr(config, "name", None) or f"{config.n_layer}L-{config.n_head}H-{config.n_embd}D"
