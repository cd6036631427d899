"""One token per number: xVal and FoNE, which read an expression and say its value at the "=".

B rows, T tokens, N places of decimal digits, D model width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt_core.models import gpt

SYMBOLS = ("<pad>", "<number>", "+", "-", "*", "/", "(", ")", "=")
PAD, NUMBER = 0, 1
PARTS = re.compile(r"-?[0-9]+(?:\.[0-9]+)?|[-+*/()]")
"""A minus sign that touches its number belongs to it, as `render` writes."""


@dataclass(frozen=True)
class NumberRows:
    """Expressions with a token per number."""

    ids: Tensor
    """(B, T) places in `SYMBOLS`; every row ends with "=", padding stands before it."""
    values: Tensor
    """(B, T) float64: the value of a number, 0 elsewhere."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> NumberRows:
        """Of expressions in symbols, as `render` writes them."""
        rows = [PARTS.findall(text) for text in texts]
        width = max(map(len, rows), default=0) + 1
        ids, values = (
            torch.zeros(len(rows), width, dtype=torch.int64),
            torch.zeros(len(rows), width, dtype=torch.float64),
        )
        for row, parts in enumerate(rows):
            start = width - 1 - len(parts)
            numbers = [part not in SYMBOLS for part in parts]
            found = [NUMBER if n else SYMBOLS.index(part) for part, n in zip(parts, numbers, strict=True)]
            ids[row, start:] = torch.tensor([*found, SYMBOLS.index("=")])
            said = [float(part) if n else 0.0 for part, n in zip(parts, numbers, strict=True)]
            values[row, start:-1] = torch.tensor(said, dtype=torch.float64)
        return cls(ids, values)


class _NumberGPT(nn.Module):
    """A GPT's blocks over token vectors that `embed` tells of the numbers; causal, so the "=" at the end knows all."""

    def __init__(self, context_length: int, **shape: Any):
        super().__init__()
        self.gpt = gpt(len(SYMBOLS), context_length, **{"preset": "hybrid", **shape})

    def last_hidden(self, rows: NumberRows) -> Tensor:
        """(B, D) at the "="."""
        is_number = rows.ids == NUMBER
        x_BTD = self.embed(self.gpt.embed(rows.ids), rows.values, is_number)
        x_BTD, rotary = self.gpt.position(x_BTD, None)
        for block in self.gpt.blocks:
            x_BTD = block(x_BTD, rotary, None, None)
        return self.gpt.norm(x_BTD)[:, -1]

    def embed(self, x_BTD: Tensor, values_BT: Tensor, is_number_BT: Tensor) -> Tensor:
        raise NotImplementedError


class XVal(_NumberGPT):
    """xVal (Golkar et al. 2023, arXiv:2310.02989): one embedding for all numbers, multiplied by the value; a head with
    one output says a number.

    Inputs are divided by `scale` (the paper maps its data to [−5, 5]). The head says asinh of the answer: answers here
    span twelve orders of magnitude, over which a squared error would see the largest alone.
    """

    def __init__(self, context_length: int, scale: float, **shape: Any):
        super().__init__(context_length, **shape)
        self.scale = scale
        self.head = nn.Linear(self.gpt.config.n_embd, 1)

    def embed(self, x_BTD: Tensor, values_BT: Tensor, is_number_BT: Tensor) -> Tensor:
        size_BT = torch.where(is_number_BT, values_BT / self.scale, 1.0)
        return x_BTD * size_BT[..., None].to(x_BTD.dtype)

    def forward(self, rows: NumberRows) -> Tensor:
        """(B,) asinh of the answers."""
        return self.head(self.last_hidden(rows))[:, 0]

    def loss(self, rows: NumberRows, answers: Sequence[Fraction]) -> Tensor:
        return F.mse_loss(self(rows), torch.tensor([math.asinh(answer) for answer in answers]))

    def answers(self, rows: NumberRows, decimals: int) -> list[Fraction]:
        """Rounded to so many decimals."""
        said = self(rows).double().sinh().tolist()
        return [round(Fraction(value), decimals) for value in said]


class FoNE(_NumberGPT):
    """Fourier number embedding (Zhou et al. 2025, arXiv:2502.09741): a number is cos and sin of 2πx/10^i for every
    place, in the first 2N channels; a digit is read from the two channels of its place.

    Channels 2i, 2i+1 at the end are compared with (cos 2πj/10, sin 2πj/10) for j = 0..9: logits of digit j. Signs, of
    which the paper has none: one more pair of channels, in and out.
    """

    def __init__(self, context_length: int, digits: int, decimals: int, **shape: Any):
        super().__init__(context_length, **shape)
        self.digits, self.decimals = digits, decimals
        if 2 * self.places + 2 > self.gpt.config.n_embd:
            raise ValueError(f"{self.places} places need n_embd of {2 * self.places + 2}, got {self.gpt.config.n_embd}")

    @property
    def places(self) -> int:
        return self.digits + self.decimals

    def features(self, values: Tensor) -> Tensor:
        """(...) -> (..., 2N + 2), from the lowest place up; then the sign."""
        exponents = torch.arange(-self.decimals + 1, self.digits + 1, dtype=torch.float64)
        turns = (values.abs()[..., None] / 10**exponents) % 1
        angles = 2 * math.pi * turns
        waves = torch.stack([angles.cos(), angles.sin()], -1).flatten(-2)
        return torch.cat([waves, torch.stack([values < 0, values >= 0], -1).double()], -1)

    def embed(self, x_BTD: Tensor, values_BT: Tensor, is_number_BT: Tensor) -> Tensor:
        features = self.features(values_BT) * is_number_BT[..., None]
        return x_BTD + F.pad(features, (0, x_BTD.shape[-1] - features.shape[-1])).to(x_BTD.dtype)

    def forward(self, rows: NumberRows) -> tuple[Tensor, Tensor]:
        """Logits of the digits (B, N, 10), from the lowest place up, and of the sign (B, 2): negative, not negative."""
        h_BD = self.last_hidden(rows)
        turns = 2 * math.pi * torch.arange(10) / 10
        wheel = torch.stack([turns.cos(), turns.sin()])
        return h_BD[:, : 2 * self.places].unflatten(-1, (-1, 2)) @ wheel, h_BD[:, 2 * self.places :][:, :2]

    def fits(self, answer: Fraction) -> bool:
        """Whether the places can say this answer."""
        return abs(round(answer * 10**self.decimals)) < 10**self.places

    def loss(self, rows: NumberRows, answers: Sequence[Fraction]) -> Tensor:
        """Of the answers that fit."""
        good = [i for i, answer in enumerate(answers) if self.fits(answer)]
        scaled = [round(answers[i] * 10**self.decimals) for i in good]
        digits = torch.tensor([[abs(s) // 10**place % 10 for place in range(self.places)] for s in scaled])
        logits, sign = (x[good] for x in self(rows))
        signs = torch.tensor([int(s >= 0) for s in scaled])
        return F.cross_entropy(logits.flatten(0, 1), digits.flatten()) + F.cross_entropy(sign, signs)

    def answers(self, rows: NumberRows, decimals: int) -> list[Fraction]:
        """decimals: at most those of the model."""
        logits, sign = self(rows)
        values = []
        for digits, positive in zip(logits.argmax(-1).tolist(), sign.argmax(-1).tolist(), strict=True):
            scaled = sum(digit * 10**place for place, digit in enumerate(digits))
            values.append(round(Fraction(scaled if positive else -scaled, 10**self.decimals), decimals))
        return values
