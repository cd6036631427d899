"""HTTPModel against a small server on this machine whose tokens are words, and whose faults are chosen."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gpt_eval.errors import EvaluationError, UnsupportedByBackend
from gpt_eval.models import HTTPModel
from gpt_eval.models.echoed_tokens import echoed_scores
from gpt_eval.models.openai_api import OpenAIClient, Unreachable


def words(text):
    """Tokens as byte-level BPE cuts them: a word with the space before it."""
    tokens = []
    for character in text:
        if character == " " or not tokens or tokens[-1].endswith("\n"):
            tokens.append(character)
        else:
            tokens[-1] += character
    return tokens


def logprob(token):
    return -(sum(map(ord, token)) % 97) / 10 - 0.1


class Server(ThreadingHTTPServer):
    """OpenAI's API, as far as `faults` lets it: set them before the model is made."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.asked, self.failures, self.at_once, self.most_at_once = set(), [], [], 0, 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append((self.path, body, self.headers.get("Authorization")))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            failure = server.failures.pop(0) if server.failures else None
        try:
            if "slow" in server.faults:
                time.sleep(0.05)
            self.answer(body, failure)
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, body, failure):
        faults = self.server.faults
        if failure is not None:
            return self.send(failure, {"error": "made up"}, {"Retry-After": "3"})
        if "silent" in faults:
            return self.send(200, {"choices": [self.server.said]})
        if self.path.endswith("/chat/completions"):
            if "no chat" in faults:
                return self.send(404, {"error": "no such route"})
            said = f"{body['messages'][-1]['content']} seed {body.get('seed')}"
            return self.send(200, {"choices": [{"message": {"role": "assistant", "content": said}}]})
        if "no completions" in faults:
            return self.send(404, {"error": "no such route"})
        if not body.get("echo"):
            return self.send(200, {"choices": [{"text": f" and {body['max_tokens']} more"}]})
        if "no echo" in faults:
            return self.send(400, {"error": "echo is not supported"})
        if "cut" in faults:
            body["prompt"] = body["prompt"][-5:]
        return self.send(200, {"choices": [{"text": "", "logprobs": self.logprobs(body["prompt"], faults)}]})

    def logprobs(self, text, faults):
        tokens = [*words(text), " extra"]  # one generated token, as max_tokens=1 asks for
        numbers = [None, *map(logprob, tokens[1:])]
        tops = [None, *({token: number, "other": -5.0} for token, number in zip(tokens[1:], numbers[1:], strict=True))]
        if "start" in faults:
            tokens, numbers = ["<s>", *tokens], [None, -0.5, *numbers[1:]]
            tops = [None, {tokens[1]: -0.5}, *tops[1:]]
        return {"tokens": tokens, "token_logprobs": numbers, "top_logprobs": tops}

    def send(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def model_of(server):
    """A model at the server; waits instead of sleeping are kept in `server.waits`."""
    clients = []
    server.waits = []

    def make(*faults, **settings):
        server.faults = set(faults)
        clients.append(OpenAIClient(server.url, sleep=server.waits.append, key_env=settings.pop("key_env", None)))
        return HTTPModel(server.url, "words", client=clients[-1], **settings)

    yield make
    for client in clients:
        client.close()


def score(model, *pairs):
    return model.score([(model.encode(context), model.encode(continuation)) for context, continuation in pairs])


@pytest.mark.parametrize("fault", [None, "start"])
def test_scores_are_those_of_the_servers_tokens(model_of, fault):
    model = model_of(*filter(None, [fault]))
    assert model.supports == {"score", "generate", "chat"}
    one, two = score(model, ("The sky is", " blue today"), ("The sky is very", " dark"))
    np.testing.assert_allclose(one.logprobs, [logprob(" blue"), logprob(" today")], atol=1e-6)
    assert one.greedy.tolist() == [logprob(token) >= -5 for token in (" blue", " today")]
    assert two.num_tokens == 1


def test_off_a_tokens_edge_is_refused(model_of):
    with pytest.raises(EvaluationError, match="no token of the server begins where the continuation does"):
        score(model_of(), ("The sk", "y is"))


def test_an_echo_of_another_text_is_refused(model_of, server):
    model = model_of()
    server.faults = {"cut"}
    with pytest.raises(EvaluationError, match="does not spell the text"):
        score(model, ("The sky is", " blue"))


def test_what_the_server_cannot_do_is_refused_by_name(model_of, server):
    model = model_of("no echo", "no chat")
    assert model.supports == {"generate"}
    with pytest.raises(UnsupportedByBackend, match=r"words cannot score.*echo is not supported"):
        score(model, ("The sky is", " blue"))
    with pytest.raises(UnsupportedByBackend, match=r"words cannot chat.*404"):
        model.generate([[{"role": "user", "content": "Hi"}]], max_new_tokens=3)
    with pytest.raises(UnsupportedByBackend, match="chat template"):
        model.chat_ids([{"role": "user", "content": "Hi"}])
    assert model_of("no completions").supports == {"chat"}
    with pytest.raises(EvaluationError, match="neither score nor generate"):
        model_of("no completions", "no chat")


def test_generation_of_both_kinds(model_of, server):
    model = model_of()
    server.asked.clear()
    prompts = [model.encode("Once"), [{"role": "user", "content": "Hi"}]]
    assert model.generate(prompts, max_new_tokens=4, stops=["\n"]) == [[" and 4 more"], ["Hi seed 0"]]
    assert all(body["stop"] == ["\n"] and body["temperature"] == 0 for _, body, _ in server.asked)
    assert model.generate(prompts[1:], max_new_tokens=4, n=2) == [["Hi seed 0"] * 2]
    sampled = model.generate(prompts[1:], max_new_tokens=4, n=3, temperature=1.0, seed=7, top_k=5)
    assert sampled == [["Hi seed 7", "Hi seed 8", "Hi seed 9"]]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_that_may_pass_are_tried_again(model_of, server, status):
    model = model_of()
    server.failures = [status, status]
    assert score(model, ("The sky is", " blue"))[0].num_tokens == 1
    assert server.waits == [3.0, 3.0]  # what Retry-After asked for


def test_failures_that_stay_are_named(model_of, server):
    model = model_of()
    server.failures = [503] * 6
    with pytest.raises(EvaluationError, match=r"status 503.*made up.*tried 6 times"):
        score(model, ("The sky is", " blue"))
    server.failures = [400]
    with pytest.raises(EvaluationError, match="status 400"):
        score(model, ("The sky is", " blue"))
    assert len(server.waits) == 5  # a refusal is not tried again


CHAT = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (CHAT, {"message": {"content": None, "tool_calls": [1]}, "finish_reason": "tool_calls"}),
        (CHAT, {"message": {"role": "assistant"}, "finish_reason": "stop"}),
        (CHAT, {"message": {"content": [{"type": "text"}]}, "finish_reason": "stop"}),
        (CHAT, {"text": "of the other route"}),
        ([65], {"message": {"content": "of the other route"}}),
        ([65], {"text": None, "finish_reason": "content_filter"}),
    ],
)
def test_an_answer_without_text_is_an_error_and_no_wrong_answer(model_of, server, prompt, said):
    model = model_of()
    server.faults, server.said = {"silent"}, said
    with pytest.raises(EvaluationError, match="the server's answer has no text in"):
        model.generate([prompt], max_new_tokens=3)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_empty_answer_is_an_answer(model_of, server, reason):
    model = model_of()
    server.faults, server.said = {"silent"}, {"message": {"content": None}, "text": None, "finish_reason": reason}
    assert model.generate([CHAT, [65]], max_new_tokens=3) == [[""], [""]]


def test_several_requests_at_a_time_come_back_in_order(model_of, server):
    model = model_of(concurrency=4)
    server.faults = {"slow"}
    pairs = [("The sky is", f" colour{i}") for i in range(12)]
    scored = score(model, *pairs, pairs[0])
    np.testing.assert_allclose([one.sum for one in scored[:12]], [logprob(c) for _, c in pairs], atol=1e-6)
    assert scored[12].sum == scored[0].sum
    assert 2 <= server.most_at_once <= 4


def test_the_key_comes_from_the_environment_and_appears_nowhere(model_of, server, monkeypatch):
    with pytest.raises(EvaluationError, match="OUR_KEY is not set"):
        model_of(key_env="OUR_KEY")
    monkeypatch.setenv("OUR_KEY", "secret-123")
    model = model_of(key_env="OUR_KEY")
    assert server.asked[-1][2] == "Bearer secret-123"
    server.failures = [400]
    with pytest.raises(EvaluationError) as error:
        score(model, ("The sky is", " blue"))
    assert "secret" not in str(error.value) and "secret" not in repr(vars(model))


def test_a_server_that_is_not_there(monkeypatch):
    client = OpenAIClient("http://127.0.0.1:9/v1", retries=1, sleep=lambda seconds: None)
    with pytest.raises(Unreachable, match="is the server up"):
        HTTPModel("http://127.0.0.1:9/v1", "words", client=client)
    client.close()
    with pytest.raises(EvaluationError, match="no address of a server"):
        OpenAIClient("localhost:8000")


def test_end_of_text_is_written_as_the_model_writes_it(model_of, server):
    model = model_of(eot_text="<|endoftext|>")
    assert model.eot_id is not None
    (one,) = model.score([([model.eot_id], model.encode(" blue"))])
    assert one.num_tokens == 1 and server.asked[-1][1]["prompt"] == "<|endoftext|> blue"
    assert model_of().eot_id is None


def test_offsets_are_believed_where_tokens_are_parts_of_characters():
    """The euro sign in three tokens: their texts cannot be put together, the server's offsets can be used."""
    answer = {
        "tokens": ["cost", " ", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", " now", "!"],
        "token_logprobs": [None, -1.0, -2.0, -3.0, -4.0, -5.0, -9.0],
        "top_logprobs": [None, *({"x": -1.5} for _ in range(6))],
        "text_offset": [0, 4, 5, 5, 5, 6, 10],
    }
    scored = echoed_scores(answer, "cost € now", 5)
    assert scored.logprobs.tolist() == [-2.0, -3.0, -4.0, -5.0] and not scored.is_greedy
    assert echoed_scores(answer, "cost € now", 4).greedy.tolist() == [True, False, False, False, False]
    with pytest.raises(EvaluationError, match="does not spell"):
        echoed_scores(answer | {"text_offset": None}, "cost € now", 5)


@pytest.mark.parametrize("marks", [2, 3, 6])
def test_offsets_that_count_marks_as_characters_are_refused(marks):
    """vLLM's do: they reach the end of the text before its tokens are over, and a score of some is none of all."""
    tokens = ["a", " ", *["\ufffd"] * marks, "z"]
    tops, values = [None] + [{"x": -9.0}] * (len(tokens) - 1), [None] + [-1.0] * (len(tokens) - 1)
    answer = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
    text = "a " + "😀" * (marks // 3) if marks >= 3 else "a é"
    with pytest.raises(EvaluationError, match="does not spell"):
        echoed_scores(answer | {"text_offset": list(range(len(tokens)))}, text, 2)


@pytest.mark.parametrize(
    "change",
    [{"tokens": None}, {"token_logprobs": [None, None]}, {"top_logprobs": None}, {"top_logprobs": [None, None]}],
)
def test_an_incomplete_echo_is_refused(change):
    whole = {"tokens": ["a", " b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {" b": -1.0}]}
    assert echoed_scores(whole, "a b", 1).is_greedy
    with pytest.raises(EvaluationError):
        echoed_scores(whole | change, "a b", 1)
