"""The README's example runs as it is printed, and learns."""

import re
import subprocess
import sys
from pathlib import Path

import torch

from gpt_data import prepare

README = Path(__file__).parents[1] / "README.md"


def test_the_example_feeds_a_bare_torch_loop(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the log\n" * 300)
    prepare("text", [tmp_path / "text.txt"], tokenizer="byte", out=tmp_path / "data" / "stdlib")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    torch.manual_seed(0)
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    names: dict = {}
    exec(example, names)
    assert names["loss"].item() < 1.5  # ln(260) = 5.6 before training


def test_importing_is_cheap():
    """Preparing data must not wait seconds for torch, and no tokenizer library is needed to read ids."""
    check = "import sys, gpt_data; print({'torch', 'tiktoken', 'rustbpe', 'datasets'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "set()"
