"""Who judges: a server, a function, a file of replies given before, and one for tests whose results are refused."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt_eval.errors import BundleError, EvaluationError
from gpt_eval.model import Message
from gpt_eval.models.openai_api import OpenAIClient


class Judge(Protocol):
    """A model that rates answers."""

    id: str
    """Stands in every result; equal to the candidate's name means judging oneself, which is refused by default."""

    def chat(
        self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 1024, seed: int = 0
    ) -> str:
        """The judge's reply."""
        ...


class HTTPJudge:
    """A model behind OpenAI's chat API. Retries 5 times with growing pauses on 429, 5xx and lost connections."""

    def __init__(self, url: str, model: str, *, key_env: str | None = None, timeout: float = 120.0, retries: int = 5):
        """url: up to and with `/v1`. key_env: name of the environment variable that holds the key."""
        self.id = model
        self._client = OpenAIClient(url, key_env=key_env, timeout=timeout, retries=retries)

    def chat(
        self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 1024, seed: int = 0
    ) -> str:
        answer = self._client.post("chat/completions", request(self.id, messages, temperature, max_tokens, seed))
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise EvaluationError(f"the judge {self.id} sent no message: {str(answer)[:300]}") from error
        return text or ""


class CallableJudge:
    """A function of the messages."""

    def __init__(self, function: Callable[[Sequence[Message]], str], id: str):
        self.id, self._function = id, function

    def chat(
        self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 1024, seed: int = 0
    ) -> str:
        return self._function(messages)


class ReplayJudge:
    """Replies from a file, so that a result can be made again without the judge; new ones come from `judge`.

    The file has one JSON object per line: sha256 of the request, the request, the reply.
    """

    def __init__(self, path: str | Path, judge: Judge | None = None, id: str | None = None):
        """judge: asked, and its reply written down, where the file has none; None raises EvaluationError there.

        id: of the judge whose replies these are; needed without `judge`.
        Raises BundleError for a file that is damaged, ValueError with neither judge nor id.
        """
        if judge is None and id is None:
            raise ValueError("a file of replies needs the judge's id, or the judge")
        self.path, self._judge = Path(path), judge
        self.id = id if id is not None else getattr(judge, "id", "")
        self.for_tests = getattr(judge, "for_tests", False)
        self._lock = threading.Lock()
        self._replies = self._read() if self.path.is_file() else {}

    def chat(
        self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 1024, seed: int = 0
    ) -> str:
        asked = request(self.id, messages, temperature, max_tokens, seed)
        key = request_sha256(asked)
        with self._lock:
            if key in self._replies:
                return self._replies[key]
        if self._judge is None:
            raise EvaluationError(f"{self.path} has no reply to request {key[:12]}, and there is no judge to ask")
        reply = self._judge.chat(messages, temperature=temperature, max_tokens=max_tokens, seed=seed)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            self._replies[key] = reply
            file.write(json.dumps({"sha256": key, "request": asked, "reply": reply}) + "\n")
        return reply

    def _read(self) -> dict[str, str]:
        replies = {}
        lines = self.path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                entry = json.loads(line)
                replies[str(entry["sha256"])] = str(entry["reply"])
            except (ValueError, KeyError, TypeError) as error:
                raise BundleError(
                    f"{self.path}:{number}: no reply of a judge ({error}); expected sha256, request and reply; "
                    "delete the line if a run was interrupted while it was written"
                ) from error
        return replies


class FakeJudge:
    """For tests: replies by rule, without a model. `for_tests` makes the result withdraw its score."""

    for_tests = True

    def __init__(self, function: Callable[[Sequence[Message]], str], id: str = "fake"):
        self.id, self._function = id, function

    def chat(
        self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 1024, seed: int = 0
    ) -> str:
        return self._function(messages)


def request(model: str, messages: Sequence[Message], temperature: float, max_tokens: int, seed: int) -> dict[str, Any]:
    """The body that is sent, and that a reply is filed under."""
    return {
        "model": model,
        "messages": [dict(message) for message in messages],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "seed": seed,
    }


def request_sha256(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
