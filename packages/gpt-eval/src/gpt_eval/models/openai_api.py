"""POST and GET against a server that speaks OpenAI's API: retries, time limits, errors that say what to do."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from gpt_eval.errors import EvaluationError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""


class RequestRefused(EvaluationError):
    """The server answered, and not with a result."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Unreachable(EvaluationError):
    """No answer at all: the server is down, the address is wrong, or time ran out."""


class OpenAIClient:
    """A connection to one server; safe to use from several threads.

    Args:
        url: up to and with `/v1`.
        key_env: name of the environment variable that holds the key; None sends none. The key itself appears nowhere.
        timeout: seconds for one request.
        retries: further attempts after one that failed in a way that may pass (statuses 429 and 5xx, time, connection).
        sleep: waits for so many seconds (for tests).

    Raises EvaluationError for an environment variable that is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        key_env: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ):
        import httpx

        if not url.startswith(("http://", "https://")):
            raise EvaluationError(f"{url!r} is no address of a server; expected http://... or https://...")
        key = None
        if key_env is not None and not (key := os.environ.get(key_env)):
            raise EvaluationError(f"the environment variable {key_env} is not set; it has to hold the server's key")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url.rstrip("/") + "/", timeout=timeout, headers=headers)
        self._broken = httpx.TransportError
        self._url, self._retries, self._sleep = url, retries, sleep

    def get(self, path: str) -> Any:
        """The JSON at a path, e.g. "models"."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a JSON request. RequestRefused with the server's own words where there is none."""
        return self._request("POST", path, body)

    def close(self) -> None:
        self._http.close()

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        failure: EvaluationError | None = None
        for attempt in range(self._retries + 1):
            wait = min(60.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.5)
            try:
                response = self._http.request(method, path.lstrip("/"), json=body)
            except self._broken as error:
                failure = Unreachable(
                    f"{self._url} did not answer {path}: {type(error).__name__} {error}; is the server up?"
                )
            else:
                if response.is_success:
                    return self._json(response, path)
                failure = RequestRefused(
                    f"{self._url} answered {path} with status {response.status_code}: {response.text[:500]}",
                    response.status_code,
                )
                if response.status_code not in RETRIED:
                    raise failure
                wait = _seconds(response.headers.get("Retry-After"), wait)
            if attempt < self._retries:
                self._sleep(wait)
        assert failure is not None
        if self._retries:
            failure.args = (f"{failure} (tried {self._retries + 1} times)",)
        raise failure

    def _json(self, response: Any, path: str) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise RequestRefused(
                f"{self._url} answered {path} with something that is no JSON: {response.text[:200]!r}",
                response.status_code,
            ) from error


def _seconds(header: str | None, default: float) -> float:
    """What a Retry-After header asks for, at most five minutes; dates and nonsense count as nothing said."""
    try:
        return min(300.0, max(0.0, float(header or "")))
    except ValueError:
        return default
