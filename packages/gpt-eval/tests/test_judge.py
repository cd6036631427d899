"""Benchmarks that another model judges, with judges that follow a rule."""

import http.server
import json
import math
import threading

import numpy as np
import pytest

from gpt_eval.errors import BundleError, EvaluationError, JudgeRequired
from gpt_eval.judge import CallableJudge, FakeJudge, HTTPJudge, ReplayJudge, ask, bootstrap_interval, prompts
from gpt_eval.judge.benchmarks import BENCHMARKS
from gpt_eval.judge.verdicts import letter, rating
from gpt_eval.task import Task
from gpt_eval.types import judged

MT = {"turns": ["Write.", "Shorter."], "category": "writing", "question_id": 1}
MATH = {"turns": ["1+1?"], "category": "math", "reference": ["It is 2."]}
ALPACA = {"instruction": "Say hello.", "output": "hello there, dear user"}
FLASK = {"instruction": "Why?", "reference": "So.", "skills": ["Factuality", "logical-robustness"]}


class Talker:
    """Answers with the number of turns so far, and remembers what it was asked."""

    name = "talker"

    def __init__(self):
        self.asked = []

    def generate(self, conversations, *, max_new_tokens, temperature):
        self.asked.append((len(conversations), temperature, max_new_tokens))
        return [[f"answer {len(talk)}: {talk[-1]['content']}"] for talk in conversations]


def judged_records(name, rows, function, kind=CallableJudge, **options):
    judge = kind(function, "the judge") if callable(function) else function
    task = Task(name, "judged", "f.jsonl", options={"benchmark": name, "judge": judge, **options})
    assert [judged.check_row(row, task) for row in rows] == [None] * len(rows)
    model = Talker()
    items = judged.make_items(task, rows, range(len(rows)), model, "harness")
    answers = judged.answer(task, items, model)
    records = [judged.grade(task, item, texts, "harness") for item, texts in zip(items, answers, strict=True)]
    found = judged.summarize(task, records)
    json.dumps([dict(record.detail) for record in records] + [dict(found)])
    return records, found, model


def test_mt_bench_has_two_turns_and_a_temperature_per_category():
    seen = []

    def judge(messages):
        seen.append(messages)
        return "Good. [[8]]" if "Shorter." in messages[1]["content"] else "Fine. [[5]]"

    records, found, model = judged_records("mt_bench", [MT, MATH], judge)
    assert sorted(model.asked) == [(1, 0.0, 1024), (1, 0.7, 1024), (1, 0.7, 1024)]
    assert records[0].detail["answers"] == ["answer 1: Write.", "answer 3: Shorter."]
    assert records[0].prediction == 6.5 and records[0].correct == 0.65 and records[1].prediction == 5
    assert found["parts"] == {"turn_1": 5.0, "turn_2": 8.0} and found["score"] == 5.75
    assert found["categories"] == {"math": 5.0, "writing": 6.5}
    first, second, math_turn = (messages[1]["content"] for messages in seen)
    assert "answer 1" in first and "Shorter." not in first
    assert "answer 1" in second and "answer 3" in second
    assert "It is 2." in math_turn and "reference" in seen[2][0]["content"] and "reference" not in seen[0][0]["content"]
    assert "not comparable" in found["label"] and found["judge"] == "the judge" and found["judge_prompts"] == "1"


@pytest.mark.parametrize(
    "verdict_of, value, consistent",
    [
        (lambda first: "[[A]]" if "answer 1" in first else "[[B]]", 1.0, 1.0),
        (lambda first: "[[B]]" if "answer 1" in first else "[[A]]", 0.0, 1.0),
        (lambda first: "[[A]]", 0.5, 0.0),  # whoever is first: a preference for the place is a tie
        (lambda first: "[[C]]", 0.5, 1.0),
    ],
)
def test_alpaca_asks_in_both_orders(verdict_of, value, consistent):
    def judge(messages):
        return verdict_of(messages[1]["content"].split("<assistant A>")[1].split("</assistant A>")[0])

    records, found, _ = judged_records("alpaca_local", [ALPACA], judge)
    assert records[0].correct == value and found["score"] == value and found["parts"]["consistent"] == consistent
    assert found["parts"]["length"] == len("answer 1: Say hello.")
    assert found["parts"]["baseline_length"] == len(ALPACA["output"])


def test_flask_grades_each_skill():
    def judge(messages):
        return "[[5]]" if "factuality" in messages[0]["content"] else "[[2]]"

    records, found, _ = judged_records("flask", [FLASK], judge)
    assert records[0].prediction == 3.5 and records[0].correct == 0.7
    assert found["parts"] == {"factuality": 5.0, "logical robustness": 2.0}
    assert len(prompts.SKILLS) == 12


def test_an_unreadable_verdict_is_asked_for_once_more_then_left_out():
    calls = []

    def second_time(messages):
        calls.append(len(messages))
        return "[[4]]" if len(messages) == 4 else "I like it."

    verdict = ask(CallableJudge(second_time, "j"), [{"role": "user", "content": "x"}] * 2, rating(1, 10))
    assert verdict.value == 4 and verdict.replies == ("I like it.", "[[4]]") and calls == [2, 4]
    rows = [FLASK] * 30

    def fails_once(messages, left=[2]):  # noqa: B006 the two tries of one verdict
        left[0] -= 1
        return "[[3]]" if left[0] < 0 else "hm"

    records, found, _ = judged_records("flask", rows, fails_once)
    assert math.isnan(records[0].correct) and records[0].unscored and records[1].correct == 0.6
    assert found["judge_parse_failures"] == 1 and found["n_judged"] == 29 and found["score"] == 3.0
    assert "accuracy" not in found
    _, found, _ = judged_records("flask", rows[:5], lambda messages: "no idea")
    assert found["accuracy"] is None and found["score"] is None and "could not be read" in found["withdrawn"]


def test_a_judge_for_tests_gives_no_score():
    records, found, _ = judged_records("flask", [FLASK], lambda messages: "[[5]]", kind=FakeJudge)
    assert records[0].correct == 1.0
    assert found["accuracy"] is None and found["score"] is None and "judge for tests" in found["withdrawn"]


def test_a_judge_for_tests_stays_one_behind_a_file_of_replies(tmp_path):
    path = tmp_path / "replies.jsonl"
    assert ReplayJudge(path, FakeJudge(lambda messages: "[[5]]")).for_tests
    assert not ReplayJudge(path, CallableJudge(lambda messages: "[[5]]", "j")).for_tests


def test_without_a_judge_nothing_is_made():
    task = Task("mt_bench", "judged", "f", options={"benchmark": "mt_bench"})
    with pytest.raises(JudgeRequired, match="mt_bench needs --judge-url and --judge-model; nothing was run"):
        judged.make_items(task, [MT], [0], Talker(), "harness")
    assert judged.NEEDS_JUDGE


@pytest.mark.parametrize(
    "name, row, words",
    [
        ("mt_bench", {"turns": [], "category": "math"}, "turns must be texts"),
        ("mt_bench", {"turns": ["a"], "category": "sport"}, "category must be one of writing"),
        ("alpaca_local", {"instruction": "a"}, "output must be text"),
        ("flask", {"instruction": "a", "skills": ["juggling"]}, r"unknown skills \['juggling'\]"),
    ],
)
def test_wrong_rows(name, row, words):
    import re

    assert re.search(words, judged.check_row(row, Task("t", "judged", "f", options={"benchmark": name})))


def test_an_unknown_benchmark_is_an_error():
    with pytest.raises(EvaluationError, match=r"benchmark must be one of mt_bench.*got 'arena'"):
        judged.check_row(MT, Task("t", "judged", "f", options={"benchmark": "arena"}))


@pytest.mark.parametrize(
    "reply, value",
    [("[[7]]", 7), ("first [[3]], no: [[ 9 ]]", 9), ("[[7.0]]", 7), ("[[7.5]]", None), ("[[11]]", None), ("7", None)],
)
def test_ratings(reply, value):
    assert rating(1, 10)(reply) == value


def test_letters():
    assert letter("[[A]] no [[B]]") == "B" and letter("A") is None and letter("[[D]]") is None


def test_replies_are_kept_and_found_again(tmp_path):
    path, calls = tmp_path / "replies.jsonl", []

    def judge(messages):
        calls.append(1)
        return "[[5]]"

    asked = [{"role": "user", "content": "x"}]
    recording = ReplayJudge(path, CallableJudge(judge, "j"))
    assert recording.id == "j" and recording.chat(asked) == recording.chat(asked) == "[[5]]" and len(calls) == 1
    again = ReplayJudge(path, id="j")
    assert again.chat(asked) == "[[5]]"
    with pytest.raises(EvaluationError, match="no reply to request"):
        again.chat(asked, seed=1)
    with pytest.raises(EvaluationError, match="no reply to request"):
        ReplayJudge(path, id="another").chat(asked)
    path.write_text(path.read_text() + '{"sha256": "ab')
    with pytest.raises(BundleError, match=r"replies.jsonl:2: no reply of a judge"):
        ReplayJudge(path, id="j")
    with pytest.raises(ValueError, match="needs the judge's id"):
        ReplayJudge(path)


@pytest.fixture
def server():
    """An OpenAI-like endpoint that is busy twice, then answers; remembers what it got."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), json.loads(body)))
            busy = len(got) <= 2
            answer = b"busy" if busy else json.dumps({"choices": [{"message": {"content": "[[6]]"}}]}).encode()
            self.send_response(429 if busy else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1", got
        httpd.shutdown()


def test_a_judge_behind_a_server(server, monkeypatch):
    url, got = server
    monkeypatch.setenv("JUDGE_KEY", "k")
    judge = HTTPJudge(url, "big-model", key_env="JUDGE_KEY")
    assert ask(judge, [{"role": "user", "content": "x"}], rating(1, 10)).value == 6
    assert len(got) == 3 and got[-1][0] == "/v1/chat/completions"
    assert got[-1][1]["authorization" if "authorization" in got[-1][1] else "Authorization"] == "Bearer k"
    assert got[-1][2]["model"] == "big-model" and got[-1][2]["temperature"] == 0.0 and got[-1][2]["seed"] == 0
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(EvaluationError, match="JUDGE_KEY is not set"):
        HTTPJudge(url, "m", key_env="JUDGE_KEY")


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [rng.normal(5.0, 2.0, 40) for _ in range(200)]
    intervals = [bootstrap_interval(list(draw), resamples=500) for draw in draws]
    assert 0.88 < np.mean([low <= 5.0 <= high for low, high in intervals]) < 0.99
    assert bootstrap_interval([]) is None and bootstrap_interval([3.0, 3.0]) == (3.0, 3.0)
    assert bootstrap_interval([1.0, 2.0, 5.0]) == bootstrap_interval([1.0, 2.0, 5.0])


def test_the_scales():
    assert {name: (kind.lowest, kind.top) for name, kind in BENCHMARKS.items()} == {
        "mt_bench": (1.0, 10.0),
        "alpaca_local": (0.0, 1.0),
        "flask": (1.0, 5.0),
    }
