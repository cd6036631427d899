"""What the scoring and generating loops ask of a causal language model, in tensors.

Dimensions: B rows, T tokens fed, S slots held (T included), D width of the vectors (or V where the head is not known),
N places, V vocabulary.
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt_eval.errors import EvaluationError


@dataclass(frozen=True)
class Sight:
    """Where fed tokens stand and what they see, where that is not simply everything before them."""

    positions_BT: Tensor
    """Of the fed tokens, int64."""
    seen_BTS: Tensor
    """bool; every token sees at least itself. Sliding windows are the network's own affair."""
    slot_positions_BS: Tensor
    """Of all tokens held, the fed ones included."""

    def windowed(self, window: int | None) -> Tensor:
        """(B, T, S) what a layer sees that looks at the last `window` tokens only."""
        if window is None:
            return self.seen_BTS
        return self.seen_BTS & (self.slot_positions_BS[:, None] > self.positions_BT[:, :, None] - window)


class Network(Protocol):
    """A causal model: right padding never reaches what stands before it."""

    device: torch.device
    vocab_size: int
    can_branch: bool
    """Whether `append` works, i.e. the model has a cache and takes masks and positions (proved by a probe)."""
    holds_logits: bool
    """Whether `hidden` already is the logits (B, T, V), so that batches must be small."""

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """(B, T, D) of plain texts."""
        ...

    def head(self, x_ND: Tensor) -> Tensor:
        """(N, D) to logits (N, V)."""
        ...

    def new_cache(self) -> Any: ...

    def append(self, cache: Any, ids_BT: Tensor, sight: Sight | None) -> Tensor:
        """(B, T, D) of tokens that follow those in the cache, which then holds them too; None: causal."""
        ...

    def select(self, cache: Any, rows: Sequence[int]) -> Any:
        """A new cache of these rows; a row may occur several times or not at all. The old one stays as it is."""
        ...


@contextlib.contextmanager
def evaluating(model: Any) -> Generator[None]:
    """Eval mode for a while; afterwards the model is as it was (a training hook lends its model)."""
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def padded(rows: Sequence[Sequence[int] | npt.NDArray[np.int64]], device: torch.device) -> Tensor:
    """(B, T) token ids, each row filled up on the right with its own last token, which nothing before it sees."""
    ids_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for b, row in enumerate(rows):
        if len(row):
            ids_BT[b, : len(row)] = row
            ids_BT[b, len(row) :] = row[-1]
    return torch.from_numpy(ids_BT).to(device)


@torch.inference_mode()
def check_causal(network: Network, context: int) -> None:
    """EvaluationError for a model that sees what comes after a token (BERT without is_decoder): it predicts nothing."""
    if context < 3:
        return
    stem = [i * network.vocab_size // 9 for i in (1, 7, 3, 5)][: context - 2]
    x_BTD = network.hidden(
        padded([[*stem, 0, 0], [*stem, network.vocab_size - 1, network.vocab_size // 2]], network.device)
    )
    one, other = x_BTD[:, : len(stem)].float()
    tolerance = 1e-3 if x_BTD.dtype.itemsize >= 4 else 3e-2
    if (one - other).abs().max() > tolerance * one.abs().max():
        raise EvaluationError(
            "the model sees the tokens after the one that it predicts, so its probabilities are none: not a causal "
            "language model, or one that is only one by its configuration (is_decoder=True)"
        )


@torch.inference_mode()
def branches_exactly(network: Network, context: int) -> bool:
    """Whether cache, masks and positions give what whole texts give: tried on a small forked text.

    Models differ in what they do with a mask of one's own (some ignore it, some refuse it); no list of names could
    keep up. context: tokens that the model takes.
    """
    vocab = network.vocab_size
    if context < 8:
        return False
    stem, first, second = [i * vocab // 9 for i in (1, 7, 3, 5)], [vocab // 4, vocab // 2], [vocab // 3, vocab // 5]
    whole = network.hidden(padded([stem + first, stem + second], network.device))
    forks = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    seen = torch.tensor([[[1, 1, 1, 1, 0, *fork] for fork in forks]])
    positions = torch.tensor([[4, 5, 4, 5]])
    slots = torch.tensor([[0, 1, 2, 3, 4, 4, 5, 4, 5]])
    sight = Sight(*(x.to(network.device) for x in (positions, seen.bool(), slots)))
    try:
        cache = network.new_cache()
        network.append(cache, padded([stem[:1]], network.device), None)
        cache = network.select(cache, [0])
        network.append(cache, padded([[*stem[1:], stem[0]]], network.device), None)  # with one token of padding
        forked = network.append(cache, padded([first + second], network.device), sight)
    except Exception:  # whatever a foreign model raises for a mask it does not expect
        return False
    expected = torch.cat([whole[0, 4:], whole[1, 4:]])
    scale = expected.float().abs().max()
    tolerance = 1e-4 if forked.dtype.itemsize >= 4 else 3e-2
    return bool((forked[0].float() - expected.float()).abs().max() <= tolerance * scale)
