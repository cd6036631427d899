"""A tiny speedrun: apps/speedrun inside the process, or as a rank of several."""

import json
import os
import random
import runpy
import signal
import sys

from safetensors.torch import load_file

import exactly
from gpt_core.checkpoint import find_checkpoint
from gpt_core.training.state import Hook
from gpt_data import prepare
from workbench import WORDS, no_picture, process_environment
from workspace import ROOT

APP = ROOT / "apps/speedrun"
TINY = [
    *("desk", "--device=cpu", "--n_layer=4", "--n_head=2", "--n_embd=16", "--model.module_kwargs.bank_multiple=8"),
    *("--data.module=gpt_data.document_aligned", "--data.module_kwargs={dataset: tiny, prefetch: 0}"),
    *("--training.context_length=16", "--training.max_steps=7", "--training.device_batch_size=1"),
    *("--training.gradient_accumulation_steps=4", "--training.fused_loss=auto"),
    *("--stages.extension_steps=1", "--stages.device_batch_size=[1,2,3]", "--stages.max_document=[4096]"),
    *("--stages.block=2", "--stages.windows=[[1,3],[3,7],[5,11]]", "--stages.extension_windows=[6,13]"),
    *("--stages.final_windows=[6,20]", "--stages.lr=[1.0,1.52,1.73]"),
    *("--model.module_kwargs.window_short=2", "--model.module_kwargs.window_long=6", "--eval.eval_iters=4"),
    *("--generate.max_new_tokens=0", "--momentum_scheduler.module_kwargs.warmup_iters=3", "--eval.eval_every=0"),
    *("--momentum_scheduler.module_kwargs.cooldown_iters=1", "--scheduler.module_kwargs.end_factor=0.1"),
    *("--optimizer.module_kwargs.learning_rate=0.023", "--optimizer.module_kwargs.adam_learning_rate=0.008"),
]
"""Everything that a test looks at is said here: `desk` may change."""


class Speedrun:
    """A folder with data/tiny, many short documents, and the app."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        draw = random.Random(0)
        texts = folder / "texts"
        texts.mkdir()
        for number in range(120):
            words = draw.choices(WORDS, k=draw.randrange(2, 12))
            (texts / f"{number:03}.txt").write_text(" ".join(words), encoding="utf-8")
        prepare("text", [texts], tokenizer="byte", out=folder / "data" / "tiny", quiet=True)

    def run(self, *arguments):
        """The app in this process; the message or status that it ended with, None for success."""
        before, argv, modules = dict(os.environ), sys.argv, set(sys.modules)
        sys.argv = [str(APP), *map(str, arguments)]
        os.environ.update(DATA_ROOT=str(self.folder / "data"))
        try:
            with no_picture():
                runpy.run_path(str(APP), run_name="__main__")
        except SystemExit as end:
            return end.code or None
        finally:
            sys.argv = argv
            os.environ.clear()
            os.environ.update(before)
            for name in set(sys.modules) - modules:  # another app's file may have the same name
                if str(APP) in str(getattr(sys.modules[name], "__file__", "")):
                    del sys.modules[name]
        return None

    def train(self, name, *more):
        return self.run(*TINY, f"--out_dir={self.out}", f"--run_name={name}", *more)

    def weights(self, name):
        return load_file(find_checkpoint(self.out / name) / "model.safetensors")

    def metrics(self, name):
        rows = (self.out / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, rows) if "event" not in row]


def train_on_ranks(speedrun, *arguments):
    """What a rank of a test runs."""
    exactly.exact_products()
    os.environ.update(process_environment(speedrun.folder))
    sys.exit(speedrun.train(*arguments))


class End(Hook):
    """After so many steps the process gets a signal: SIGKILL, as `kill -9`, or SIGINT, as Ctrl-C."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step(self, state):
        if state.step == self.step:
            os.kill(os.getpid(), self.number)


def train_and_end(speedrun, step, name_of_signal, *arguments):
    """What the process of a test runs."""
    from gpt_core.training import run

    make = run.make_hooks
    run.make_hooks = lambda *args: [*make(*args), End(step, getattr(signal, name_of_signal))]
    train_on_ranks(speedrun, *arguments)
