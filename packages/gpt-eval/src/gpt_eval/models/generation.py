"""Continues many prompts with one network: prompts once, then a token at a time for all of them.

Dimensions: B rows, T tokens fed, S slots held, V vocabulary.

Prompts of a batch are padded on the right, behind what they see; a row's new tokens come after the longest prompt,
with the row's own positions, and never see the padding in between.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .network import Network, Sight, padded


@dataclass(frozen=True)
class Decoding:
    """How the next tokens are drawn and when a row ends."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    n: int = 1
    stops: tuple[str, ...] = ()
    end_ids: frozenset[int] = frozenset()
    """Tokens that end a row and are not part of it."""
    tool: Callable[[Sequence[int]], Sequence[int]] | None = None
    """Called with a row's new tokens after each of them; what it returns is fed next, as if the model had said it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.n < 1:
            raise ValueError(f"max_new_tokens and n must be at least 1, got {self.max_new_tokens} and {self.n}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number of at least 0 (0: greedy), got {self.temperature}")
        if not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(f"top_p must lie in (0, 1] and top_k be at least 1, got {self.top_p} and {self.top_k}")
        if "" in self.stops:
            raise ValueError("an empty stop string would end every text at once; leave it out")


@dataclass
class _Row:
    """One continuation in the making."""

    number: int
    prompt: Sequence[int]
    rng: random.Random
    made: list[int] = field(default_factory=list)
    forced: deque[int] = field(default_factory=deque)
    """What a tool has answered and the model has not read yet."""


@torch.inference_mode()
def generate(
    network: Network,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    decode: Callable[[Sequence[int]], str],
    *,
    max_length: int,
    batch_tokens: int,
) -> list[list[list[int]]]:
    """Token ids of n continuations of every prompt, without end tokens; text may go past a stop string.

    A row also ends when the model's length is reached. Greedy samples of a prompt are made once.
    Raises ValueError for a prompt that is empty, too long, or has ids that the model does not have.
    """
    for i, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= max_length:
            raise ValueError(f"prompt {i} has {len(prompt)} tokens, expected 1..{max_length}: cut its beginning")
        if not 0 <= min(prompt) <= max(prompt) < network.vocab_size:
            raise ValueError(f"prompt {i} has token ids outside 0..{network.vocab_size - 1}: another tokenizer's?")
    n = decoding.n if decoding.temperature > 0 else 1
    done: list[list[int]] = [[] for _ in range(len(prompts) * n)]
    for numbers in _batches(prompts, n, decoding.max_new_tokens, batch_tokens):
        rows = [
            _Row(i * n + sample, prompts[i], _random(decoding.seed, prompts[i], sample))
            for i in numbers
            for sample in range(n)
        ]
        for row in rows:
            done[row.number] = row.made
        _continue(network, rows, decoding, decode, max_length)
    texts = [done[i * n : (i + 1) * n] for i in range(len(prompts))]
    return texts if n == decoding.n else [samples * decoding.n for samples in texts]


def _continue(
    network: Network, rows: list[_Row], decoding: Decoding, decode: Callable[[Sequence[int]], str], max_length: int
) -> None:
    """Grows the rows of a batch, in place, until the last one has ended."""
    decoder = (_Cached if network.can_branch else _Recompute)(network, rows)
    window = max((len(stop.encode()) for stop in decoding.stops), default=0) + 8  # tokens that may hold a stop
    while rows:
        tokens = draw(decoder.logits(rows), [row.rng for row in rows], decoding)
        going = []
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if row.forced:
                token = row.forced.popleft()
            elif token in decoding.end_ids:
                continue
            row.made.append(token)
            if decoding.tool and not row.forced:
                row.forced.extend(decoding.tool(row.made))
            full = len(row.made) == decoding.max_new_tokens or len(row.prompt) + len(row.made) > max_length
            if not full and not (decoding.stops and _has_stop(decode(row.made[-window:]), decoding.stops)):
                going.append(i)
        if len(going) < len(rows):
            decoder.select(going)
            rows = [rows[i] for i in going]


class _Recompute:
    """Every text anew at every step: for models without a cache."""

    def __init__(self, network: Network, rows: Sequence[_Row]):
        self._network = network

    def logits(self, rows: Sequence[_Row]) -> Tensor:
        texts = [[*row.prompt, *row.made] for row in rows]
        x_BTD = self._network.hidden(padded(texts, self._network.device))
        last_B = torch.tensor([len(text) - 1 for text in texts], device=x_BTD.device)
        return self._network.head(x_BTD[torch.arange(len(texts), device=x_BTD.device), last_B])

    def select(self, rows: Sequence[int]) -> None:
        pass


class _Cached:
    """Different prompts once, then one token per row and step."""

    def __init__(self, network: Network, rows: Sequence[_Row]):
        self._network, self._cache = network, network.new_cache()
        self._different = list(dict.fromkeys(tuple(row.prompt) for row in rows))
        self._lengths_B = torch.zeros(0)
        self._positions_BS = self._seen_BS = torch.zeros(0)

    def logits(self, rows: Sequence[_Row]) -> Tensor:
        if not rows[0].made:
            return self._prefill(rows)
        device = self._network.device
        steps = len(rows[0].made)
        position_B1 = (self._lengths_B + steps - 1)[:, None]
        self._positions_BS = torch.cat([self._positions_BS, position_B1], dim=1)
        self._seen_BS = torch.cat([self._seen_BS, torch.ones_like(position_B1, dtype=torch.bool)], dim=1)
        ids_B1 = torch.tensor([row.made[-1:] for row in rows], device=device)
        sight = Sight(position_B1, self._seen_BS[:, None], self._positions_BS)
        return self._network.head(self._network.append(self._cache, ids_B1, sight)[:, -1])

    def select(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        index = torch.tensor(rows, device=self._network.device)
        self._cache = self._network.select(self._cache, rows)
        self._lengths_B, self._positions_BS, self._seen_BS = (
            x[index] for x in (self._lengths_B, self._positions_BS, self._seen_BS)
        )

    def _prefill(self, rows: Sequence[_Row]) -> Tensor:
        device = self._network.device
        x_BTD = self._network.append(self._cache, padded(self._different, device), None)
        B, T, _ = x_BTD.shape
        self._lengths_B = torch.tensor([len(prompt) for prompt in self._different], device=device)
        self._positions_BS = torch.arange(T, device=device).expand(B, T)
        self._seen_BS = self._positions_BS < self._lengths_B[:, None]
        logits_BV = self._network.head(x_BTD[torch.arange(B, device=device), self._lengths_B - 1])
        place = {prompt: i for i, prompt in enumerate(self._different)}
        chosen = [place[tuple(row.prompt)] for row in rows]
        if chosen != list(range(B)):
            self.select(chosen)
            logits_BV = logits_BV[torch.tensor(chosen, device=device)]
        return logits_BV


def draw(logits_BV: Tensor, rngs: Sequence[random.Random], decoding: Decoding) -> list[int]:
    """One token per row: the most likely, or by inverting the distribution's sum at the row's own random number.

    top_k keeps the k most likely tokens, top_p the fewest of them that reach p together; both after temperature.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(-1).tolist()
    k = min(decoding.top_k or logits_BV.shape[1], logits_BV.shape[1])
    values_BK, ids_BK = torch.topk(logits_BV.double() / decoding.temperature, k, dim=-1)
    probs_BK = values_BK.softmax(-1)
    before_BK = probs_BK.cumsum(-1) - probs_BK
    probs_BK = probs_BK.where(before_BK < decoding.top_p, 0.0)
    sums_BK = probs_BK.cumsum(-1)
    u_B1 = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64, device=sums_BK.device)
    picked_B1 = torch.searchsorted(sums_BK, u_B1 * sums_BK[:, -1:], right=True).clamp_(max=k - 1)
    return ids_BK.gather(1, picked_B1).squeeze(1).tolist()


def _has_stop(tail: str, stops: Collection[str]) -> bool:
    return any(stop in tail for stop in stops)


def _random(seed: int, prompt: Sequence[int], sample: int) -> random.Random:
    """A stream of random numbers of this sample alone."""
    key = f"{seed}/{sample}/{','.join(map(str, prompt))}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(key).digest()[:8], "big"))


def _batches(prompts: Sequence[Any], n: int, new: int, batch_tokens: int) -> Iterator[list[int]]:
    """Prompt numbers by descending length, so many that their samples' last tokens together stay in bounds."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    batch: list[int] = []
    for i in order:
        longest = len(prompts[batch[0]]) if batch else len(prompts[i])
        if batch and (len(batch) + 1) * n * (longest + new) > 4 * batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
