"""Small models that apps/chat can load, as training leaves them, and a server of one."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from app_modules import app_modules
from gpt_core.checkpoint import save_model
from gpt_core.models import gpt
from gpt_data.chat import add_special_tokens
from gpt_data.tokenizers import ByteTokenizer
from workspace import ROOT

SIZES = {"context_length": 256, "n_layer": 2, "n_head": 2, "n_embd": 32, "position_encoding": "rope", "init_std": 0.2}


def save_run(out: Path, name: str, template: str | None = "chatml", steps: tuple[int, ...] = (3,), **sizes) -> Path:
    """out/NAME with a random model over bytes; template None: a base model."""
    tokenizer = ByteTokenizer() if template is None else add_special_tokens(ByteTokenizer(), template)
    kwargs = {"vocab_size": tokenizer.vocab_size, **SIZES, **sizes}
    run = out / name
    for step in steps:
        checkpoint = run / f"checkpoints/step_{step:06d}"
        checkpoint.mkdir(parents=True)
        torch.manual_seed(step)
        model = gpt(**kwargs)
        with torch.no_grad():  # a special token is as likely as the average: with a small top_k it never comes
            model.embed.weight[256:] = 0
        recipe = {"module": "gpt_core.models.gpt", "module_kwargs": kwargs}
        meta = {"step": step, "tokens": 9, "val_loss": 1.0, "model": recipe}
        save_model(checkpoint, model, meta if template is None else {**meta, "template": template})
    tokenizer.save(run / "tokenizer")
    return run


def turns(*texts, system=None):
    """Messages of the user and the assistant in turn, after one of the system."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + messages


class Server:
    """A running `apps/chat serve`; process None: in this one. `end` asks it to, as Ctrl-C does."""

    def __init__(self, process: subprocess.Popen | None, url: str, said: list[str], end: Callable[[], None]):
        self.process, self.url, self.said, self.end = process, url, said, end

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the process has used, over all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(model: Path, *arguments: object) -> Iterator[Server]:
    """Start the server on a free port; it ends with the block. AssertionError with what it said otherwise."""
    command = [sys.executable, str(ROOT / "apps/chat"), "serve", str(model), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    said: list[str] = []
    reader = None
    try:
        url = None
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"(http://\S+)", line):
                url = found[1]
                break
        assert url, "".join(said)
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
        reader.start()
        yield Server(process, url, said, lambda: process.send_signal(signal.SIGINT))
    finally:
        process.terminate()
        process.wait(20)
        if reader is not None:
            reader.join(5)
        process.stderr.close()


@contextlib.contextmanager
def serving_here(model: Path, *arguments: object) -> Iterator[Server]:
    """The same in a thread of this process, which is there at once; `said` holds what was logged."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(logging.Formatter().format(record))
    with app_modules("chat") as import_:
        options = import_("options").parse(["serve", str(model), *map(str, arguments)], None)
        serving = import_("serving")
        site = serving.open_site(options)
        server = serving.http_server(site, options)
        with serving.listen("127.0.0.1", 0) as listening:
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            logging.getLogger().addHandler(handler)
            try:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                yield Server(None, url, said, lambda: setattr(server, "should_exit", True))
            finally:
                server.should_exit = True
                thread.join(20)
                logging.getLogger().removeHandler(handler)
