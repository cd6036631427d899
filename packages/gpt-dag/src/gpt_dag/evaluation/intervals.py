"""How sure a count of hits is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """`hits` of `n`."""

    hits: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.n:
            raise ValueError(f"hits lie between 0 and n, got {self.hits} of {self.n}")

    @property
    def value(self) -> float | None:
        """None where nothing was tried."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927); right near 0 and 1 and for small n, where ±2 standard errors is not."""
        if not self.n:
            return 0.0, 1.0
        z, p = 1.959963984540054, self.hits / self.n
        spread = z * (p * (1 - p) / self.n + z * z / (4 * self.n * self.n)) ** 0.5
        scale, middle = 1 + z * z / self.n, p + z * z / (2 * self.n)
        low = (middle - spread) / scale if self.hits else 0.0  # exactly 0 and 1 there, but for rounding
        high = (middle + spread) / scale if self.hits < self.n else 1.0
        return low, high

    def __str__(self) -> str:
        """`98.7 % [97.1, 99.4]`"""
        if self.value is None:
            return "n/a"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
