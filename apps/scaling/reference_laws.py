"""What others found, to be shown beside a fit: exponents of N* = k·C^a and D* = k'·C^b, tokens per parameter."""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """One published fit."""

    source: str
    convention: str
    """What N counts."""
    budgets: str
    a: float
    b: float
    ratio: str
    """Tokens per parameter at the optimum."""


REFERENCES = (
    Reference("nanochat, January 2026", "N_scaling", "1e18 to 1e19", 0.54, 0.49, "10.3 to 11.2"),
    Reference("nanochat, January 2026", "all parameters", "1e18 to 1e19", 0.37, 0.50, ""),
    Reference("nanochat, January 2026", "blocks only", "1e18 to 1e19", 0.70, 0.41, ""),
    Reference("VibeNanoChat", "N_scaling", "1e18 to 3e18", 0.456, 0.544, "7 to 8.6"),
    Reference("Hoffmann et al. 2022, approach 2", "all parameters", "6e18 to 3e21", 0.49, 0.51, "about 20"),
)

NANOCHAT_OPTIMA = ((1e18, 110.7e6), (2e18, 167.8e6), (5e18, 250.7e6), (1e19, 381.8e6))
"""nanochat's (budget in FLOPs, N_scaling of the optimum)."""
