"""The README's examples run as printed."""

import re
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), re.S)


@pytest.mark.parametrize("code", BLOCKS, ids=["module", "transformers"])
def test_the_example_learns(code, capsys):
    if "transformers" in code:
        pytest.importorskip("transformers")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert float(capsys.readouterr().out) < 5.0, "ln 256 is 5.55"
