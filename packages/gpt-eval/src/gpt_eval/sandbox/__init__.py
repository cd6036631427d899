"""Runs generated programs where they can do little harm, and tells a test that passed from one that says it did."""

from gpt_eval.sandbox.execute import Execution, isolation, run_native, run_python
from gpt_eval.sandbox.limits import Limits

__all__ = ["Execution", "Limits", "isolation", "run_native", "run_python"]
