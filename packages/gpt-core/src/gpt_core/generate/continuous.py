"""Continuous batching: requests join and leave one running batch whenever they like.

    batch = ContinuousBatch(model, rows=64)
    ticket = batch.add(Request(prompt_ids, max_new_tokens=100))
    while batch.busy:
        for event in batch.step():
            ...

A step encodes a chunk of the prompts that wait, then adds one token to every row. What a row gets is what it would get
alone: greedy tokens equal `generate(..., cache=False)` up to exact ties, and sampled ones depend on its own seed only.
One thread drives it; it holds no threads and no locks of its own.
"""

import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .cache import KVCache
from .decoder import compute_dtype, config_of
from .draws import Draw, draw
from .packed import Packed
from .prefixes import Prefixes
from .sampling import Sampling
from .slots import SlotCache
from .tool import Tool, ToolCalls

EndReason = Literal["stop_token", "length", "context", "not_finite"]


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it."""

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    """Of sample 0; sample i draws with seed + i. None: from the system's randomness."""
    num_samples: int = 1
    stop_ids: Collection[int] = ()
    """Tokens that end a row."""
    banned_ids: tuple[int, ...] = ()
    """Tokens that the model may not write."""
    tool: Tool | None = None


class Event(NamedTuple):
    """A new token of one sample, or its end, or both."""

    ticket: int
    sample: int
    token: int | None
    """None when the sample ends without one: a stop token came, which is not part of it."""
    forced: bool = False
    """The token was put in by the tool."""
    reason: EndReason | None = None
    """stop_token; length: max_new_tokens are made; context: the model's context is full; not_finite: the model's
    logits are NaN or infinite (damaged weights, or a precision too small for them), and no token can be drawn."""
    stop_id: int | None = None


@dataclass
class Counts:
    """What a batch has done since it was made."""

    steps: int = 0
    prompt_tokens: int = 0
    """Of all requests that have begun; of these `reused_tokens` were held already and not encoded again."""
    reused_tokens: int = 0
    new_tokens: int = 0


@dataclass
class _Row:
    """A sample under way. The cache holds all of `ids` but the last token."""

    ticket: int
    sample: int
    request: Request
    ids: list[int]
    draw: Draw
    calls: ToolCalls | None
    made: int = 0
    forced: deque[int] = field(default_factory=deque)


@dataclass(frozen=True)
class _Part:
    """Tokens of a prompt that one pass encodes, into the row at `place`."""

    ticket: int
    request: Request
    place: int
    cache: KVCache
    ids: Sequence[int]
    complete: bool
    """Whether the prompt ends with them."""


class ContinuousBatch:
    """A model and the rows that it is adding tokens to.

    Args:
        model: a model with gpt_core's forward, `.config` and a key/value cache; put into eval mode. One that has
            `supports_packing`, `hidden` and `logits` encodes several short prompts in one pass.
        rows: most samples at a time; more wait in order.
        vocab_size: tokens from this id on are never drawn (a vocabulary padded for speed).
        chunk: prompt tokens encoded per step at most, which bounds how long running rows wait for newcomers. While more
            than a quarter as many can join as run, rows get no tokens, and the newcomers their first ones the sooner.
        prefix_bytes: keys and values kept of ended rows for prompts that begin alike.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: int,
        *,
        vocab_size: int | None = None,
        chunk: int = 256,
        prefix_bytes: int = 256 * 2**20,
    ):
        config = config_of(model)
        if not getattr(model, "supports_cache", False):
            raise ValueError(
                f"{type(model).__name__} has no key/value cache, which answering many at once needs; "
                "apps/sample, generate(..., cache=False), decodes without"
            )
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1 token per step, got {chunk}")
        self.model, self.context, self.size, self.counts = model.eval(), config.context_length, rows, Counts()
        self.vocab_size, self.prefixes = vocab_size or config.vocab_size, Prefixes(prefix_bytes)
        self._device, self._chunk, self._known = next(model.parameters()).device, chunk, config.vocab_size
        self._config = config
        packs = getattr(model, "supports_packing", False)
        self._most_packed = min(2 * chunk, config.context_length) if packs else 0
        dtype = compute_dtype(model, self._device)
        self._cache = SlotCache(config, rows, self.context, dtype=dtype, device=self._device)
        self._rows: list[_Row] = []  # row i of the cache
        self._waiting: deque[tuple[int, Request]] = deque()
        self._filling: tuple[int, Request] | None = None  # in the cache right after the rows
        self._next_ticket = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._rows or self._waiting or self._filling)

    @property
    def running(self) -> int:
        """Samples that get a token per step."""
        return len(self._rows)

    def add(self, request: Request) -> int:
        """Queue a request; returns the ticket that its events will carry. ValueError if it cannot be served."""
        prompt = request.prompt
        if not len(prompt) or request.max_new_tokens < 1:
            raise ValueError(
                f"a request needs a prompt and max_new_tokens ≥ 1, got {len(prompt)} tokens and "
                f"{request.max_new_tokens}"
            )
        if len(prompt) > self.context:
            raise ValueError(f"the prompt has {len(prompt)} tokens, the model's context holds {self.context}")
        if not 0 <= min(prompt) <= max(prompt) < self._known:
            raise ValueError(f"token ids must lie in [0, {self._known}), got {min(prompt)} to {max(prompt)}")
        if not 1 <= request.num_samples <= self.size:
            raise ValueError(f"num_samples must lie in [1, {self.size}], got {request.num_samples}")
        self._next_ticket += 1
        self._waiting.append((self._next_ticket, request))
        return self._next_ticket

    def cancel(self, ticket: int) -> None:
        """Forget a request, wherever it is; it has no more events. One that has ended is ignored."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != ticket)
        if self._filling is not None and self._filling[0] == ticket:
            self._filling = None
        for place in reversed([i for i, row in enumerate(self._rows) if row.ticket == ticket]):
            self._leave(place)

    def clear(self) -> None:
        """Forget all requests and kept beginnings: after a step that raised, which may have left them half done.

        Touches no memory of the device, so that it works where that has failed.
        """
        self._waiting.clear()
        self._filling = None
        self._rows.clear()
        self.prefixes.clear()

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Encode a chunk of waiting prompts, then (see `chunk`) add a token to every row; what happened, in order."""
        self.counts.steps += 1
        events = list(self._encode_some())
        if self._rows and not self._newcomers_first():
            ids_N1 = torch.tensor([row.ids[-1:] for row in self._rows], device=self._device)
            cache = self._cache.together(len(self._rows))
            events += self._extend(self.model(ids_N1, cache=cache, only_last=True)[:, -1], range(len(self._rows)))
        return events

    def _encode_some(self) -> Iterator[Event]:
        """A chunk of prompt tokens; the last one of each prompt brings its first new ones."""
        budget = self._chunk
        while budget and (parts := self._next_parts(budget)):
            budget -= sum(len(part.ids) for part in parts)
            logits_PV = self._encode(parts)
            yield from self._start(parts, logits_PV)

    def _newcomers_first(self) -> bool:
        return 4 * len(self._waiting) > len(self._rows) and self._begin_next(len(self._rows))

    def _next_parts(self, budget: int) -> "list[_Part]":
        """What the next pass encodes: some tokens of one prompt, or short ones side by side; at most `budget` in all.

        Their rows follow those that run. All parts but the last reach their prompt's end.
        """
        parts, place, visible = [], len(self._rows), 0
        while budget and self._begin_next(place):
            assert self._filling is not None
            ticket, request = self._filling
            cache = self._cache.row(place)
            ids = request.prompt[cache.length : cache.length + budget]
            held = cache.length + len(ids)
            visible += held
            if parts and visible > self._most_packed:
                break
            complete = held == len(request.prompt)
            parts.append(_Part(ticket, request, place, cache, ids, complete))
            budget -= len(ids)
            if not complete:
                break
            self._filling = None
            place += request.num_samples
        return parts

    def _encode(self, parts: "list[_Part]") -> Tensor:
        """Logits (P, V) of the token after each part, which is in the cache then."""
        ids_1T = torch.tensor([[token for part in parts for token in part.ids]], device=self._device)
        if len(parts) == 1:
            logits_PV = self.model(ids_1T, cache=parts[0].cache, only_last=True)[:, -1]
        else:
            lengths = [len(part.ids) for part in parts]
            packed = Packed(self._config, [part.cache for part in parts], lengths)
            x_1TD = self.model.hidden(ids_1T, cache=packed)  # ty: ignore[not-callable]
            ends_P = torch.tensor(lengths, device=self._device).cumsum(0) - 1
            logits_PV = self.model.logits(x_1TD[:, ends_P])[0]  # ty: ignore[not-callable]
        for part in parts:
            self._cache.set_length(part.place, part.cache.length)
        return logits_PV

    def _begin_next(self, place: int) -> bool:
        """Whether a prompt is under way, after starting the next at `place`, if there are rows for all its samples."""
        if self._filling is not None:
            return True
        if not self._waiting or place + self._waiting[0][1].num_samples > self.size:
            return False
        self._filling = self._waiting.popleft()
        prompt = self._filling[1].prompt
        self._cache.set_length(place, 0)
        self.counts.prompt_tokens += len(prompt)
        if found := self.prefixes.find(prompt):
            self._cache.restore(place, found.snapshot, found.length)
            self.counts.reused_tokens += found.length
        return True

    def _start(self, parts: "list[_Part]", logits_PV: Tensor) -> list[Event]:
        """Prompts that are encoded become a row per sample, and each row draws its own first token."""
        first, done = len(self._rows), [part for part in parts if part.complete]
        for part in done:
            request = part.request
            for sample in range(request.num_samples):
                self._cache.copy(part.place, part.place + sample)
                seed = None if request.seed is None else (request.seed + sample) % 2**64  # Random ignores signs
                ids = list(request.prompt)
                drawn = Draw(request.sampling, random.Random(seed), tuple(request.banned_ids), ids)
                calls = ToolCalls(request.tool) if request.tool is not None else None
                self._rows.append(_Row(part.ticket, sample, request, ids, drawn, calls))
        of_row = [i for i, part in enumerate(done) for _ in range(part.request.num_samples)]
        return self._extend(logits_PV[of_row], range(first, len(self._rows))) if done else []

    def _extend(self, logits_NV: Tensor, places: range) -> list[Event]:
        """Give the rows at these places their next token, and let go of those that end with it."""
        rows, logits_NV = [self._rows[i] for i in places], logits_NV[:, : self.vocab_size]
        finite = logits_NV.amax(-1).isfinite().tolist()  # a NaN anywhere is the maximum
        drawn = draw(logits_NV, [row.draw for row in rows])
        events = [
            self._append(row, token) if fine else Event(row.ticket, row.sample, None, reason="not_finite")
            for row, token, fine in zip(rows, drawn, finite, strict=True)
        ]
        for place, event in reversed(list(zip(places, events, strict=True))):
            if event.reason == "not_finite":
                self._cache.wipe(place)
            if event.reason is not None:
                self._leave(place)
        return events

    def _append(self, row: _Row, drawn: int) -> Event:
        forced = bool(row.forced)
        token = row.forced.popleft() if forced else drawn
        if not forced and token in row.request.stop_ids:
            return Event(row.ticket, row.sample, None, False, "stop_token", token)
        row.ids.append(token)
        row.made += 1
        self.counts.new_tokens += 1
        if row.calls is not None:
            row.forced.extend(row.calls.push(token))
        reason: EndReason | None = None
        if row.made == row.request.max_new_tokens:
            reason = "length"
        elif len(row.ids) > self.context:  # the next token would be predicted from more than the model can see
            reason = "context"
        return Event(row.ticket, row.sample, token, forced, reason)

    def _leave(self, place: int) -> None:
        """Free a row: the last one takes its place, and the prompt being encoded moves up behind the rows."""
        row, last = self._rows[place], len(self._rows) - 1
        held = self._cache.lengths[place]
        if self.prefixes.wants(held):
            self.prefixes.add(row.ids[:held], self._cache.snapshot(place))
        if place != last:
            self._rows[place] = self._rows[last]
            self._cache.copy(last, place)
        self._rows.pop()
        if self._filling is not None:
            self._cache.copy(last + 1, last)
