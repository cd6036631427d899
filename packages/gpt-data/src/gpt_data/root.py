"""Where datasets live."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(given: str | Path | None = None) -> Path:
    """The folder that holds all datasets: `given`, else `$DATA_ROOT`, else `./data`."""
    return Path(given or os.environ.get("DATA_ROOT") or "data")
