"""The speedrun's loss: a sum over tokens, in training of several next tokens, with products in float8 on request.

Dimensions: B rows, T tokens, D width, V vocabulary, K next tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import gpt_kernels
from gpt_core.training.losses import IGNORE, LossSums
from gpt_core.training.text_bytes import TextBytes
from gpt_kernels import SigmoidCap, cross_entropy, fp8_linear_cross_entropy, linear_cross_entropy_and_lse

from .fp8 import check_fp8
from .prefixes import table_of

Cap = SigmoidCap | float


class SpeedrunLoss:
    """Σ_k w_k · CE(z_r, target of token r + k), summed over the tokens r of a row; targets beyond its end do not count.

    With prefix the last weight is that of one more target: the prefix token of the next token (`prefixes`), for tokens
    that have one; the tokenizer comes with `use_tokenizer`.

    Gradients are of the sum over a micro-batch's tokens, averaged over the micro-batches of the step (`divisor`), where
    other losses have the mean per token: with more tokens they are larger, as in the records.
    Reported, and judged in evaluation, is the ordinary loss of the next token; with the float8 head the weighted sum.
    """

    def __init__(self, weights: Sequence[float] = (1.0,), fp8: bool = False, prefix: bool = False):
        if fp8:
            check_fp8()
        self.fp8, self.prefix = fp8, prefix
        self.prefixes: Tensor | None = None
        self.text: TextBytes | None = None
        self.set_weights(weights)

    def set_weights(self, weights: Sequence[float]) -> None:
        """w_k of the next tokens; the number of them is a constant of a compiled model, their values are not."""
        if not weights or any(not weight >= 0 for weight in weights) or not weights[0] > 0:
            raise ValueError(f"weights of the next tokens are numbers from 0 on, the first positive, got {weights}")
        if self.prefix and len(weights) < 2:
            raise ValueError(f"with prefix the last of at least two weights is that of the prefix token, got {weights}")
        self.weights = torch.tensor(list(weights), dtype=torch.float32)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """What the targets are tokens of. ValueError if it cannot tell prefixes and they are asked for."""
        self.text = TextBytes.of(tokenizer)
        if self.prefix:
            self.prefixes = table_of(tokenizer)

    def count(self, targets: Tensor) -> Tensor:
        """Denominator of what is reported: targets."""
        return (targets != IGNORE).sum()

    def divisor(self, targets: Tensor) -> Tensor:
        """Denominator of the gradient: 1 for every micro-batch."""
        return targets.new_ones(())

    def __call__(self, logits_BTV: Tensor, targets_BT: Tensor, accuracy: bool = False) -> LossSums:
        """accuracy means evaluation: the next token alone. logits are capped."""
        reduction = "none" if accuracy else "sum"
        nats = cross_entropy(logits_BTV, targets_BT, ignore_index=IGNORE, reduction=reduction)
        next_token = nats.sum()
        if accuracy:
            right = (logits_BTV.argmax(-1) == targets_BT).sum()
            text = None if self.text is None else self.text.measure(nats.detach(), targets_BT)
            return LossSums(next_token, next_token.detach(), right, self.count(targets_BT), text)
        zero = next_token.new_zeros(())
        objective = cross_entropy(logits_BTV, targets_BT, **self._options(targets_BT))
        return LossSums(objective, next_token.detach(), zero, zero)

    def of_hidden(self, x_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, *, softcap: Cap = 0.0) -> LossSums:
        options: dict[str, Any] = {**self._options(targets_BT), "softcap": softcap}
        if self.fp8:
            objective = fp8_linear_cross_entropy(x_BTD, weight_VD, targets_BT, **options)
            zero = objective.new_zeros(())
            return LossSums(objective, objective.detach(), zero, zero)
        objective, lse_BT = linear_cross_entropy_and_lse(x_BTD, weight_VD, targets_BT, **options)
        zero = objective.new_zeros(())
        return LossSums(objective, _next_token(x_BTD, weight_VD, targets_BT, lse_BT, softcap), zero, zero)

    def _options(self, targets_BT: Tensor) -> dict[str, Any]:
        options: dict[str, Any] = {"target_weights": self.weights, "ignore_index": IGNORE, "reduction": "sum"}
        return {**options, "extra_targets": self._prefix_targets(targets_BT)} if self.prefix else options

    def _prefix_targets(self, targets_BT: Tensor) -> Tensor:
        if self.prefixes is None:
            raise ValueError("prefix tokens are those of a tokenizer: call use_tokenizer first")
        if self.prefixes.device != targets_BT.device:
            self.prefixes = self.prefixes.to(targets_BT.device)
        return self.prefixes[targets_BT.clamp(min=0)].masked_fill(targets_BT == IGNORE, IGNORE)


@torch.no_grad()
def _next_token(x_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, lse_BT: Tensor, cap: Cap) -> Tensor:
    """Σ (LSE − z[target]): the loss without the tokens further on, from one column of logits per token."""
    column_BTD = weight_VD[targets_BT.clamp(min=0)].to(x_BTD.dtype)
    z_BT = gpt_kernels.softcap((x_BTD * column_BTD).sum(-1), cap)
    return (lse_BT - z_BT).masked_fill(targets_BT == IGNORE, 0).sum()


def speedrun_loss(weights: Sequence[float] = (1.0,), fp8: bool = False, prefix: bool = False) -> SpeedrunLoss:
    """Softcapped cross-entropy of the next tokens, summed.

    weights: of the next token, the one after it, …; stages may change them. fp8: the head's products in float8.
    prefix: the last weight is that of the next token's prefix token.
    """
    return SpeedrunLoss(weights, fp8, prefix)
