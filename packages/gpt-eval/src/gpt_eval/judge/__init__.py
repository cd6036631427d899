"""Answers rated by another model. Local numbers: not comparable with published leaderboards, and labelled so."""

from gpt_eval.judge.judges import CallableJudge, FakeJudge, HTTPJudge, Judge, ReplayJudge
from gpt_eval.judge.prompts import VERSION
from gpt_eval.judge.statistics import bootstrap_interval
from gpt_eval.judge.verdicts import Verdict, ask

__all__ = [
    "VERSION",
    "CallableJudge",
    "FakeJudge",
    "HTTPJudge",
    "Judge",
    "ReplayJudge",
    "Verdict",
    "ask",
    "bootstrap_interval",
]
