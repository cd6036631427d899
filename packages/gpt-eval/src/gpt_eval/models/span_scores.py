"""From vectors at the scored places to log-probabilities, without ever holding the logits of a whole batch.

Dimensions: N different places, R reads, D width, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def span_scores(
    x_ND: Tensor, head: Callable[[Tensor], Tensor], rows_R: Tensor, targets_R: Tensor, *, logit_bytes: int
) -> tuple[Tensor, Tensor]:
    """ln P(target) and whether the target is the most likely token, for every read; both (R,), on the CPU.

    x_ND: the model's vectors at the places that are read, each once.
    head: vectors (n, D) to logits (n, V).
    rows_R: which row of x_ND each read looks at, ascending. targets_R: the token it asks for.
    logit_bytes: how much memory the float32 logits of one chunk may take.

    The softmax is taken in float32, or in float64 for a float64 model. Of equal logits the first is the most likely.
    """
    logprobs, greedy = [], []
    start = 0
    rows_per_chunk = 1  # of the first chunk: it tells the width of the vocabulary
    while start < len(x_ND):
        logits_NV = head(x_ND[start : start + rows_per_chunk])
        if not logits_NV.dtype.is_floating_point or logits_NV.dtype.itemsize < 4:
            logits_NV = logits_NV.float()
        rows = logits_NV.shape[0]
        first, last = torch.searchsorted(rows_R, torch.tensor([start, start + rows], device=rows_R.device)).tolist()
        scores = _score_chunk(logits_NV, rows_R[first:last] - start, targets_R[first:last])
        logprobs.append(scores[0])
        greedy.append(scores[1])
        start += rows
        rows_per_chunk = max(1, logit_bytes // (logits_NV.shape[1] * logits_NV.element_size()))
    return torch.cat(logprobs).cpu(), torch.cat(greedy).cpu()


def _score_chunk(logits_NV: Tensor, rows_R: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """The same for logits in memory, which are overwritten where they are ours to overwrite."""
    best_N = logits_NV.argmax(-1)
    max_N = logits_NV.gather(1, best_N[:, None]).squeeze(1)
    target_R = logits_NV[rows_R, targets_R] - max_N[rows_R]
    shifted_NV = logits_NV.sub_(max_N[:, None]) if not logits_NV.requires_grad else logits_NV - max_N[:, None]
    lse_N = shifted_NV.exp_().sum(-1).log_()
    return target_R - lse_N[rows_R], best_N[rows_R] == targets_R
