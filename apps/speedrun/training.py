"""One training run from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpt_core.config import Config, load_config
from gpt_core.models.speedrun import check_fp8
from gpt_core.training.launch import launched
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run

APP = Path(__file__).parent
CONFIGS = APP / "configs"


def main(argv: Sequence[str]) -> Path:
    """argv: the app, then its arguments; returns the run's folder."""
    load = partial(load_config, argv[1:], schema=SCHEMA, config_dirs=[CONFIGS], default="desk")
    with launched(load) as (config, ranks, clock):
        if asks_for_float8(config):
            check_fp8(config.section("general").device)  # before anything is built
        return run(config, ranks, clock, argv)


def asks_for_float8(config: Config) -> bool:
    """Whether the head or the MLPs are to multiply in float8."""
    model, loss = (config.component(name).kwargs for name in ("model", "loss"))
    return bool(loss.get("fp8")) or model.get("fp8_mlp", "off") != "off"
