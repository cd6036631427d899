"""The loaders of one dataset."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataset import DatasetInfo
from .base import Loader


@dataclass(frozen=True)
class Splits:
    """What a data factory returns."""

    train: Loader
    val: Loader
    test: Loader | None
    dataset: DatasetInfo
