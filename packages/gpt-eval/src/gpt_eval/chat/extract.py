"""The answer to a word problem as nanochat reads it; lm-evaluation-harness' rules are in `gpt_eval.types._answers`."""

from gpt_eval.types._answers import strict_number


def gsm8k_answer(text: str) -> str | None:
    """The number after the first "#### ", without thousands' commas; None where there is none, or no digit in it."""
    found = strict_number(text)
    return found.replace(",", "") if found and any(map(str.isdigit, found)) else None
