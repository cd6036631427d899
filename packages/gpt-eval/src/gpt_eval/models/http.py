"""A model behind a server that speaks OpenAI's API. Token ids here are code points: the server's tokens are its own.

Text is cut only where the caller cuts it, so concatenated ids are concatenated text, and a continuation's tokens are
found in the server's echo by its first character (see `echoed_tokens`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gpt_eval.errors import EvaluationError, UnsupportedByBackend
from gpt_eval.model import Capability, Message, Prompt, Scored

from .echoed_tokens import echoed_scores
from .openai_api import OpenAIClient, RequestRefused, Unreachable

EOT = 0x10FFFF
"""Stands for end of text among code points; no character has this number."""

T = TypeVar("T")
R = TypeVar("R")


class HTTPModel:
    """`/completions` with echo for scores, `/chat/completions` for answers (satisfies `gpt_eval.LanguageModel`).

    What the server can do is asked once, at the start; what it cannot do is refused by name later.

    Args:
        url: of the API, up to and with `/v1`.
        model: its name there.
        key_env: name of the environment variable that holds the key; None sends none.
        max_length: characters that context and continuation may have; longer contexts lose their beginning. The
            default cuts nothing: a server that finds a text too long says so, and the evaluation stops.
        eot_text: how the model writes end of text ("<|endoftext|>"), to condition an empty context on.
        prefix_space: whether a word's leading space belongs to its token (byte-level BPE; not sentencepiece).
        concurrency: requests at a time.
        timeout, retries: see `OpenAIClient`.

    Raises EvaluationError if the server is not there or can neither score nor answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        max_length: int = 1_000_000,
        eot_text: str | None = None,
        prefix_space: bool = True,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        client: OpenAIClient | None = None,
    ):
        self._client = client or OpenAIClient(url, key_env=key_env, timeout=timeout, retries=retries)
        self.name, self.max_length, self.prefix_space = model, max_length, prefix_space
        self.bos_id: int | None = None
        self._eot_text = eot_text
        self.eot_id: int | None = None if eot_text is None else EOT
        self.tokenizer_hash = "server:" + hashlib.sha256(f"{url} {model}".encode()).hexdigest()
        self._concurrency = concurrency
        self._refusals: dict[str, str] = {}
        self.supports: frozenset[Capability] = self._probe()

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Code points; a server adds its own special tokens."""
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Text, with end of text in the model's own spelling."""
        return "".join((self._eot_text or "") if i == EOT else chr(i) for i in ids)

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """See `LanguageModel.score`; tokens are the server's. UnsupportedByBackend if it gives no log-probabilities."""
        self._require("score")
        for i, (ctx, cont) in enumerate(requests):
            if not len(ctx) or not len(cont):
                raise ValueError(f"request {i} has an empty {'continuation' if len(ctx) else 'context'}")
            if len(ctx) + len(cont) - 1 > self.max_length:
                raise ValueError(f"request {i} has {len(ctx)} + {len(cont)} characters, expected {self.max_length}")
        texts = [(self.decode(ctx), self.decode(cont)) for ctx, cont in requests]
        different = list(dict.fromkeys(texts))
        scores = dict(zip(different, self._each(self._score_text, different), strict=True))
        return [scores[pair] for pair in texts]

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Always refused: only the server knows how a conversation is written."""
        raise UnsupportedByBackend(
            f"{self.name}: a server keeps its chat template to itself, so nothing can be scored after a conversation; "
            "use a local backend, or a task that generates its answers"
        )

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
        """See `LanguageModel.generate`. Sample j is asked for with seed + j; whether that repeats is up to the server.

        top_k other than None goes to the server as it is: servers besides OpenAI's know it. It means nothing, and is
        left out, when greedy.
        """
        settings: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": temperature}
        if temperature > 0:
            settings |= {"top_p": top_p} | ({} if top_k is None else {"top_k": top_k})
        if stops and len(stops) <= 4:  # the API takes four; with more, the caller cuts
            settings["stop"] = list(stops)
        samples = n if temperature > 0 else 1
        asked = [(prompt, settings | {"seed": seed + j}) for prompt in prompts for j in range(samples)]
        for capability in {_capability(prompt) for prompt in prompts}:
            self._require(capability)
        texts = self._each(self._continue_text, asked)
        return [texts[i * samples : (i + 1) * samples] * (n // samples) for i in range(len(prompts))]

    def _score_text(self, pair: tuple[str, str]) -> Scored:
        text = pair[0] + pair[1]
        body = {"model": self.name, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        answer = self._client.post("completions", body)
        return echoed_scores(_choice(answer).get("logprobs") or {}, text, len(pair[0]))

    def _continue_text(self, asked: tuple[Prompt, Mapping[str, Any]]) -> str:
        prompt, settings = asked
        if _capability(prompt) == "chat":
            messages = [dict(message) for message in prompt if isinstance(message, Mapping)]
            answer = self._client.post("chat/completions", {"model": self.name, "messages": messages, **settings})
            choice = _choice(answer)
            return _text(choice.get("message"), "content", choice)
        text = self.decode([i for i in prompt if isinstance(i, int)])
        answer = self._client.post("completions", {"model": self.name, "prompt": text, **settings})
        return _text(choice := _choice(answer), "text", choice)

    def _each(self, ask: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The answers in order, several requests at a time; the first failure ends it."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                return list(pool.map(ask, items))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _probe(self) -> frozenset[Capability]:
        """Tries each ability once on a tiny text; remembers the server's words where it fails."""
        tries: dict[Capability, Callable[[], object]] = {
            "score": lambda: self._score_text(("The sky is", " blue")),
            "generate": lambda: self._continue_text((self.encode("The sky is"), {"max_tokens": 1, "temperature": 0})),
            "chat": lambda: self._continue_text(([{"role": "user", "content": "Hi"}], {"max_tokens": 1})),
        }
        found: set[Capability] = set()
        for capability, attempt in tries.items():
            try:
                attempt()
            except Unreachable:
                raise
            except EvaluationError as error:
                if isinstance(error, RequestRefused) and error.status in (401, 403):
                    raise
                self._refusals[capability] = str(error)
            else:
                found.add(capability)
        if not found:
            raise EvaluationError(f"{self.name} can neither score nor generate: {next(iter(self._refusals.values()))}")
        return frozenset(found)

    def _require(self, capability: Capability) -> None:
        if capability not in self.supports:
            raise UnsupportedByBackend(f"{self.name} cannot {capability}: {self._refusals.get(capability)}")


def _capability(prompt: Prompt) -> Capability:
    return "chat" if any(isinstance(message, Mapping) for message in prompt) else "generate"


def _choice(answer: Any) -> dict[str, Any]:
    """The first choice of a completion."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EvaluationError(f"the server's answer has no choices: {str(answer)[:200]}")
    return choices[0]


def _text(holder: Any, key: str, choice: Mapping[str, Any]) -> str:
    """The answer's text; null is an empty answer where the model came to an end with nothing said.

    Raises EvaluationError for an answer without text (a tool call, a filter, another API): it is not a wrong one.
    """
    text = holder.get(key, choice) if isinstance(holder, Mapping) else choice
    if text is None and choice.get("finish_reason") in ("stop", "length"):
        return ""
    if not isinstance(text, str):
        raise EvaluationError(f"the server's answer has no text in {key!r}: {str(dict(choice))[:200]}")
    return text
