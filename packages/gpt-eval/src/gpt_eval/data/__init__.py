"""Benchmark data: a folder of JSONL files with an index, read strictly; and how to fetch more of it."""

from gpt_eval.data.bundle import Bundle

__all__ = ["Bundle"]
