"""Train a GPT: `uv run apps/pretrain [CONFIG] [--key value ...]`; --help lists configurations and keys.

--mode mid-training --checkpoint RUN --data FOLDER    what apps/midtrain does
--mode all --mid.data FOLDER                          pretrain, then mid-train what came of it (--mid.KEY VALUE)
--checkpoint RUN                                      this run goes on
"""

import sys
from datetime import datetime
from functools import partial
from pathlib import Path

import modes

from gpt_core.config import load_config
from gpt_core.distributed import distributed
from gpt_core.monitor import read_run
from gpt_core.training.midtraining import NoCheckpoint, load_midtraining
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
    config = load()
    if task.mode == "all":
        modes.check_second(config, task.second)
    general, parallel = config.section("general"), config.section("parallel")
    train = partial(run, benchmarks=partial(Benchmarks, speech=answering), first_new_id=first_new_id)
    with distributed(general.device, parallel.backend, parallel.timeout_minutes) as ranks:
        clock = ranks.broadcast(datetime.now())
        config = load(clock=clock)  # read again, so that `_time` is the same on all ranks
        config.export_env()
        run_dir = train(config, ranks, clock, argv)
        if task.mode != "all" or ranks.broadcast(ranks.is_main and read_run(run_dir).status) != "completed":
            return
        second = [*task.second, f"--general.init_from={run_dir}"]
        train(load_second(second, clock=clock), ranks, clock, [str(modes.MIDTRAINING_CONFIGS.parent), *second])


if __name__ == "__main__":
    try:
        main(sys.argv)
    except NoCheckpoint as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError) as error:  # the user's to mend (a typing error, a full disk): no traceback
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # before the first step, or the second Ctrl-C
        sys.exit(130)
