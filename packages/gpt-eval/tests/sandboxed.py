"""What the tests of the sandbox share: a test, limits, and a short way to run a program."""

import pytest

from gpt_eval.sandbox import Limits, isolation, run_python

QUICK = Limits(seconds=5.0)  # what ends by itself
SHORT = Limits(seconds=1.0)  # what does not
TEST = "def check(candidate):\n    assert candidate(2) == 3\n    assert candidate([1]) == 3\n"


def needs(space: str) -> None:
    if space not in isolation():
        pytest.skip(f"this kernel gives this user no {space}: in force is {', '.join(isolation())}")


def verdict(program: str, test: str = TEST, limits: Limits = QUICK, **options):
    return run_python(program, test, entry_point="f", limits=limits, **options)
