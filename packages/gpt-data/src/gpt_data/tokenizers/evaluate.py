"""How well a tokenizer fits texts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .base import Tokenizer


@dataclass(frozen=True)
class TokenizerReport:
    """One tokenizer on some texts."""

    name: str
    vocab_size: int
    texts: int
    tokens: int
    bytes: int
    """UTF-8."""
    lossy: int
    """Texts that are not the same after encoding and decoding."""
    seconds: float
    """Spent encoding, on one core."""

    @property
    def bytes_per_token(self) -> float:
        """Higher is shorter: a model sees this much text per position. 0 without text."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def round_trip(self) -> bool:
        """Nothing is lost."""
        return self.lossy == 0

    @property
    def mb_per_second(self) -> float:
        return self.bytes / 1e6 / self.seconds if self.seconds else 0.0


def evaluate_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerReport:
    """Encode every text as plain text, decode it again, count. Texts that its vocabulary cannot write are errors."""
    number, tokens, size, lossy, seconds = 0, 0, 0, 0, 0.0
    for text in texts:
        started = time.perf_counter()
        ids = tokenizer.encode_array(text)
        seconds += time.perf_counter() - started
        number, tokens, size = number + 1, tokens + len(ids), size + len(text.encode())
        lossy += tokenizer.decode(ids.tolist()) != text
    return TokenizerReport(tokenizer.name, tokenizer.vocab_size, number, tokens, size, lossy, seconds)


def tokenizer_table(reports: Sequence[TokenizerReport]) -> str:
    """A line per tokenizer, the one with the most bytes per token first."""
    header = ("tokenizer", "vocabulary", "tokens", "bytes/token", "round trip", "MB/s")
    lines = [
        (
            report.name,
            f"{report.vocab_size:,}",
            f"{report.tokens:,}",
            f"{report.bytes_per_token:.3f}",
            "yes" if report.round_trip else f"{report.lossy} of {report.texts} differ",
            f"{report.mb_per_second:.1f}",
        )
        for report in sorted(reports, key=lambda report: -report.bytes_per_token)
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    aligned = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (header, *lines)
    ]
    return "\n".join(aligned)
