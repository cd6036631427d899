"""What the server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hall import Hall

if TYPE_CHECKING:
    from service import Answering

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper ends of the histogram's bins."""


class Metrics:
    """Counts since the server started. Never what anybody wrote."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests: Counter[tuple[str, int]] = Counter()
        """By route and status."""
        self.answers: Counter[str] = Counter()
        """finished, cancelled (the client went away or pressed Stop), turned_away (no place), failed (the model)."""
        self.new_tokens = self.prompt_tokens = 0
        self._bins, self._seconds, self._firsts = [0] * len(SECONDS), 0.0, 0

    def answered(self, answering: "Answering", how: str) -> None:
        self.answers[how] += 1
        self.new_tokens += answering.new_tokens
        self.prompt_tokens += len(answering.prompt.ids)

    def first_token(self, seconds: float) -> None:
        self._seconds += seconds
        self._firsts += 1
        for i, most in enumerate(SECONDS):
            self._bins[i] += seconds <= most

    def text(self, hall: Hall) -> str:
        """All of it, as a scraper reads it."""
        lines: list[str] = []

        def family(name: str, kind: str, help_: str, samples: Mapping[str, float]) -> None:
            lines.extend([f"# HELP gpt_chat_{name} {help_}", f"# TYPE gpt_chat_{name} {kind}"])
            lines.extend(f"gpt_chat_{name}{labels} {value:.10g}" for labels, value in samples.items())

        requests = {f'{{route="{route}",status="{status}"}}': count for (route, status), count in self.requests.items()}
        answers = {f'{{how="{how}"}}': self.answers[how] for how in ("finished", "cancelled", "turned_away", "failed")}
        rows = {f'{{worker="{worker.number}"}}': worker.busy for worker in hall.workers}
        size = {f'{{worker="{worker.number}"}}': worker.rows for worker in hall.workers}
        reused = {f'{{worker="{worker.number}"}}': worker.counts.reused_tokens for worker in hall.workers}
        bins = {f'_bucket{{le="{most:g}"}}': count for most, count in zip(SECONDS, self._bins, strict=True)}
        family("requests_total", "counter", "HTTP requests.", requests)
        family("answers_total", "counter", "Answers, by how they ended.", answers)
        family("new_tokens_total", "counter", "Tokens made, of answers that have ended.", {"": self.new_tokens})
        family(
            "prompt_tokens_total", "counter", "Tokens of prompts, of answers that have ended.", {"": self.prompt_tokens}
        )
        family("reused_tokens_total", "counter", "Prompt tokens that were still held and not encoded again.", reused)
        family(
            "first_token_seconds",
            "histogram",
            "From a request's arrival to its first token.",
            bins
            | {
                '_bucket{le="+Inf"}': self._firsts,
                "_sum": self._seconds,
                "_count": self._firsts,
            },
        )
        family("rows_busy", "gauge", "Answers under way.", rows)
        family("rows", "gauge", "Answers that can be under way.", size)
        family("waiting", "gauge", "Requests that wait for a place.", {"": hall.waiting})
        family("start_time_seconds", "gauge", "When the server started, Unix time.", {"": self.started})
        return "\n".join(lines) + "\n"
