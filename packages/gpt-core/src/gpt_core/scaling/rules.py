"""How batch, learning rates and weight decay follow the size of a model: two sets of rules.

`auto` is nanochat's (July 2026), `legacy` the one before it. The reference is the same model with 12 layers at 2**19
tokens per step; N is `Counts.scaling`, w a width in channels.

| quantity                       | auto                                       | legacy             |
|--------------------------------|--------------------------------------------|--------------------|
| tokens per step B              | 2**round(log2(2**19 · (N / N_ref)**0.383)) | 2**19              |
| all learning rates             | √(B / 2**19)                               | (w / 768)**-0.5    |
| those of embeddings and head   | and (w / 768)**-0.5                        |                    |
| weight decay of the matrices   | B / 2**19 / rate factor · N_ref / N        | (12 / depth)**2    |

The exponent is that of Power Lines (Bergsma et al. 2025, arXiv:2505.13738). The decay keeps B/(η·λ·D) (Wang and
Aitchison 2024, arXiv:2405.13698) the same for all sizes at a constant ratio of tokens to parameters; both are results
for AdamW that Muon is assumed to share. Tokens D enter only as multiples of N: with the same ratio for both models it
cancels, so N is used, whatever sets the number of steps.

Who fixes B has chosen the learning rate for it: its factor is then 1, and the decay's B / 2**19 · N_ref / N. With the B
of the rules the decay's factor is nanochat's √(B / 2**19) · N_ref / N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rules = Literal["auto", "legacy", "off"]

REFERENCE_DEPTH = 12
REFERENCE_WIDTH = 768
REFERENCE_BATCH = 2**19
"""Tokens per step."""
BATCH_EXPONENT = 0.383
DEVICE_BATCHES = ((8, 64), (10, 32), (14, 16), (18, 8), (22, 4))
"""(largest depth, sequences of 1024 tokens) that fit 80 GB."""
DEEPEST_DEVICE_BATCH = 2


@dataclass(frozen=True)
class Factors:
    """What the base values of the optimizer are multiplied with."""

    rate: float = 1.0
    """All learning rates."""
    width: float = 1.0
    """Those of embeddings and head, besides."""
    decay: float = 1.0
    """Weight decay of the matrices."""


def automatic_batch(rules: Rules, parameters: int, reference: int) -> int:
    """Tokens per step for a model of `parameters` (N); `reference` is N of the same model with 12 layers.

    ValueError: the rules are off, or a number is not positive.
    """
    _check(parameters, reference)
    if rules == "legacy":
        return REFERENCE_BATCH
    if rules != "auto":
        raise ValueError(f"no rule for the batch: rules must be auto or legacy, got {rules!r}")
    return 2 ** round(math.log2(REFERENCE_BATCH * (parameters / reference) ** BATCH_EXPONENT))


def factors_of(
    rules: Rules, depth: int, width: int, parameters: int, reference: int, batch_tokens: int, batch_is_ruled: bool
) -> Factors:
    """Factors for a model of this depth and width (channels); `parameters` and `reference` as in `automatic_batch`.

    batch_tokens: B. batch_is_ruled: the rules chose it. ValueError: a number is not positive.
    """
    _check(parameters, reference)
    if rules == "off":
        return Factors()
    by_width = (width / REFERENCE_WIDTH) ** -0.5
    if rules == "legacy":
        return Factors(rate=by_width, decay=(REFERENCE_DEPTH / depth) ** 2)
    batch = batch_tokens / REFERENCE_BATCH
    rate = math.sqrt(batch) if batch_is_ruled else 1.0
    return Factors(rate=rate, width=by_width, decay=batch / rate * reference / parameters)


def device_batch(depth: int, context_length: int) -> int:
    """Sequences per micro-step that fit a GPU of 80 GB: those of the table for 1024 tokens, in as many tokens."""
    sequences = next((size for most, size in DEVICE_BATCHES if depth <= most), DEEPEST_DEVICE_BATCH)
    return max(1, sequences * 1024 // context_length)


def _check(parameters: int, reference: int) -> None:
    if parameters <= 0 or reference <= 0:
        raise ValueError(f"N and N_ref must be positive, got {parameters:,} and {reference:,} parameters")
