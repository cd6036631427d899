"""The lines that a training log says its figures with: ours, VibeNanoChat's and nanochat's. Numbers in any notation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_NUMBER = r"([-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_FACTS = {
    "params_total": (rf"Model parameters: {_NUMBER}", rf"^\s*total\s*:? +{_NUMBER}\s*$"),
    "params_wte": (rf"^\s*wte\s*:? +{_NUMBER}\s*$",),
    "params_value_embeds": (rf"^\s*value_embeds\s*:? +{_NUMBER}\s*$",),
    "params_lm_head": (rf"^\s*lm_head\s*:? +{_NUMBER}\s*$",),
    "params_transformer": (rf"^\s*transformer_matrices\s*:? +{_NUMBER}\s*$",),
    "params_scalars": (rf"^\s*scalars\s*:? +{_NUMBER}\s*$",),
    "num_iterations": (rf"Calculated number of iterations[^:]*: {_NUMBER}", rf"number of iterations: {_NUMBER}"),
    "batch": (rf"Total batch size:? {_NUMBER}",),
    "tokens_trained": (rf"Total (?:number of )?training tokens: {_NUMBER}",),
    "flops_per_token": (rf"FLOPs per token: {_NUMBER}",),
    "flops_budget": (rf"(?<!from )[Tt]arget FLOPs:? {_NUMBER}", rf"--target[-_]flops[= ]{_NUMBER}"),
    "depth": (rf"^SCALING depth {_NUMBER}", rf"--depth[= ]{_NUMBER}", rf'"n_layer": {_NUMBER}'),
    "model_dim": (rf"^SCALING depth \d+, {_NUMBER} channels", rf'"n_embd": {_NUMBER}'),
}
_STEP = re.compile(r"\[Step\s+(\d+)/(\d+)\]|^step (\d+)/(\d+)")
_SECONDS = re.compile(rf"(?:Time|dt): {_NUMBER}\s*(ms|s)\b")
_MFU = re.compile(rf"(?:bf16_)?(?:MFU|mfu): {_NUMBER}")
_EVALUATION = re.compile(rf"VALIDATION \| Step\s+(\d+)\b.*\bBPB: {_NUMBER}|^Step (\d+) \| Validation bpb: {_NUMBER}")
_CORE = re.compile(rf"Step\s+(\d+)\b.*\bCORE(?: metric| score)?: {_NUMBER}|^step (\d+): core score {_NUMBER}")
_BUDGET_IN_NAME = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?[eE]\+?\d+)")
_DEPTH_IN_NAME = re.compile(r"(?:^|[-_/])(?:d(?:epth)?[-_]?|[nN])(\d+)(?=[-_./]|$)")


def number(text: str) -> float:
    """`162,201,600`, `1e+18`, `2.15e18`, `41.00`"""
    return float(text.replace(",", ""))


@dataclass
class Spoken:
    """What a log said, lines in order; the last word on each matter holds."""

    facts: dict[str, float] = field(default_factory=dict)
    bpb: dict[int, float] = field(default_factory=dict)
    """Step -> validation bits per byte."""
    core: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    """Step -> seconds that it took, or the mean of the steps since the line before."""
    mfu: dict[int, float] = field(default_factory=dict)
    """Step -> fraction."""
    last_of: int | None = None
    """The number of steps that the step lines name."""

    @classmethod
    def of(cls, lines: Iterable[str]) -> Spoken:
        """Read all lines; those that say nothing known are passed over."""
        spoken = cls()
        for line in lines:
            spoken._hear(line.rstrip())
        return spoken

    def _hear(self, line: str) -> None:
        if found := _EVALUATION.search(line):
            self.bpb[int(found[1] or found[3])] = number(found[2] or found[4])
        elif found := _CORE.search(line):
            self.core[int(found[1] or found[3])] = number(found[2] or found[4])
        elif found := _STEP.search(line):
            self._hear_step(int(found[1] or found[3]), int(found[2] or found[4]), line)
        else:
            for name, patterns in _COMPILED.items():
                for pattern in patterns:
                    if found := pattern.search(line):
                        self.facts[name] = number(found[1])

    def _hear_step(self, step: int, of: int, line: str) -> None:
        self.last_of = of
        if seconds := _SECONDS.search(line):
            self.seconds[step] = number(seconds[1]) / (1000 if seconds[2] == "ms" else 1)
        if mfu := _MFU.search(line):
            self.mfu[step] = number(mfu[1]) / 100


_COMPILED = {name: [re.compile(pattern) for pattern in patterns] for name, patterns in _FACTS.items()}


def named_budget(name: str) -> float | None:
    """The compute budget in a file's name: `scaling_laws_N12_F1e18.log`, `depth6_flops2.15e18.txt`."""
    found = _BUDGET_IN_NAME.search(name)
    return float(found[1]) if found else None


def named_depth(name: str) -> int | None:
    """The depth in a file's name."""
    found = _DEPTH_IN_NAME.search(name)
    return int(found[1]) if found else None
