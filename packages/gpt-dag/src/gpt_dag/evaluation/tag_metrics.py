"""What a predictor gets right below whole expressions, beside what the commonest class of each column would."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.predictor.decode import decode
from gpt_dag.predictor.model import PredictorOnlyModel
from gpt_dag.tags import COLUMNS, IGNORED


@torch.no_grad()
def tag_metrics(model: PredictorOnlyModel, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Of (ids (B, T), tags (B, T, 6)): `{column}_acc` for every column of `tags` and its `baseline/{column}_acc`.

    And of whole examples: `tags_exact`, all tags right; `plan_exact`, the plan that is decoded equals the true one;
    `number_exact`, of the true numbers; `exec_exact`, equal values as fractions; `invalid_rate`. Columns without a
    single target are left out.
    """
    hits, targets = torch.zeros(len(COLUMNS)), torch.zeros(len(COLUMNS))
    counts: list[dict[int, int]] = [{} for _ in COLUMNS]
    whole = {"tags_exact": 0, "plan_exact": 0, "exec_exact": 0, "invalid_rate": 0}
    numbers = right_numbers = examples = 0
    for ids, tags in batches:
        got = model(ids).tags().cpu()
        tags = tags.cpu()
        wanted = tags != IGNORED
        right = (got == tags) & wanted
        hits += right.sum((0, 1))
        targets += wanted.sum((0, 1))
        for column, seen in enumerate(counts):
            for value, n in zip(*tags[..., column][wanted[..., column]].unique(return_counts=True), strict=True):
                seen[int(value)] = seen.get(int(value), 0) + int(n)
        read, truth = decode(got, model.config.max_digits), decode(tags, model.config.max_digits)
        equal = _equal_numbers(read.plans, truth.plans)
        live = torch.arange(truth.plans.scaled.shape[1]) < truth.plans.count[:, None]
        right_numbers += int((equal & live).sum())
        numbers += int(live.sum())
        valid = ~read.invalid
        values = zip(read.plans.fractions(), truth.plans.fractions(), valid.tolist(), strict=True)
        whole["tags_exact"] += int((right == wanted).all(-1).all(-1).sum())
        whole["plan_exact"] += int((_equal_plans(read.plans, truth.plans) & valid).sum())
        whole["exec_exact"] += sum(ok and mine is not None and mine == true for mine, true, ok in values)
        whole["invalid_rate"] += int(read.invalid.sum())
        examples += len(ids)
    metrics = {}
    for column, name in enumerate(COLUMNS):
        if targets[column]:
            metrics[f"{name}_acc"] = float(hits[column] / targets[column])
            metrics[f"baseline/{name}_acc"] = max(counts[column].values()) / float(targets[column])
    metrics["number_exact"] = right_numbers / max(1, numbers)
    return metrics | {name: n / max(1, examples) for name, n in whole.items()}


def _equal_numbers(mine: Plans, true: Plans) -> Tensor:
    """(B, N of `true`) bool: the same written value at the same place."""
    equal = torch.zeros(true.scaled.shape, dtype=torch.bool)
    N = min(mine.scaled.shape[1], true.scaled.shape[1])
    fields = ((mine.scaled, true.scaled), (mine.decimals, true.decimals), (mine.negative, true.negative))
    equal[:, :N] = torch.stack([a[:, :N] == b[:, :N] for a, b in fields]).all(0)
    return equal & (torch.arange(true.scaled.shape[1]) < mine.count[:, None])


def _equal_plans(mine: Plans, true: Plans) -> Tensor:
    """(B,) bool: the same numbers, operators and tree."""
    pairs = zip(mine.expressions(), true.expressions(), strict=True)
    return torch.tensor([a == b for a, b in pairs], dtype=torch.bool)
