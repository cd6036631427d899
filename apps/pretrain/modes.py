"""--mode: pretraining, mid-training, or all: one after the other."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt_core.checkpoint import CheckpointError, read_meta
from gpt_core.config import Config, ConfigError
from gpt_core.config.overrides import parse
from gpt_core.training.config import GeneralConfig
from gpt_core.training.midtraining import load_midtraining
from gpt_core.training.recipe import run_of, weights_to_start_from
from gpt_data.tokenizers import first_new_id

MODES = ("pretraining", "mid-training", "all")
SECOND = "--mid."
"""With --mode all, what begins so is for mid-training: --mid.data FOLDER, --mid.config text."""
OF_BOTH, OF_SECOND = "no_evals", "run_chatcore_evals"
"""Switches whose part needs no prefix: conversations are what only the second training knows."""
MIDTRAINING_CONFIGS = Path(__file__).parents[1] / "midtrain/configs"


class Task(NamedTuple):
    """A command line, shared out."""

    mode: str
    first: list[str]
    """For pretraining; with mode mid-training, for that."""
    second: list[str]
    """With mode all, for mid-training."""


def shared_out(argv: Sequence[str]) -> Task:
    """Which arguments are for which training. ConfigError for a mode that does not exist and for what has no use."""
    rest, modes = _taken(argv, "--mode")
    mode = modes[-1] if modes else "pretraining"
    if mode not in MODES:
        raise ConfigError(f"--mode is {mode!r}, expected one of {', '.join(MODES)}")
    mine, theirs = _taken(rest, SECOND, prefix=True)
    if theirs and mode != "all":
        raise ConfigError(
            f"{theirs[0].partition('=')[0]}: only --mode all takes what is for its second part, not {mode}"
        )
    if mode != "all":
        return Task(mode, mine, [])
    named = [item.partition("=")[2] for item in theirs if _key(item) == "config"]
    second = [*named, *(item for item in theirs if _key(item) != "config")]
    second += [item for item in mine if _key(item) in (OF_BOTH, OF_SECOND)]
    return Task(mode, [item for item in mine if _key(item) != OF_SECOND], second)


def _key(item: str) -> str:
    """The flat key of a flag; "" for anything else."""
    return item.partition("=")[0][2:].replace("-", "_") if item.startswith("--") else ""


def _taken(argv: Sequence[str], flag: str, prefix: bool = False) -> tuple[list[str], list[str]]:
    """The arguments without `flag` and its values, and the values; prefix: as --KEY=VALUE, or --KEY for a switch."""
    rest: list[str] = []
    taken: list[str] = []
    items = list(argv)
    while items:
        item = items.pop(0)
        key, equals, value = item.partition("=")
        if not (key.startswith(flag) if prefix else key == flag):
            rest.append(item)
            continue
        has_value = bool(equals) or (bool(items) and not items[0].startswith("--"))
        if not equals and has_value:
            value = items.pop(0)
        if not prefix and not has_value:
            raise ConfigError(f"{flag} needs a value: {flag} VALUE")
        taken.append(f"--{key.removeprefix(flag)}" + (f"={value}" if has_value else "") if prefix else value)
    return rest, taken


def resumed(argv: Sequence[str]) -> list[str]:
    """`argv` of pretraining, where `--checkpoint` means that its run goes on. CheckpointError if it cannot."""
    rest, named = _taken(argv, "--checkpoint")
    if not named:
        return rest
    folder = weights_to_start_from(GeneralConfig(init_from=named[-1]))
    run = run_of(folder)
    if run is None or folder is None:
        raise CheckpointError(
            f"--checkpoint {named[-1]} is of no run that could go on; to start a new run from weights: --init_from="
            f"{named[-1]}"
        )
    phase = read_meta(folder).get("phase", "pretraining")
    if phase != "pretraining":
        raise CheckpointError(
            f"--checkpoint {named[-1]} is of {phase}, which goes on with apps/midtrain --init_from=resume"
        )
    where = [f"--out_dir={run.parent}", f"--run_name={run.name}", "--init_from=resume"]
    return [*([] if parse(rest).positionals else [str(run)]), *rest, *where]


def check_second(config: Config, second: Sequence[str]) -> None:
    """ConfigError or ValueError for what would stop mid-training after pretraining of `config` is done."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "config.yaml"
        base.write_text(config.to_yaml(), encoding="utf-8")
        tokenizer = _splits(config).dataset.load_tokenizer()
        tokenizer.save(Path(name) / "tokenizer")
        after = load_midtraining(second, config_dirs=[MIDTRAINING_CONFIGS], base=base)
        first_new_id(_splits(after).dataset.load_tokenizer(), Path(name) / "tokenizer")


def _splits(config: Config) -> Any:
    training = config.section("training")
    return config.component("data").build(
        context_length=training.context_length,
        device_batch_size=training.device_batch_size,
        rank=0,
        world_size=1,
        seed=config.section("general").seed,
    )
