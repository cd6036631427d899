"""What an evaluator asks of a language model: token ids in, log-probabilities or text out. No tensor crosses this line.

Three backends are in `gpt_eval.models`: a GPT of this repository (or any callable with its shape), a model of
transformers, and an HTTP endpoint that speaks OpenAI's API. An implementation of one's own inherits nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Capability = Literal["score", "generate", "chat_score", "chat"]
"""What a backend can do: score continuations, generate from token ids, score after a conversation (it can render one
to token ids), answer a conversation."""

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

Prompt = Sequence[int] | Sequence[Message]
"""Token ids to continue, or a conversation to answer."""


class Scored(NamedTuple):
    """How likely a model finds one continuation after its context, token by token."""

    logprobs: npt.NDArray[np.float32]
    """(T,) ln P(token | everything before it), in nats."""

    greedy: npt.NDArray[np.bool_]
    """(T,) True where the token is the most likely one at its place."""

    @property
    def num_tokens(self) -> int:
        """T, in the tokens of whoever scored (a server may cut text otherwise than the request did)."""
        return len(self.logprobs)

    @property
    def sum(self) -> float:
        """ln P(continuation | context), added up in float64."""
        return float(self.logprobs.sum(dtype=np.float64))

    @property
    def mean(self) -> float:
        """Per token; minus infinity for no tokens, so that an empty span never wins."""
        return self.sum / len(self.logprobs) if len(self.logprobs) else -np.inf

    @property
    def is_greedy(self) -> bool:
        """True if every token is the most likely one at its place."""
        return bool(self.greedy.all())


class LanguageModel(Protocol):
    """Anything that scores or continues text.

    May have `dtype` ("bfloat16"), where it knows what it computes in: results name it, and none goes on in another.
    """

    name: str
    """Of the model, for results and reports."""

    max_length: int
    """Tokens that context and continuation may have together."""

    eot_id: int | None
    """End of text; what an empty context is replaced by where there is no `bos_id`."""

    bos_id: int | None
    """Start of text, where the model was trained with one."""

    prefix_space: bool
    """Whether a word's leading space belongs to its token (byte-level BPE): " a" is one token without specials."""

    tokenizer_hash: str
    """Equal for equal tokenizers; results of different tokenizers are not compared token by token."""

    supports: frozenset[Capability]

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Token ids; with the special tokens that the tokenizer adds by itself, or without any."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """Scores each (context, continuation), in order. The context is never empty; its tokens are never scored.

        Requests that share a context, or a long beginning of it, are cheaper side by side in one call than apart.
        Raises ValueError for an empty context or continuation, or for more than `max_length` tokens fed in:
        len(context) + len(continuation) - 1 (the last token is scored, not fed).
        """
        ...

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation rendered up to where the assistant's answer begins; for backends that support chat_score."""
        ...

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
        """n continuations of each prompt, without the prompt and without special tokens.

        Ends at `max_new_tokens`, at the model's own end token, or once a string of `stops` has appeared; text may go
        past that string (the caller cuts). temperature 0 is greedy, and then all n are equal.
        A sample depends on (seed, prompt, its number), not on what else is in the batch.
        """
        ...
