"""The type of docs/evaluation.md works as it stands there."""

import json
import re

import numpy as np

from gpt_eval import Scored, Task, evaluate
from workspace import ROOT


class Shortest:
    """Finds shorter texts likelier."""

    name, tokenizer_hash, supports = "shortest", "bytes", frozenset({"score"})
    max_length, eot_id, bos_id, prefix_space = 100, 0, None, False

    def encode(self, text, *, specials=False):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode()

    def score(self, requests):
        lengths = [len(continuation) for _, continuation in requests]
        return [Scored(np.full(n, -1.0, np.float32), np.zeros(n, bool)) for n in lengths]


def test_a_type_of_ones_own(tmp_path, monkeypatch):
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "types_of_ones_own").mkdir()
    (tmp_path / "types_of_ones_own/likelier.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"good": "a", "bad": "bb"}, {"good": "aaa", "bad": "b"}, {"good": "a", "bad": "cccc"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    results = evaluate(Shortest(), [Task("pairs", "types_of_ones_own.likelier", "pairs.jsonl")], tmp_path)
    assert [record.prediction for record in results.records["pairs/0-shot"]] == [0, 1, 0]
    assert results.tasks[0].accuracy == 2 / 3
