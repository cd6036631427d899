"""Values from a pretrained predictor: it reads an expression, the plan is executed, and from the "=" on the GPT knows.

Dimensions: B batch, T tokens, S spans, L tokens of a span, M nodes of a span, D model width.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from gpt_core.models import GPTConfig
from gpt_core.models.block import BLOCKS
from gpt_dag.decimal_text import decimal_text
from gpt_dag.executor import Execution
from gpt_dag.executor_domains import LIMIT
from gpt_dag.predictor.decode import decode
from gpt_dag.predictor.model import PredictorOnlyModel, TagLogits
from gpt_dag.tags import NEGATIVE, OPERATOR, PERCENT, PLACE, ROLE, VALUE, Role
from gpt_dag.tokens import WordTokenizer

from .read_out import BLANK, ReadOut, characters_of
from .spans import find_spans
from .trace import PlanValues
from .value_embedding import ValueEmbedding


class SpanValues(NamedTuple):
    """What S spans are worth."""

    nodes: Execution
    """(S, M) float64."""
    exact: list[Fraction | None]
    """Results; None: the span is no expression to the predictor, or divides by zero."""
    confidence: Tensor | None
    """(S,) in (0, 1]: geometric mean of the probabilities of the tags that made the plan; None: frozen."""


class PlanSource(nn.Module):
    """What a position is told: Block(φ(v) + what the read-out head takes from the decimals of v).

    The predictor sees only the tokens before an "=", and its value reaches only positions from that "=" on: causal by
    construction. A span that it cannot read, or that divides by zero, has no value: there the GPT is on its own.
    A plan is a hard choice. Where the predictor is not frozen, what is told is multiplied by its confidence, forward by
    exactly 1 and backward as it stands: tags become likelier where their value lowers the language-model loss.
    """

    def __init__(self, config: GPTConfig, predictor: PredictorOnlyModel, decimals: int, freeze: bool):
        super().__init__()
        if predictor.config.vocab_size != config.vocab_size or config.vocab_size != WordTokenizer.vocab_size:
            raise ValueError(
                f"the GPT knows {config.vocab_size} tokens, the predictor {predictor.config.vocab_size}: both must be "
                f"trained on the {WordTokenizer.vocab_size} of the word tokenizer"
            )
        self.decimals, self.freeze = decimals, freeze
        self.embed_value = ValueEmbedding(config.n_embd)
        self.read_out = ReadOut(config.n_embd)
        self.block = BLOCKS[config.norm_position](config, 0)
        self.predictor: Any = predictor.requires_grad_(not freeze)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze:
            self.predictor.eval()
        return self

    def forward(self, h_BTD: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor, PlanValues]:
        """What the DAG says (B, T, D), where it says anything (B, T), and the values of all nodes."""
        spans = find_spans(ids_BT, WordTokenizer.equals_id, WordTokenizer.eot_id, WordTokenizer.pad_id)
        values = self.evaluate(spans.ids)
        characters_SL, written_S = characters_of(
            [None if value is None else decimal_text(value, self.decimals) for value in values.exact]
        )
        characters_BTL = _at(spans.which, characters_SL.to(ids_BT.device), BLANK)
        present_BT = _at(spans.which, written_S.to(ids_BT.device), False)
        nodes = values.nodes
        sign, log = _at(spans.which, nodes.sign, 0.0), _at(spans.which, nodes.log, 0.0)
        valid = _at(spans.which, ~nodes.invalid, False) & present_BT[..., None]

        told_BTD = self.embed_value(sign[..., -1], log[..., -1], valid[..., -1])
        told_BTD = told_BTD.to(h_BTD.dtype) + self.read_out(h_BTD, characters_BTL, spans.since)
        if values.confidence is not None:
            sure_BT = _at(spans.which, values.confidence, 1.0)
            told_BTD = told_BTD * (1 + (sure_BT - sure_BT.detach()))[..., None].to(told_BTD.dtype)
        return self.block(told_BTD), present_BT, PlanValues(sign, log, valid)

    def evaluate(self, ids_SL: Tensor) -> SpanValues:
        """Every row of ids, one expression each, read and executed; S may be 0."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            logits = self.predictor(ids_SL)
        prediction = decode(logits.tags(), self.predictor.config.max_digits, ids_SL)
        plans, unreadable = prediction.plans, prediction.invalid.tolist()
        exact = [None if bad else value for bad, value in zip(unreadable, plans.fractions(), strict=True)]
        confidence = None if self.freeze else _confidence(logits)
        return SpanValues(_with_results(self.predictor.execute(plans), exact), exact, confidence)


def _with_results(nodes: Execution, exact: list[Fraction | None]) -> Execution:
    """The last node of every span (S, M) as its exact value says: the executor takes a very small difference for 0."""
    signs = [0 if value is None else (value > 0) - (value < 0) for value in exact]
    logs = [math.log(abs(value.numerator)) - math.log(value.denominator) if value else 0.0 for value in exact]
    put = lambda field, last: torch.cat([field[:, :-1], field.new_tensor(last).view(-1, 1)], 1)
    sign, log = put(nodes.sign, signs), put(nodes.log, logs).clamp(-LIMIT, LIMIT)
    return Execution(sign, log, nodes.overflow, put(nodes.invalid, [value is None for value in exact]))


def _at(which_BT: Tensor, of_spans: Tensor, fill: Any) -> Tensor:
    """(B, T, ...) the entry of the span that each position knows, `fill` where it knows none."""
    none = of_spans.new_full((1, *of_spans.shape[1:]), fill)
    return torch.cat([of_spans, none])[which_BT]  # -1 is the last


def _confidence(logits: TagLogits) -> Tensor:
    """(S,) geometric mean of the probabilities of the likeliest tags, of those that make the plan."""
    role, place = (logits.columns[column].argmax(-1) for column in (ROLE, PLACE))
    number = role == Role.NUMBER_END
    counts = {
        ROLE: torch.ones_like(number),
        PLACE: torch.ones_like(number),
        VALUE: place > 0,
        NEGATIVE: number,
        PERCENT: number,
        OPERATOR: role == Role.OPERATOR_END,
    }
    log_p = torch.stack([logits.columns[c].float().log_softmax(-1).amax(-1) * used for c, used in counts.items()]).sum(
        0
    )
    used = torch.stack(list(counts.values())).sum(0)
    rows, packing = len(logits.packing.live), logits.packing
    total = log_p.new_zeros(rows).index_add(0, packing.row, log_p)
    return (total / log_p.new_zeros(rows).index_add(0, packing.row, used.float()).clamp(min=1)).exp()
