"""Where triton is not installed the package imports, and every example of the README runs."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
HIDE = "import sys; sys.modules['triton'] = None  # as if it were not installed\n"


def run(code):
    command = [sys.executable, "-W", "ignore", "-c", HIDE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_triton_is_hidden():
    assert "ModuleNotFoundError" in run("import triton").stderr


def test_examples_run_without_triton():
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    done = run("\n".join(examples) + "\nfrom gpt_kernels.ops.dispatch import HAS_TRITON\nprint(HAS_TRITON)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
