"""Scores many (context, continuation) pairs with one network: shared beginnings once, logits only where they are read.

Dimensions: B groups of a batch, P tokens shared by a run, T stem tokens after those, L branch nodes, D width, N places
that are read, R reads.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpt_eval.errors import EvaluationError
from gpt_eval.model import Scored

from .network import Network, Sight, padded
from .prefix_tree import Group, Ints, Request, Run, plan
from .span_scores import span_scores

LOGIT_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
"""Float32 logits held at a time, by type of device."""
MASK_ELEMENTS = 1 << 26
"""Of a batch's mask."""


@torch.inference_mode()
def score(
    network: Network,
    requests: Sequence[Request],
    *,
    max_length: int,
    batch_tokens: int,
    logit_bytes: int | None = None,
) -> list[Scored]:
    """One `Scored` per request, in their order.

    batch_tokens: tokens fed at a time; less where memory runs out on the way.
    logit_bytes: float32 logits held at a time; None chooses by device.

    Raises ValueError for an empty context or continuation, more than `max_length` tokens fed, or ids that the model
    does not have; EvaluationError where the model's output is not a number.
    """
    check_requests(requests, max_length=max_length, vocab_size=network.vocab_size)
    if not requests:
        return []
    logit_bytes = logit_bytes or LOGIT_BYTES.get(network.device.type, LOGIT_BYTES["cuda"])
    total = sum(len(cont) for _, cont in requests)
    logprobs, greedy = np.empty(total, dtype=np.float32), np.empty(total, dtype=bool)
    if network.holds_logits:
        batch_tokens = max(1, min(batch_tokens, 8 * logit_bytes // (4 * network.vocab_size)))
    for run in plan(requests, share=network.can_branch):
        shared = _encode_shared(network, run)
        waiting = list(_batches(run, batch_tokens))
        while waiting:
            batch = waiting.pop()
            try:
                reads = _score_batch(network, run.shared, shared, batch, logit_bytes)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                waiting += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                continue
            slots = np.concatenate([group.slots for group in batch])
            logprobs[slots], greedy[slots] = reads
    if not np.isfinite(logprobs).all():
        bad = "NaN" if np.isnan(logprobs).any() else "infinite"
        raise EvaluationError(
            f"the model gives {bad} log-probabilities; a score from them would be none: look at the checkpoint's "
            "weights, or try a wider dtype (float32)"
        )
    ends = np.cumsum([len(cont) for _, cont in requests])
    return [Scored(*pair) for pair in zip(np.split(logprobs, ends[:-1]), np.split(greedy, ends[:-1]), strict=True)]


def check_requests(requests: Sequence[Request], *, max_length: int, vocab_size: int) -> None:
    """ValueError that names the first request which cannot be scored."""
    for i, (ctx, cont) in enumerate(requests):
        if not len(ctx) or not len(cont):
            which = "continuation" if len(ctx) else "context"
            raise ValueError(f"request {i} has an empty {which}; the first token needs one before it to be scored")
        if len(ctx) + len(cont) - 1 > max_length:
            raise ValueError(
                f"request {i} feeds {len(ctx)} + {len(cont)} - 1 tokens, the model takes {max_length}; "
                "cut the beginning of the context"
            )
        low, high = min(min(ctx), min(cont)), max(max(ctx), max(cont))
        if not 0 <= low <= high < vocab_size:
            raise ValueError(
                f"request {i} has token ids {low}..{high}, the model 0..{vocab_size - 1}: another model's tokenizer?"
            )


def _encode_shared(network: Network, run: Run) -> Any:
    """A cache of one row with the run's common tokens; None where there are none."""
    if not run.shared:
        return None
    cache = network.new_cache()
    network.append(cache, padded([run.groups[0].stem[: run.shared]], network.device), None)
    return cache


def _batches(run: Run, batch_tokens: int) -> Iterator[list[Group]]:
    """Groups of similar size, shortest first (they are popped from the end): stems, branches and masks in bounds.

    Those without a branch come apart from the others: they need no cache and no mask.
    """
    by_size = sorted(run.groups, key=lambda group: (len(group.branch) > 0, len(group.stem), len(group.branch)))
    batch: list[Group] = []
    branch = 0
    for group in by_size:
        stem = len(group.stem) - run.shared  # the longest so far
        branch = max(branch, len(group.branch))
        rows = len(batch) + 1
        too_many = rows * max(stem, branch) > batch_tokens
        too_wide = rows * branch * (len(group.stem) + branch) > MASK_ELEMENTS
        if batch and (too_many or too_wide or bool(len(group.branch)) != bool(len(batch[0].branch))):
            yield batch
            batch, branch = [], len(group.branch)
        batch.append(group)
    if batch:
        yield batch


def _score_batch(
    network: Network, P: int, shared: Any, batch: Sequence[Group], logit_bytes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Log-probability and greedy flag of every read of the batch, group by group."""
    stems_BT = padded([group.stem[P:] for group in batch], network.device)
    B, T = stems_BT.shape
    L = max(len(group.branch) for group in batch)
    if shared is None and not L:
        x_BTD = network.hidden(stems_BT)
    else:
        cache = network.new_cache() if shared is None else network.select(shared, [0] * B)
        x_BTD = network.append(cache, stems_BT, None)
    parts = [x_BTD.flatten(0, 1)]
    if L:
        branches_BL = padded([group.branch for group in batch], network.device)
        parts.append(network.append(cache, branches_BL, _sight(batch, P + T, L, network.device)).flatten(0, 1))
    rows_R, inverse = np.unique(_rows(batch, P, T, L), return_inverse=True)
    rows_N = torch.from_numpy(rows_R).to(network.device)
    split = int(np.searchsorted(rows_R, B * T))
    x_ND = (
        parts[0][rows_N[:split]] if not L else torch.cat([parts[0][rows_N[:split]], parts[1][rows_N[split:] - B * T]])
    )
    del parts, x_BTD
    order = np.argsort(inverse, kind="stable")
    targets = np.concatenate([group.targets for group in batch])[order]
    reads = span_scores(
        x_ND,
        network.head,
        torch.from_numpy(inverse[order]).to(network.device),
        torch.from_numpy(targets).to(network.device),
        logit_bytes=logit_bytes,
    )
    logprobs, greedy = np.empty(len(order), dtype=np.float32), np.empty(len(order), dtype=bool)
    logprobs[order], greedy[order] = (x.numpy() for x in reads)
    return logprobs, greedy


def _rows(batch: Sequence[Group], P: int, T: int, L: int) -> Ints:
    """(R,) of every read: its row among the B·T stem tokens, followed by the B·L branch nodes."""
    rows = []
    for b, group in enumerate(batch):
        stem = len(group.stem)
        in_branch = len(batch) * T + b * L + group.places - stem
        rows.append(np.where(group.places < stem, b * T + group.places - P, in_branch))
    return np.concatenate(rows)


def _sight(batch: Sequence[Group], before: int, L: int, device: torch.device) -> Sight:
    """What branch nodes see: their own stem without its padding, their ancestors, themselves. Padding sees itself."""
    B = len(batch)
    seen = np.zeros((B, L, before + L), dtype=bool)
    seen[:, np.arange(L), before + np.arange(L)] = True
    positions = np.zeros((B, L), dtype=np.int64)
    for b, group in enumerate(batch):
        n = len(group.branch)
        seen[b, :n, : len(group.stem)] = True
        seen[b, :n, before : before + n] = group.sight()
        positions[b, :n] = len(group.stem) + group.depths()
    stem_positions = np.broadcast_to(np.arange(before), (B, before))
    slots = np.concatenate([stem_positions, positions], axis=1)
    return Sight(*(torch.from_numpy(x).to(device) for x in (positions, seen, slots)))
