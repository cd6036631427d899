"""The README's example runs as printed."""

import re
from pathlib import Path


def test_the_example_trains_saves_and_writes(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out.strip()
    promised = re.search(r'print\(.*\)  # "(.*)"', code)[1]
    assert printed == promised.strip()
    assert (tmp_path / "checkpoint" / "model.safetensors").exists()
