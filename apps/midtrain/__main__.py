"""Train a trained model on conversations, or on text of your own.

uv run apps/midtrain --checkpoint RUN --data FOLDER          conversations (chat.yaml); then: uv run apps/chat
uv run apps/midtrain text --checkpoint RUN --data FOLDER     documents (text.yaml)
uv run apps/midtrain --init_from=resume                      go on with the newest run
"""

import sys
from functools import partial
from pathlib import Path

from gpt_core.exit_status import exit_with
from gpt_core.training.launch import launched
from gpt_core.training.midtraining import load_midtraining
from gpt_core.training.run import run
from gpt_data.chat import answering
from gpt_data.tokenizers import first_new_id
from gpt_eval.hook import Benchmarks


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n--checkpoint is general.init_from, --data is data.module_kwargs.dataset.\n")
    with launched(partial(load_midtraining, argv[1:], config_dirs=[Path(__file__).parent / "configs"])) as launch:
        run_dir = run(*launch, argv, benchmarks=partial(Benchmarks, speech=answering), first_new_id=first_new_id)
        if launch.ranks.is_main:
            print(f"talk to it: uv run apps/chat {run_dir}")


if __name__ == "__main__":
    exit_with(main, sys.argv)
