"""The README's example runs as printed."""

import re
from pathlib import Path


def test_the_example_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), re.S)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert float(capsys.readouterr().out) < 5.5
