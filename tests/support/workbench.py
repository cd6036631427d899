"""A tiny corpus, a tiny configuration, and apps/pretrain run inside the process or as its own."""

import os
import random
import runpy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from gpt_data import prepare
from workspace import ROOT

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]

TINY = """
__include__: base.yaml
general: {project_name: tiny, device: cpu, dtype: float32, threads: 1}
data: {module_kwargs: {dataset: tiny}}
model: {module_kwargs: {n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.1}}
scheduler: {module_kwargs: {warmup_iters: 2}}
training: {context_length: 16, device_batch_size: 4, global_batch_size: 8, max_steps: 6}
eval: {eval_every: 3, eval_iters: 2}
logging: {log_every: 2, style: quiet}
generate: {prompt: "a", max_new_tokens: 8}
"""


def process_environment(folder):
    """Variables for an app's own process: one thread, data below `folder`."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "DATA_ROOT": str(folder / "data"), "PYTHONIOENCODING": "utf-8"}


def no_picture():
    """Runs in this process do not draw their loss curve, which takes twice as long as a tiny run."""

    def touch(run_dir):
        path = Path(run_dir) / "report" / "loss.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path

    return mock.patch("gpt_core.monitor.loss_curve", touch)


class Workbench:
    """A folder with data/tiny, tiny.yaml and out/, and the pretrain app."""

    def __init__(self, folder):
        self.folder, self.out, self.config = folder, folder / "out", folder / "tiny.yaml"
        self.data = folder / "data" / "tiny"
        draw = random.Random(0)
        text = folder / "text.txt"
        text.write_text("\n".join(" ".join(draw.choices(WORDS, k=8)) for _ in range(200)))
        prepare("text", [text], tokenizer="char", out=self.data, quiet=True)
        self.config.write_text(TINY)

    def arguments(self, *arguments, config=None):
        return [str(config or self.config), f"--out_dir={self.out}", *map(str, arguments)]

    def process(self, *arguments, config=None, launcher=()):
        """Run the app as its own process; returns the finished process."""
        command = [sys.executable, *launcher, str(ROOT / "apps/pretrain"), *self.arguments(*arguments, config=config)]
        return subprocess.run(
            command, capture_output=True, text=True, env=process_environment(self.folder), timeout=120, check=False
        )

    def pretrain(self, *arguments, config=None, picture=False):
        """Run the app here, and a second or two faster; returns the error message of `sys.exit`, or None."""
        return self.app("pretrain", *self.arguments(*arguments, config=config), picture=picture)

    def app(self, name, *arguments, picture=False):
        """Run any app here with just these arguments; returns what `sys.exit` was given, None for success."""
        before, argv = dict(os.environ), sys.argv
        sys.argv = [f"apps/{name}", *map(str, arguments)]
        os.environ.update(DATA_ROOT=str(self.folder / "data"))
        try:
            with nullcontext() if picture else no_picture():
                runpy.run_path(str(ROOT / "apps" / name), run_name="__main__")
        except SystemExit as end:
            return end.code or None
        finally:
            sys.argv = argv
            os.environ.clear()
            os.environ.update(before)
        return None
