"""Chat benchmarks from a bundle to a result: refusals before anything runs, scores, labels, resumption."""

import json

import numpy as np
import pytest

from gpt_eval.errors import BundleError, CodeExecutionRefused, JudgeRequired, UnsupportedByBackend
from gpt_eval.evaluate import evaluate
from gpt_eval.judge import CallableJudge
from gpt_eval.model import Scored


class Assistant:
    """Says "B" first where it is asked for a letter; answers texts by their first words."""

    name, max_length, eot_id, bos_id, prefix_space, tokenizer_hash = "assistant", 8192, 0, None, False, "bytes"
    supports = frozenset({"score", "generate", "chat_score", "chat"})

    def __init__(self):
        self.generated = 0

    def encode(self, text, *, specials=False):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")

    def chat_ids(self, messages):
        return [1, *messages[-1]["content"].encode(), 2]

    def score(self, requests):
        return [
            Scored(np.full(len(ids), -0.5 if bytes(ids) == b"B" else -3.0, np.float32), np.zeros(len(ids), bool))
            for _, ids in requests
        ]

    def generate(self, prompts, *, n=1, **settings):
        self.generated += len(prompts)
        return [[self.reply(prompt)] * n for prompt in prompts]

    def reply(self, prompt):
        text = self.decode(prompt) if isinstance(prompt[0], int) else prompt[-1]["content"]
        if "def " in text:
            return "```\ndef f(x):\n    return x + 1\n```" if not isinstance(prompt[0], int) else "    return x + 1\n"
        return "so #### 42" if "six" in text else '"quoted"'


CODE = {"prompt": "def f(x):\n", "test": "def check(candidate):\n    assert candidate(1) == 2\n", "entry_point": "f"}
FILES = {
    "arc_easy": [{"question": f"q{i}", "choices": ["x", "y"], "gold": i % 2} for i in range(4)],
    "arc_challenge": [{"question": f"q{i}", "choices": ["x", "y"], "gold": 1} for i in range(2)],
    "mmlu": [{"question": "q", "choices": ["x", "y", "z", "w"], "gold": 1, "category": "law"}],
    "gsm8k": [{"question": "six times seven?", "answer": "#### 42"}, {"question": "two?", "answer": "#### 2"}],
    "human_eval": [CODE],
    "spellingbee_local": [{"question": "How many s in six?", "answer": "#### 1"}],
    "ifeval": [{"key": 1, "prompt": "Quote.", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}],
    "mt_bench": [{"turns": ["Hello.", "Again."], "category": "stem"}],
    "alpaca": [{"instruction": "Say it.", "output": "it"}],
    "flask": [{"instruction": "Say it.", "skills": ["factuality"]}],
}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle" / "chat"
    folder.mkdir(parents=True)
    for name, rows in FILES.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


def test_chatcore_whole_and_in_part(bundle):
    model = Assistant()
    results = evaluate(model, "chatcore5", bundle, allow_code_execution=True, output=None)
    scores = {task.task: task.accuracy for task in results.tasks}
    assert scores == {
        "chat_arc_easy": 0.5,
        "chat_arc_challenge": 1.0,
        "chat_mmlu": 1.0,
        "chat_gsm8k": 0.5,
        "chat_human_eval": 1.0,
    }
    ((name, average),) = results.averages.items()
    assert average["score"] == pytest.approx((1 / 3 + 1 + 1 + 0.5 + 1) / 5)
    assert average["coverage"] == "5/5" and average["partial"] and "partial" in average["label"]  # files are short
    (bundle / "chat" / "human_eval.jsonl").unlink()
    results = evaluate(model, "chatcore6", bundle, output=None)
    (average,) = results.averages.values()
    assert average["coverage"] == "5/6" and results.missing == ("chat_human_eval/0-shot",)
    assert name == "ChatCORE-5"


def test_programs_run_only_when_allowed(bundle):
    model = Assistant()
    with pytest.raises(CodeExecutionRefused, match="chat_human_eval runs programs"):
        evaluate(model, "chatcore", bundle, output=None)
    assert model.generated == 0


def test_judged_benchmarks_need_another_judge(bundle, tmp_path):
    model = Assistant()
    with pytest.raises(JudgeRequired, match="mt_bench needs --judge-url and --judge-model; nothing was run"):
        evaluate(model, "judged", bundle, output=None)
    oneself = CallableJudge(lambda messages: "[[4]]", "assistant")
    with pytest.raises(JudgeRequired, match="would judge its own answers"):
        evaluate(model, "judged", bundle, judge=oneself, output=None)
    assert model.generated == 0
    judge = CallableJudge(lambda messages: "[[A]]" if "[[A]]" in messages[0]["content"] else "[[4]]", "judge")
    results = evaluate(model, "judged", bundle, judge=judge, output=tmp_path / "out")
    found = {task.task: task.details for task in results.tasks}
    assert found["mt_bench"]["score"] == 4.0 and found["alpaca_local"]["score"] == 0.5
    assert found["flask"]["score"] == 4.0 and all(each["judge"] == "judge" for each in found.values())
    assert results.averages == {}
    written = (tmp_path / "out" / "results.json").read_text()
    assert "not comparable with published leaderboards" in written and json.loads(written)
    itself = evaluate(model, "flask", bundle, judge=oneself, allow_self_judge=True, output=None)
    assert itself.notes["self_judged"]


def test_a_judged_run_is_not_judged_twice(bundle, tmp_path):
    calls = []
    judge = CallableJudge(lambda messages: calls.append(1) or "[[4]]", "judge")
    first = evaluate(Assistant(), "flask", bundle, judge=judge, output=tmp_path / "out")
    second = evaluate(Assistant(), "flask", bundle, judge=judge, output=tmp_path / "out")
    assert len(calls) == 1 and first.tasks[0].details == second.tasks[0].details


def test_ifeval(bundle):
    result = evaluate(Assistant(), "ifeval", bundle, output=None).tasks[0]
    assert result.accuracy == 1.0 and result.details["inst_level_loose"] == 1.0 and result.partial


def test_a_base_model_is_refused_for_chat_and_runs_code(bundle):
    model = Assistant()
    model.supports = frozenset({"score", "generate"})
    with pytest.raises(UnsupportedByBackend, match="chat_gsm8k needs a model that can chat"):
        evaluate(model, "chat_gsm8k", bundle, output=None)
    (bundle / "index.yaml").write_text(
        "tasks:\n  - {name: human_eval, file: chat/human_eval.jsonl, type: code, notes: 'pass_at_k: 1'}\n"
    )
    result = evaluate(model, "human_eval", bundle, allow_code_execution=True, output=None).tasks[0]
    assert result.accuracy == 1.0 and result.metrics["pass@1"] == 1.0
    assert "resource limits" in result.details["isolation"]


def test_wrong_rows_name_file_and_line(bundle):
    with (bundle / "chat" / "gsm8k.jsonl").open("a") as file:
        file.write('{"question": "q", "answer": "42"}\n')
    with pytest.raises(BundleError, match=r'gsm8k.jsonl:3: answer has no "#### NUMBER"'):
        evaluate(Assistant(), "chat_gsm8k", bundle, output=None)
