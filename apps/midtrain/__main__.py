"""Train a trained model on conversations, or on text of your own.

uv run apps/midtrain --checkpoint RUN --data FOLDER          conversations (chat.yaml); then: uv run apps/chat
uv run apps/midtrain text --checkpoint RUN --data FOLDER     documents (text.yaml)
uv run apps/midtrain --init_from=resume                      go on with the newest run
"""

import sys
from datetime import datetime
from functools import partial
from pathlib import Path

from gpt_core.distributed import distributed
from gpt_core.training.midtraining import NoCheckpoint, load_midtraining
from gpt_core.training.run import run
from gpt_data.chat import answering
from gpt_data.tokenizers import first_new_id
from gpt_eval.hook import Benchmarks


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n--checkpoint is general.init_from, --data is data.module_kwargs.dataset.\n")
    load = partial(load_midtraining, argv[1:], config_dirs=[Path(__file__).parent / "configs"])
    config = load()
    general, parallel = config.section("general"), config.section("parallel")
    with distributed(general.device, parallel.backend, parallel.timeout_minutes) as ranks:
        clock = ranks.broadcast(datetime.now())
        config = load(clock=clock)  # read again, so that `_time` is the same on all ranks
        config.export_env()
        benchmarks = partial(Benchmarks, speech=answering)
        run_dir = run(config, ranks, clock, argv, benchmarks=benchmarks, first_new_id=first_new_id)
        if ranks.is_main:
            print(f"talk to it: uv run apps/chat {run_dir}")


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
