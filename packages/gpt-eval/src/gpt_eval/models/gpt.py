"""GPTs of this repository, or any callable from token ids to logits, with the tokenizer and chat template they need."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch

from gpt_eval.errors import EvaluationError, UnsupportedByBackend
from gpt_eval.model import Message, Prompt, Scored

from .engine import score
from .generation import Decoding, generate
from .gpt_network import GPTNetwork
from .network import evaluating
from .tokens import ALL, WITHOUT_CHAT, has_prefix_space, prompt_ids, tokenizer_hash


class Tokenizer(Protocol):
    """What `GPTModel` asks of a tokenizer; gpt_data's all fit."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eot_id(self) -> int | None: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class GPTModel:
    """A model called as `model(ids_BT) -> logits_BTV`, and its tokenizer (satisfies `gpt_eval.LanguageModel`).

    A model that also has `hidden`, `logits` and a cache protocol as gpt_core's GPT does is scored with them: shared
    beginnings once, logits only where they are read. See `gpt_network`. Nothing is asked of its class.

    Args:
        max_length: tokens that the model takes; None reads `model.config.context_length`.
        bos_id: token that texts began with in training, if any; `encode(specials=True)` puts it first.
        chat: renders a conversation to token ids, up to where the assistant answers (gpt_data.chat.prompt with a
            tokenizer does); None: no chat.
        end_ids: tokens that end an answer, besides end of text.
        tool: called with an answer's new tokens after each one; what it returns is fed next (see `Decoding.tool`).
        batch_tokens: tokens fed at a time; None chooses by device. Scores do not depend on it.

    Raises EvaluationError for a tokenizer with more tokens than the model, or a model that does not say its length.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        name: str = "gpt",
        max_length: int | None = None,
        bos_id: int | None = None,
        chat: Callable[[Sequence[Message]], Sequence[int]] | None = None,
        end_ids: Collection[int] = (),
        tool: Callable[[Sequence[int]], Sequence[int]] | None = None,
        batch_tokens: int | None = None,
    ):
        config = getattr(model, "config", None)
        length = max_length or getattr(config, "context_length", None)
        if length is None:
            raise EvaluationError(f"{type(model).__name__} has no config.context_length; give max_length=")
        vocab_size = getattr(config, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size > vocab_size:
            raise EvaluationError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and {name} knows {vocab_size}: "
                "give the tokenizer that the model was trained with"
            )
        self.model, self.tokenizer, self.name, self.max_length = model, tokenizer, name, int(length)
        self.eot_id, self.bos_id = tokenizer.eot_id, bos_id
        self.prefix_space = has_prefix_space(self._space_probe)
        self._chat, self._tool, self.tools = chat, tool, tool is not None
        self._end_ids = frozenset(end_ids) | ({self.eot_id} if self.eot_id is not None else set())
        parameter = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
        device = torch.device("cpu") if parameter is None else parameter.device
        self._batch_tokens = batch_tokens or (4096 if device.type == "cpu" else 32768)
        with evaluating(self.model):
            self._network = GPTNetwork(model, device=device, vocab_size=vocab_size, context=self.max_length)
        self.supports = ALL if chat is not None else WITHOUT_CHAT

    @property
    def dtype(self) -> str | None:
        """Of its first weight, as it is now; None for a model without weights."""
        parameter = next(iter(self.model.parameters()), None) if hasattr(self.model, "parameters") else None
        return None if parameter is None else str(parameter.dtype).removeprefix("torch.")

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 over all tokens."""
        return tokenizer_hash(self.tokenizer.decode, self.tokenizer.vocab_size)

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Token ids; specials: after `bos_id`, where there is one."""
        ids = list(self.tokenizer.encode(text))
        return [self.bos_id, *ids] if specials and self.bos_id is not None else ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids))

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """See `LanguageModel.score`."""
        with evaluating(self.model):
            return score(self._network, requests, max_length=self.max_length, batch_tokens=self._batch_tokens)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation in tokens. UnsupportedByBackend where no template was given."""
        if self._chat is None:
            raise UnsupportedByBackend(
                f"{self.name} was given no chat template, so it cannot take part in a conversation; "
                "give GPTModel(chat=...), or run tasks for base models"
            )
        return list(self._chat(messages))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stops: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        n: int = 1,
    ) -> list[list[str]]:
        """See `LanguageModel.generate`."""
        decoding = Decoding(max_new_tokens, temperature, top_p, top_k, seed, n, tuple(stops), self._end_ids, self._tool)
        with evaluating(self.model):
            rows = generate(
                self._network,
                [prompt_ids(prompt, self.chat_ids) for prompt in prompts],
                decoding,
                self.decode,
                max_length=self.max_length,
                batch_tokens=self._batch_tokens,
            )
        return [[self.decode(ids) for ids in samples] for samples in rows]

    def _space_probe(self, text: str) -> list[int]:
        """The ids of a text, or none where the tokenizer does not know its characters."""
        try:
            return list(self.tokenizer.encode(text))
        except ValueError:
            return []
