"""Numbers that make scores comparable: across tasks (chance removed) and across tokenizers (per byte)."""

import math
from collections.abc import Sequence


def centered_accuracy(accuracy: float, baseline: float) -> float:
    """Accuracy on a scale where chance is 0 and perfection is 1: (accuracy - baseline) / (1 - baseline).

    Below 0 means worse than chance. llm-foundry calls it rescaled, DCLM and nanochat centered accuracy.

    accuracy: fraction of items answered correctly, 0..1.
    baseline: the fraction that guessing gets, at least 0 and below 1 (published tables use percent).
    """
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"accuracy must be a fraction in 0..1, got {accuracy}; divide a percentage by 100")
    if not 0.0 <= baseline < 1.0:
        raise ValueError(f"baseline must be a fraction in 0..1, got {baseline}; divide a percentage by 100")
    return (accuracy - baseline) / (1.0 - baseline)


def bits_per_byte(total_logprob_nats: float, n_bytes: int) -> float:
    """Bits that the model needs for one byte of text: -total_logprob / (ln 2 * n_bytes).

    Unlike the loss per token it compares between tokenizers; 8 is what a model that knows nothing needs.

    total_logprob_nats: sum of ln P(token) over the scored tokens, at most 0.
    n_bytes: UTF-8 bytes of exactly those tokens; special tokens count in neither of the two.
    """
    if n_bytes <= 0:
        raise ValueError(f"n_bytes must be positive, got {n_bytes}; count the UTF-8 bytes of the scored text")
    if not total_logprob_nats <= 0.0:
        raise ValueError(
            f"a total log-probability is at most 0, got {total_logprob_nats}; negate a summed loss, "
            "and look for NaN in the model's output"
        )
    return -total_logprob_nats / (math.log(2.0) * n_bytes)


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float | None:
    """How far a model's confidence is from how often it is right; None without items.

    Items are sorted into equal bins of confidence; |accuracy - midpoint of the bin| is averaged, weighted by size
    (llm-foundry's form of arXiv 1706.04599, which takes the mean confidence of a bin in place of its midpoint).

    confidences: in 0..1, one per item, in the order of `correct`.
    """
    if not confidences:
        return None
    totals, right = [0] * bins, [0] * bins
    for confidence, is_right in zip(confidences, correct, strict=True):
        place = min(int(confidence * bins), bins - 1)
        totals[place] += 1
        right[place] += bool(is_right)
    gaps = (abs(right[i] / totals[i] - (i + 0.5) / bins) * totals[i] for i in range(bins) if totals[i])
    return math.fsum(gaps) / len(confidences)
