"""Train a GPT: `uv run apps/pretrain [CONFIG] [--key value ...]`; --help lists configurations and keys."""

import sys
from datetime import datetime
from functools import partial
from pathlib import Path

from gpt_core.config import load_config
from gpt_core.distributed import distributed
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run
from gpt_data.chat import answering
from gpt_eval.hook import Benchmarks


def main(argv: list[str]) -> None:
    configs = Path(__file__).parent / "configs"
    load = partial(load_config, argv[1:], schema=SCHEMA, config_dirs=[configs], default="stdlib")
    config = load()
    general, parallel = config.section("general"), config.section("parallel")
    with distributed(general.device, parallel.backend, parallel.timeout_minutes) as ranks:
        clock = ranks.broadcast(datetime.now())
        config = load(clock=clock)  # read again, so that `_time` is the same on all ranks
        config.export_env()
        run(config, ranks, clock, argv, benchmarks=partial(Benchmarks, speech=answering))


if __name__ == "__main__":
    try:
        main(sys.argv)
    except (ValueError, OSError) as error:  # the user's to mend (a typing error, a full disk): no traceback
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # before the first step, or the second Ctrl-C
        sys.exit(130)
