"""Train a predictor of expressions, ask it, or score it.

uv run apps/predictor                                             train (predictor.yaml); --help lists all keys
uv run apps/predictor --ask "five plus two times three"           what the newest run makes of it
uv run apps/predictor --evaluate FILE.jsonl --checkpoint latest   exact answers by style and length
uv run apps/predictor --math gsm8k=FILE.jsonl --checkpoint RUN    word problems, answered by a GPT of apps/pretrain
"""

import sys
from functools import partial
from pathlib import Path

import asking
import scoring
import word_problems

from gpt_core.config import Config, load_config
from gpt_core.exit_status import exit_with
from gpt_core.training.launch import launched
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run
from gpt_dag.predictor import PredictorConfig
from gpt_dag.stream import Law

COMMANDS = {"--ask": asking.main, "--evaluate": scoring.main, "--math": word_problems.main}


def main(argv: list[str]) -> int:
    for argument in argv[1:]:
        command = COMMANDS.get(argument.partition("=")[0])
        if command is not None:
            return command(argv[1:])
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n--ask TEXT --help, --evaluate FILE --help and --math TASK --help say what else they take.\n")
    configs = Path(__file__).parent / "configs"
    load = partial(load_config, argv[1:], schema=SCHEMA, config_dirs=[configs], default="predictor")
    with launched(load) as (config, ranks, clock):
        check_digits(config)
        run_dir = run(config, ranks, clock, argv)
        if ranks.is_main and not config.section("eval").eval_only:
            scoring.conclude(run_dir, config.component("data").kwargs)
    return 0


def check_digits(config: Config) -> None:
    """The model must mean the same powers of ten as the data: with others it would learn all tags and read wrongly."""
    model, data = config.component("model").kwargs, config.component("data").kwargs
    for name in ("max_digits", "max_decimals"):
        mine, theirs = model.get(name, getattr(PredictorConfig, name)), data.get(name, getattr(Law, name))
        if mine != theirs:
            raise ValueError(
                f"model.module_kwargs.{name} is {mine} and data.module_kwargs.{name} is {theirs}: set both alike"
            )


if __name__ == "__main__":
    exit_with(main, sys.argv)
