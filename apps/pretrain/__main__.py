"""Train a GPT: `uv run apps/pretrain [CONFIG] [--key value ...]`; --help lists configurations and keys.

--mode mid-training --checkpoint RUN --data FOLDER    what apps/midtrain does
--mode all --mid.data FOLDER                          pretrain, then mid-train what came of it (--mid.KEY VALUE)
--checkpoint RUN                                      this run goes on
"""

import sys
from functools import partial
from pathlib import Path

import modes

from gpt_core.config import load_config
from gpt_core.exit_status import exit_with
from gpt_core.monitor import read_run
from gpt_core.training.launch import launched
from gpt_core.training.midtraining import load_midtraining
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run
from gpt_data.chat import answering
from gpt_data.tokenizers import first_new_id
from gpt_eval.hook import Benchmarks


def main(argv: list[str]) -> None:
    task = modes.shared_out(argv[1:])
    load_second = partial(load_midtraining, config_dirs=[modes.MIDTRAINING_CONFIGS])
    if task.mode == "mid-training":
        load = partial(load_second, task.first)
    else:
        configs = Path(__file__).parent / "configs"
        first = modes.resumed(task.first)
        load = partial(load_config, first, schema=SCHEMA, config_dirs=[configs], default="stdlib")
    if {"-h", "--help"} & set(argv):
        print(__doc__)
    train = partial(run, benchmarks=partial(Benchmarks, speech=answering), first_new_id=first_new_id)
    with launched(load) as (config, ranks, clock):
        if task.mode == "all":
            modes.check_second(config, task.second)
        run_dir = train(config, ranks, clock, argv)
        if task.mode != "all" or ranks.broadcast(ranks.is_main and read_run(run_dir).status) != "completed":
            return
        second = [*task.second, f"--general.init_from={run_dir}"]
        train(load_second(second, clock=clock), ranks, clock, [str(modes.MIDTRAINING_CONFIGS.parent), *second])


if __name__ == "__main__":
    exit_with(main, sys.argv)
