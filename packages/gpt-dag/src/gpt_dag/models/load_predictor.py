"""The predictor of phase 1, from where its run left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_core.checkpoint import CheckpointError, load_model
from gpt_core.generate.generator import locate
from gpt_dag.predictor.model import PredictorOnlyModel, predictor


def load_predictor(path: str | Path, checkpoint: str = "latest") -> PredictorOnlyModel:
    """A trained predictor in evaluation mode, on the CPU.

    path: a run's folder, a checkpoint folder, or a folder of runs (the newest is taken); checkpoint: latest, best or a
    step of the run. Raises CheckpointError that lists what is there, or says what it is where it is no predictor; every
    weight must be there and fit.
    """
    model = load_model(locate(path, checkpoint)[1])
    if not isinstance(model, PredictorOnlyModel):
        raise CheckpointError(f"{path} is a {type(model).__name__}, expected a predictor (uv run apps/predictor)")
    return model


def predictor_of(path: str | Path | None, kwargs: dict[str, Any] | None) -> PredictorOnlyModel:
    """A pretrained predictor, or a new one of that architecture, whose weights will come from a checkpoint."""
    if (path is None) == (kwargs is None):
        raise ValueError(
            'plan_source="predictor" needs one trained in phase 1: give model.module_kwargs.predictor, the folder of a '
            "run of apps/predictor"
        )
    return load_predictor(path) if path is not None else predictor(**(kwargs or {}))
