"""The README's example runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_example_scores_a_model_made_on_the_spot(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (promised,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    # an untrained model's choices are near ties: what it gets right may differ with another version of torch
    shape = [re.sub(r"[+-]?0\.\d+", "0", line).split() for line in (printed + "\n").split("\n")]
    assert shape[:4] == [re.sub(r"[+-]?0\.\d+", "0", line).split() for line in promised.split("\n")][:4]
    accuracy, stderr, baseline, majority, centered = map(float, printed.splitlines()[3].split()[3:])
    assert (baseline, majority) == (0.5, 1.0) and centered == pytest.approx(2 * accuracy - 1, abs=0.002)
    assert stderr == pytest.approx((accuracy * (1 - accuracy) / 49) ** 0.5, abs=0.001)


def test_the_example_is_short():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
