"""The README's examples run as printed, print what it says, and its table names every public operation."""

import re
from pathlib import Path

import gpt_kernels

README = Path(__file__).parents[1].joinpath("README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)
HELPERS = ("_backend", "_reference", "_mask", "_table", "_frequencies", "_scale", "_lse")


def operations():
    """Functions of the package that compute something of their own."""
    public = {name for name in vars(gpt_kernels) if name[0].islower() and callable(getattr(gpt_kernels, name))}
    return {name for name in public if not name.endswith(HELPERS)}


def test_the_examples_run_and_print_what_they_say(capsys):
    names: dict = {}
    for example in EXAMPLES:
        exec(compile(example, "README.md", "exec"), names)
        expected = re.findall(r"^# (.+)$", example, re.M)
        assert [line.strip() for line in capsys.readouterr().out.splitlines()] == expected


def test_every_operation_is_in_the_table_and_in_an_example():
    code, tables = "\n".join(EXAMPLES), "\n".join(line for line in README.splitlines() if line.startswith("|"))
    assert operations() >= {"attention", "rms_norm", "polar_express", "fp8_linear", "cross_entropy"}
    for name in operations():
        assert re.search(rf"`{name}\b", tables), f"{name} is in no table"
        assert re.search(rf"\b{name}\b", code), f"{name} has no example"
