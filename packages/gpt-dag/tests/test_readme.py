"""The examples of the README run and print what the README says."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples_print_what_the_readme_shows(capsys):
    text = README.read_text(encoding="utf-8")
    names = {"__name__": "readme"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, str(README), "exec"), names)
    assert capsys.readouterr().out == "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
