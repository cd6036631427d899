"""Text to answer with a trained predictor: what it read, the exact value, or why there is none and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from gpt_dag.expression import DivisionByZero, Expression, node_values
from gpt_dag.parse import ParseError
from gpt_dag.plans import Plans
from gpt_dag.predictor.decode import Prediction, decode
from gpt_dag.predictor.model import PredictorOnlyModel
from gpt_dag.tags import ROLE, Role
from gpt_dag.tokens import WordTokenizer

BATCH_TOKENS = 16384
"""Padded tokens of one forward pass."""
LONGEST = 4096
"""Tokens of one text."""


@dataclass(frozen=True)
class Reading:
    """What the network makes of one text; either `values` or `problem` is there."""

    text: str
    expression: Expression | None = None
    """Also where it divides by zero."""
    spans: tuple[tuple[int, int], ...] = ()
    """Characters of each number of `expression`."""
    values: tuple[Fraction, ...] = ()
    """Exact value of every node."""
    problem: str | None = None
    position: int | None = None
    """Character that the problem is at."""

    @property
    def answer(self) -> Fraction | None:
        return self.values[-1] if self.values else None


def read(model: PredictorOnlyModel, tokenizer: WordTokenizer, texts: Sequence[str]) -> list[Reading]:
    """Read each text; what cannot be read is a Reading with its problem, never an exception and never a guess."""
    readings: dict[int, Reading] = {}
    encoded: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
    for i, text in enumerate(texts):
        try:
            ids, offsets = tokenizer.encode_with_offsets(text)
        except ParseError as error:
            readings[i] = Reading(text, problem=error.problem, position=error.position)
            continue
        if not ids:
            readings[i] = Reading(text, problem="there is no expression", position=0)
        elif tokenizer.equals_id in ids:  # a token of the vocabulary that no expression has
            position = offsets[ids.index(tokenizer.equals_id)][0]
            readings[i] = Reading(text, problem="an expression has no '='", position=position)
        elif len(ids) > LONGEST:
            problem = f"the text has {len(ids)} tokens, more than {LONGEST}"
            readings[i] = Reading(text, problem=problem, position=offsets[LONGEST][0])
        else:
            encoded[i] = ids, offsets
    for group in _groups({i: len(ids) for i, (ids, _) in encoded.items()}):
        tags, prediction = _predict(model, [encoded[i][0] for i in group])
        for row, i in enumerate(group):
            readings[i] = _reading(texts[i], prediction, row, tags[row], encoded[i][1])
    return [readings[i] for i in range(len(texts))]


def _groups(lengths: dict[int, int]) -> Iterator[list[int]]:
    """Texts of similar length together."""
    group: list[int] = []
    for i in sorted(lengths, key=lambda i: lengths[i]):
        if group and (len(group) + 1) * lengths[i] > BATCH_TOKENS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


@torch.no_grad()
def _predict(model: PredictorOnlyModel, rows: list[list[int]]) -> tuple[Tensor, Prediction]:
    """Tags (B, T, 6) and what they make, on the CPU."""
    width = max(map(len, rows))
    device = next(model.parameters()).device
    ids = torch.tensor([row + [model.pad_id] * (width - len(row)) for row in rows], device=device)
    was_training = model.training
    tags = model.eval()(ids).tags().cpu()
    model.train(was_training)
    return tags, decode(tags, model.config.max_digits, ids.cpu())


def _reading(text: str, read: Prediction, row: int, tags: Tensor, offsets: list[tuple[int, int]]) -> Reading:
    complaint = read.complaint(row)
    if complaint is not None:
        return Reading(text, problem=complaint, position=offsets[min(int(read.token[row]), len(offsets) - 1)][0])
    roles = tags[: len(offsets), ROLE].tolist()
    expression = _placed(_one(read.plans, row), [offsets[t][0] for t, r in enumerate(roles) if r == Role.OPERATOR_END])
    spans = tuple(_number_spans(roles, offsets))
    try:
        return Reading(text, expression, spans, tuple(node_values(expression)))
    except DivisionByZero as error:
        return Reading(text, expression, spans, problem="division by zero", position=error.position)


def _one(plans: Plans, row: int) -> Expression:
    return plans[row : row + 1].expressions()[0]


def _placed(expression: Expression, operators: list[int]) -> Expression:
    """The same with the position of every operator, given in reading order: each stands after its left operand."""
    last = list(range(len(expression.numbers)))  # number that each node ends with
    steps = []
    for step in expression.steps:
        steps.append(replace(step, position=operators[last[step.left]]))
        last.append(last[step.right])
    return Expression(expression.numbers, tuple(steps))


def _number_spans(roles: list[int], offsets: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Characters of each number: from what stands before it to its end."""
    start = 0  # token
    for token, role in enumerate(roles):
        if role == Role.NUMBER_END:
            yield offsets[start][0], offsets[token][1]
        if role != Role.NONE:
            start = token + 1
