"""Running the cluster scripts from tests: their dry runs, and stand-ins for the programs that they call."""

import os
import shlex
import subprocess
import sys

from workspace import ROOT

SCRIPTS = ROOT / "scripts"
NASTY = ["--general.run_description", """it's "five" # $HOME $(date) `id` * \\ ;""", "--empty", ""]
"""Arguments that a script breaks when it quotes once too little."""


def call(script, *arguments, cwd, **env):
    """Run a script; returns the finished process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MASTER_", "OUT_DIR"))}
    command = [str(SCRIPTS / script if isinstance(script, str) else script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=clean | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )


def printed(process):
    """The commands of a dry run, as lists of words, by the name of their program."""
    assert process.returncode == 0, process.stderr
    lines = [shlex.split(line) for line in process.stdout.splitlines() if not line.startswith("#")]
    return {words[0].rpartition("/")[2]: words for words in lines}  # the last srun is the one that starts the app


def after(words, mark="--"):
    return words[words.index(mark) + 1 :]


def value(words, name):
    """The value of --NAME=VALUE."""
    (found,) = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return found


def program(path, source):
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
