"""The generation loop: prompts in, tokens out, one step at a time.

What happens when a sequence outgrows the model's context of S tokens is the caller's choice:

    crop    (default) the model sees the last S tokens. Their positions all change, so everything is encoded
            anew at every step: exactly nanoGPT's semantics, and slow. A prompt of over S tokens is cropped too.
    stop    generation ends, with reason "context", when the next token would have to be predicted from more
            than S tokens. Nothing is generated for a prompt of over S tokens.
    slide   the cache slides on. Only for models that have no learned positions and a window in every layer:
            what such a layer computes does not depend on how far the text has come. Fast without end.

Learned positions cannot slide: there is no vector for position S.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .decoder import Cached, Decoder, Recompute, config_of
from .sampling import Sampling, sample

Overflow = Literal["crop", "stop", "slide"]
Reason = Literal["stop_token", "stop_text", "length", "context"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What happened to one row: a new token, or its end, or both."""

    row: int
    token: int | None
    """None when the row ends without another token (a stop token, or the context is full)."""
    reason: Reason | None = None
    """Why the row ended; None while it goes on."""
    stop_id: int | None = None
    """Which stop token, for reason "stop_token"."""


@dataclass(frozen=True)
class Completion:
    """What was generated for one row, without its prompt and without the stop token."""

    ids: list[int]
    reason: Reason
    stop_id: int | None = None


def stream(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    sampling: Sampling | None = None,
    seed: int | None = None,
    num_samples: int = 1,
    stop_ids: Collection[int] = (),
    stop_when: Callable[[int, int], bool] | None = None,
    vocab_size: int | None = None,
    cache: bool = True,
    overflow: Overflow = "crop",
    notify: Callable[[str], None] = _log.warning,
) -> Iterator[Step]:
    """Generate for all prompts together, yielding a `Step` per row and token as soon as it exists.

    Args:
        model: a model with gpt_core's forward and `.config`; used in eval mode, then put back as it was.
        prompts: token ids, one list per prompt, of any lengths from 1.
        max_new_tokens: at most so many for every prompt, or one number per prompt.
        sampling: how tokens are drawn; None draws from the model's own distribution.
        seed: of the sampling; None draws from torch's default generator of the device.
        num_samples: rows per prompt; prompt i has rows i·num_samples … (i+1)·num_samples − 1. Equal prompts
            are encoded once.
        stop_ids: tokens that end a row, and are not part of what it generated.
        stop_when: called as stop_when(row, token) after each token; True ends the row ("stop_text").
        vocab_size: tokens from this id on are never generated (a vocabulary padded for speed).
        cache: False recomputes everything at each step: slow, the definition of what cache=True returns.
        overflow: "crop", "stop" or "slide", see the top of this file.
        notify: told once, in a sentence, when something makes generation slow: the context is full, or the
            model has no cache.

    Raises ValueError at once for prompts or settings that make no sense.
    """
    budgets = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    _check(config_of(model).vocab_size, prompts, budgets, num_samples, overflow)
    # The last token is never fed back: it takes no place in the context.
    longest = max(len(prompt) + budget - 1 for prompt, budget in zip(prompts, budgets, strict=True))
    if overflow == "slide":
        model = with_context(model, longest)
    if cache and not getattr(model, "supports_cache", False):
        notify(f"{type(model).__name__} has no key/value cache: every step encodes the whole text again")
        cache = False
    config = config_of(model)
    device = next(model.parameters()).device
    sequences = [list(prompt) for prompt in prompts for _ in range(num_samples)]
    context = config.context_length
    decoder = Cached(model, min(longest, context)) if cache else Recompute(model, context)
    return _steps(
        model,
        _Batch(decoder, sequences, sampling or Sampling(), seed, vocab_size or config.vocab_size, device),
        [budget for budget in budgets for _ in range(num_samples)],
        stop_ids=frozenset(stop_ids),
        stop_when=stop_when or (lambda row, token: False),
        crop=overflow == "crop",
        notify=notify,
    )


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    num_samples: int = 1,
    **settings: Any,
) -> list[Completion]:
    """One `Completion` per prompt and sample, in the order of the rows. Arguments: see `stream`."""
    rows = len(prompts) * num_samples
    ids: list[list[int]] = [[] for _ in range(rows)]
    ends: dict[int, Completion] = {}
    for step in stream(model, prompts, max_new_tokens, num_samples=num_samples, **settings):
        if step.token is not None:
            ids[step.row].append(step.token)
        if step.reason is not None:
            ends[step.row] = Completion(ids[step.row], step.reason, step.stop_id)
    return [ends[row] for row in range(rows)]


def with_context(model: nn.Module, length: int) -> nn.Module:
    """The same model, sharing its weights, for texts of `length` tokens; for models where that means something.

    It does when positions are rotary or absent and every layer has a window: a token then depends on a
    bounded number of tokens before it, and only on their distance. ValueError for other models.
    """
    from gpt_core.models import GPT

    slides = "overflow='slide' needs a GPT with rope or no positions and a sliding window in every layer, got"
    if type(model) is not GPT:
        raise ValueError(f"{slides} {type(model).__name__}; use overflow='crop' (slow) or 'stop'")
    config = config_of(model)
    windows = [config.layer_window(layer) for layer in range(config.n_layer)]
    if config.position_encoding == "learned_absolute" or None in windows:
        raise ValueError(
            f"{slides} GPT with {config.position_encoding} positions and windows {windows}; "
            "use overflow='crop' (slow) or 'stop'"
        )
    if length <= config.context_length:
        return model
    longer = copy.copy(model)
    longer._modules = dict(model._modules)  # the same submodules, but for the one replaced here
    longer.config = dataclasses.replace(config, context_length=length)
    longer.position = type(model.position)(longer.config).to(model.embed.weight)
    return longer


@torch.inference_mode()
def _steps(
    model: nn.Module,
    batch: "_Batch",
    budgets: list[int],
    *,
    stop_ids: frozenset[int],
    stop_when: Callable[[int, int], bool],
    crop: bool,
    notify: Callable[[str], None],
) -> Iterator[Step]:
    """The loop of `stream`; budgets[row] is how many tokens a row may get."""
    context = config_of(model).context_length
    was_training = model.training
    model.eval()
    try:
        for made in range(1, max(budgets) + 1):
            full = [i for i, sequence in enumerate(batch.sequences) if len(sequence) > context]
            if full and crop and isinstance(batch.decoder, Cached):
                batch.decoder = Recompute(model, context)
                notify(
                    f"the context of {context} tokens is full: from here every step encodes the last {context} "
                    "tokens again, which is slow; overflow='stop' ends there instead"
                )
            elif full and not crop:
                yield from (Step(batch.rows[i], None, "context") for i in full)
                batch.drop(full)
            if not batch.rows:
                return
            ended = []
            for i, token in enumerate(batch.next_tokens()):
                row = batch.rows[i]
                if token in stop_ids:
                    step = Step(row, None, "stop_token", token)
                elif stop_when(row, token):
                    step = Step(row, token, "stop_text")
                else:
                    step = Step(row, token, "length" if made == budgets[row] else None)
                yield step
                if step.reason is not None:
                    ended.append(i)
            batch.drop(ended)
    finally:
        model.train(was_training)


class _Batch:
    """The rows that are still going: their numbers, all their tokens, and how their next ones are drawn."""

    def __init__(
        self,
        decoder: Decoder,
        sequences: list[list[int]],
        sampling: Sampling,
        seed: int | None,
        vocab_size: int,
        device: torch.device,
    ):
        self.decoder, self.sequences, self.rows = decoder, sequences, list(range(len(sequences)))
        self._sampling, self._vocab_size = sampling, vocab_size
        self._generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        self._seen_BV: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen_BV = torch.zeros(len(sequences), vocab_size, dtype=torch.bool, device=device)
            for row, sequence in enumerate(sequences):
                self._seen_BV[row, [token for token in sequence if token < vocab_size]] = True

    def next_tokens(self) -> list[int]:
        """Draw a token for every row and append it."""
        logits_BV = self.decoder.logits(self.sequences)[:, : self._vocab_size]
        ids_B = sample(logits_BV, self._sampling, self._generator, self._seen_BV)
        if self._seen_BV is not None:
            self._seen_BV.scatter_(1, ids_B.unsqueeze(1), True)
        tokens = ids_B.tolist()
        for sequence, token in zip(self.sequences, tokens, strict=True):
            sequence.append(token)
        return tokens

    def drop(self, ended: list[int]) -> None:
        """Go on without the rows at these places."""
        if not ended:
            return
        going = [i for i in range(len(self.rows)) if i not in ended]
        self.rows = [self.rows[i] for i in going]
        self.sequences = [self.sequences[i] for i in going]
        if self._seen_BV is not None:
            self._seen_BV = self._seen_BV[going]
        if going:
            self.decoder.select(going)


def _check(
    vocab_size: int,
    prompts: Sequence[Sequence[int]],
    budgets: list[int],
    num_samples: int,
    overflow: str,
) -> None:
    """ValueError for what no generation could start from."""
    if not prompts:
        raise ValueError("no prompts: give at least one list of token ids")
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {i} is empty: give it at least one token (a start token, or a newline)")
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise ValueError(
                f"prompt {i} has token ids from {min(prompt)} to {max(prompt)}, the model's vocabulary has "
                f"{vocab_size}: it was made with another tokenizer"
            )
    if len(budgets) != len(prompts) or min(budgets) < 1:
        raise ValueError(f"max_new_tokens must be at least 1 for each of {len(prompts)} prompts, got {budgets}")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if overflow not in ("crop", "stop", "slide"):
        raise ValueError(f"overflow must be 'crop', 'stop' or 'slide', got {overflow!r}")
