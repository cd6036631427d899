"""Losses. Each returns sums with their denominators, so that a mean over micro-steps and ranks is exact.

B sequences, T positions, V vocabulary. Targets are token ids; -1 is ignored everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_core.training.text_bytes import TextBytes
from gpt_kernels import linear_cross_entropy_and_lse

IGNORE = -1


class LossSums(NamedTuple):
    """Sums over one micro-batch, as 0-d tensors."""

    objective: Tensor
    """What is differentiated: the loss plus any regularizer, summed."""
    loss: Tensor
    """What is reported, summed."""
    correct: Tensor
    """Hits: tokens, or whole answers, depending on the loss. Zero when accuracy was not asked for."""
    items: Tensor
    """What `correct` is a fraction of."""
    text: Tensor | None = None
    """(2,): nats of the targets that are text, and their bytes. None: not measured, as in training."""

    @classmethod
    def total(cls, parts: Sequence[LossSums]) -> LossSums:
        """The sums of micro-batches that are parts of one."""
        numbers = (torch.stack(each).sum(0) for each in zip(*(part[:4] for part in parts), strict=True))
        texts = [part.text for part in parts if part.text is not None]
        return cls(*numbers, torch.stack(texts).sum(0) if texts else None)

    @property
    def auxiliary(self) -> Tensor:
        """What is differentiated beyond the loss, summed: the z-loss with its weight, or another regularizer."""
        return self.objective.detach() - self.loss


class Loss(Protocol):
    def count(self, targets: Tensor) -> Tensor:
        """Denominator of the mean loss: how many terms `targets` contributes."""
        ...

    def __call__(self, logits: Tensor, targets: Tensor, /, accuracy: bool = False) -> LossSums: ...


@runtime_checkable
class FusedLoss(Loss, Protocol):
    """A loss that can do without all logits at once, and adds up over any split of its rows."""

    def of_hidden(self, x_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, /, *, softcap: float = 0.0) -> LossSums:
        """The sums without accuracy, of the logits softcap · tanh(x Wᵀ / softcap)."""
        ...


class Autoregressive:
    """Cross-entropy of every position's next token, and the z-loss (PaLM, arXiv:2204.02311 §5).

    Of a tokenizer it knows (`use_tokenizer`) it measures text where it measures accuracy.
    z_loss: weight of the mean squared log-partition function, added to what is differentiated, not to what is reported.
    """

    def __init__(self, z_loss: float = 0.0):
        if z_loss < 0:
            raise ValueError(f"z_loss is a weight, 0 (off) or positive, got {z_loss}")
        self.z_loss = z_loss
        self.text: TextBytes | None = None

    def use_tokenizer(self, tokenizer: Any) -> None:
        """What the targets are tokens of."""
        self.text = TextBytes.of(tokenizer)

    def count(self, targets: Tensor) -> Tensor:
        return (targets != IGNORE).sum()

    def __call__(self, logits_BTV: Tensor, targets_BT: Tensor, accuracy: bool = False) -> LossSums:
        logits = logits_BTV.flatten(0, -2)
        targets = targets_BT.flatten()
        nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none" if accuracy else "sum")
        loss = objective = nats.sum()
        if self.z_loss:
            log_z = logits.float().logsumexp(-1)
            objective = loss + self.z_loss * (log_z.square() * (targets != IGNORE)).sum()
        zero = loss.new_zeros(())
        if not accuracy:
            return LossSums(objective, loss.detach(), zero, zero)
        text = None if self.text is None else self.text.measure(nats.detach(), targets)
        return LossSums(objective, loss.detach(), (logits.argmax(-1) == targets).sum(), self.count(targets), text)

    def of_hidden(self, x_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, *, softcap: float = 0.0) -> LossSums:
        objective, log_z_BT = linear_cross_entropy_and_lse(
            x_BTD,
            weight_VD,
            targets_BT,
            softcap=softcap,
            ignore_index=IGNORE,
            z_loss=self.z_loss,
            reduction="sum",
        )
        loss = objective.detach()
        if self.z_loss:
            loss = loss - self.z_loss * log_z_BT.masked_fill(targets_BT == IGNORE, 0).square().sum()
        zero = loss.new_zeros(())
        return LossSums(objective, loss, zero, zero)


class Grokking:
    """Cross-entropy of the last position only (Power et al. 2022, arXiv:2201.02177); targets are (B,) or (B, T)."""

    def count(self, targets: Tensor) -> Tensor:
        return (self._labels(targets) != IGNORE).sum()

    @staticmethod
    def _labels(targets: Tensor) -> Tensor:
        """(B,)"""
        return targets if targets.dim() == 1 else targets[:, -1]

    def __call__(self, logits_BTV: Tensor, targets: Tensor, accuracy: bool = False) -> LossSums:
        logits_BV = logits_BTV[:, -1]
        targets_B = self._labels(targets)
        loss = F.cross_entropy(logits_BV, targets_B, ignore_index=IGNORE, reduction="sum")
        hits = (logits_BV.argmax(-1) == targets_B).sum() if accuracy else loss.new_zeros(())
        return LossSums(loss, loss.detach(), hits, self.count(targets))


class Arithmetic:
    """Cross-entropy of the answers in packed `question=answer|` documents; a document is right when every digit is.

    A position counts if an `eq` came before it without a closing `eos`, and it is none of `eq`, `eos`, `pad`.
    """

    def __init__(self, eq: int = 13, eos: int = 12, pad: int = 11):
        self.eq, self.eos, self.pad = eq, eos, pad

    def answer_mask(self, targets_BT: Tensor) -> Tensor:
        """(B, T) bool: the digits between `=` and `|`."""
        opened, closed = ((targets_BT == token).cumsum(-1) for token in (self.eq, self.eos))
        special = torch.tensor([self.eq, self.eos, self.pad, IGNORE], device=targets_BT.device)
        return (opened > closed) & ~torch.isin(targets_BT, special)

    def count(self, targets_BT: Tensor) -> Tensor:
        return self.answer_mask(targets_BT).sum()

    def __call__(self, logits_BTV: Tensor, targets_BT: Tensor, accuracy: bool = False) -> LossSums:
        mask = self.answer_mask(targets_BT)
        loss = F.cross_entropy(logits_BTV[mask], targets_BT[mask], reduction="sum")
        zero = loss.new_zeros(())
        if not accuracy:
            return LossSums(loss, loss.detach(), zero, zero)
        rows = torch.arange(targets_BT.shape[0], device=targets_BT.device)[:, None] * (targets_BT.shape[1] + 1)
        document = (rows + (targets_BT == self.eos).cumsum(-1))[mask]  # one number per answer
        wrong = document[logits_BTV[mask].argmax(-1) != targets_BT[mask]]
        documents, failed = document.unique().numel(), wrong.unique().numel()
        return LossSums(loss, loss.detach(), zero + (documents - failed), zero + documents)


def autoregressive(z_loss: float = 0.0) -> Autoregressive:
    """Next-token cross-entropy."""
    return Autoregressive(z_loss)


def grokking() -> Grokking:
    """Last position only."""
    return Grokking()


def arithmetic(eq: int = 13, eos: int = 12, pad: int = 11) -> Arithmetic:
    """Answers of packed arithmetic documents."""
    return Arithmetic(eq, eos, pad)
