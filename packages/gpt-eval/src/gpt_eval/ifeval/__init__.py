"""IFEval: 25 instructions that a program can check, in a strict and a loose reading."""

from gpt_eval.ifeval.checks import CHECKS, Check
from gpt_eval.ifeval.language import Unscorable
from gpt_eval.ifeval.sentences import PunktSentences, RegexSentences, find_punkt
from gpt_eval.ifeval.verify import Verdict, check_instruction, loose_variants, verify

__all__ = [
    "CHECKS",
    "Check",
    "PunktSentences",
    "RegexSentences",
    "Unscorable",
    "Verdict",
    "check_instruction",
    "find_punkt",
    "loose_variants",
    "verify",
]
