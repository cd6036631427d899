"""How numbers look in a terminal and in log files: short, aligned, and readable without UTF-8."""

import math
from collections.abc import Mapping
from typing import Any, TextIO

_TO_ASCII = str.maketrans({"│": "|", "─": "-", "…": "...", "·": "-", "→": "->", "×": "x", "█": "#"})


def is_utf8(stream: TextIO) -> bool:
    """Whether the stream can print box drawing characters."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "") == "utf8"


def printable(text: str, stream: TextIO) -> str:
    """`text` as this stream can print it: box drawing becomes ASCII, the rest is escaped, nothing raises."""
    if is_utf8(stream):
        return text
    encoding = getattr(stream, "encoding", None) or "ascii"
    return text.translate(_TO_ASCII).encode(encoding, "backslashreplace").decode(encoding)


def duration(seconds: float | None) -> str:
    """`65` -> `1:05`, `90061` -> `1d 01:01:01`; unknown -> `?`."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    total = max(0, round(seconds))
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}:{secs:02d}"
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def count(value: float | None) -> str:
    """`123456` -> `123.5k`, `1.2e9` -> `1.20B`."""
    if value is None or not math.isfinite(value):
        return "n/a"
    for size, unit, digits in ((1e12, "T", 2), (1e9, "B", 2), (1e6, "M", 2), (1e3, "k", 1)):
        if abs(value) >= size:
            return f"{value / size:.{digits}f}{unit}"
    return f"{value:.0f}"


def percent(value: float | None) -> str:
    """A fraction as a percentage, or `n/a`."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.1%}"


def number(value: Any) -> str:
    """Any metric value: whole numbers whole, others with four significant digits, unknown as `n/a`."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def pairs(metrics: Mapping[str, Any]) -> str:
    """`train/loss=2.345, train/lr=0.0006`."""
    return ", ".join(f"{name}={number(value)}" for name, value in metrics.items())


def scalar(metrics: Mapping[str, Any], *names: str) -> float | None:
    """The first of `names` present as a number, as float."""
    for name in names:
        value = metrics.get(name)
        if value is not None:
            return float(value)
    return None
