"""Everything that is known of examples, by name: the four tensors of nanoGPT-DAG and what else a head may learn."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt_dag.digits import to_digits
from gpt_dag.stream.checks import bounded_values
from gpt_dag.stream.layout import OPERATOR_PART, PARTS, PERCENT_PART
from gpt_dag.stream.sample import Sample


def targets(examples: Sample) -> dict[str, Tensor]:
    """B examples of N numbers and D operators at most.

    As nanoGPT-DAG has them, operators in reading order, padding with the number 1 and identity (`Plans.slots`):

    | name | shape | what |
    |---|---|---|
    | `initial_sgn` | (B, N) float64 | -1, 0 or 1 |
    | `initial_log` | (B, N) float64 | ln of the magnitude, percent included; 0 where the sign is 0 |
    | `operation_probs` | (B, D, 5) float64 | one-hot: + - * / identity |
    | `depths` | (B,) int64 | operators of each example |

    Exactly, where `live`; 0 or -1 elsewhere:

    | name | shape | what |
    |---|---|---|
    | `live` | (B, N) bool | which numbers there are |
    | `zero` | (B, N) bool | which of them are 0 |
    | `percent` | (B, N) bool | which are written as percentages |
    | `digits` | (B, N, max_digits + max_decimals) int64 | as written, highest place first |
    | `operator` | (B, D) int64 | class in the order of evaluation; -1: not used |
    | `left`, `right` | (B, D) int64 | nodes, as in `Plans` |
    | `number_end` | (B, N) int64 | token that ends each number; -1: none |
    | `operator_end` | (B, D) int64 | token that ends each operator, in reading order; -1: none |
    | `value` | (B,) float64 | the result; take `plans.fractions()` for the exact one |
    """
    plans, law = examples.plans, examples.law
    sign, log, operation = plans.slots()
    N = plans.scaled.shape[1]
    live = torch.arange(N, device=plans.device) < plans.count[:, None]
    written = plans.decimals - 2 * examples.percent.long()
    ends = examples.parts.ends.view(len(examples), N, PARTS) - 1
    joined = live[:, 1:]  # numbers that an operator stands before
    return {
        "initial_sgn": sign,
        "initial_log": log,
        "operation_probs": operation,
        "depths": plans.steps,
        "live": live,
        "zero": live & (plans.scaled == 0),
        "percent": examples.percent,
        "digits": to_digits(plans.scaled, written, law.max_digits, law.max_decimals),
        "operator": plans.operator,
        "left": plans.left,
        "right": plans.right,
        "number_end": ends[..., PERCENT_PART].masked_fill(~live, -1),
        "operator_end": ends[:, :-1, OPERATOR_PART].masked_fill(~joined, -1),
        "value": bounded_values(plans)[0][:, -1],
    }
