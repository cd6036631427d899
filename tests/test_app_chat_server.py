"""`apps/chat serve` over HTTP, as programs use and abuse it."""

import asyncio
import json
import logging
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from chat_toys import save_run, serving, serving_here
from hostility import bombard

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat") / "out"
    save_run(out, "base", template=None)
    save_run(out, "roles", template="roles")
    save_run(out, "toy", steps=(3, 5), context_length=4096)
    (out.parent / "secret").mkdir()
    save_run(out.parent / "secret", "run")
    (out / "link").symlink_to(out.parent / "secret/run")
    (out / "linked").mkdir()
    (out / "linked/checkpoints").symlink_to(out.parent / "secret/run/checkpoints")
    (Path(os.fsdecode(os.fsencode(out) + b"/\xff.pt"))).write_bytes(b"no name that JSON can carry")
    damaged = save_run(out, "damaged") / "checkpoints/step_000003/meta.json"
    damaged.write_text(damaged.read_text().replace('"n_layer": 2', '"n_layer": "x"'))
    (out / "x.pt").write_bytes(b"no checkpoint")
    return out


@pytest.fixture(scope="module")
def server(out):
    with serving_here(out / "toy", "--top_k", 3, "--rows", 4, "--busy_timeout", 2, "--queue", 6) as server:
        yield server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def wait_until(true, seconds):
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)


def test_openais_client_talks_to_it_in_one_piece_and_in_a_stream(sdk):
    assert next(iter(sdk.models.list())).id == "toy"
    asked = {"model": "toy", "messages": HI, "max_tokens": 30, "temperature": 1, "seed": 5}
    whole = sdk.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 30 and whole.usage.total_tokens == 30 + whole.usage.prompt_tokens
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_conversation_goes_on_beyond_what_is_read_where_the_oldest_may_go(client):
    for sizes, left_out in (([1] * 601, 102), ([3000] * 21, 12), ([1, 9000, 1], 0), ([1, 32_000, 1], 2)):
        messages = [{"role": ("user", "assistant")[i % 2], "content": "x" * size} for i, size in enumerate(sizes)]
        body = {"messages": [{"role": "system", "content": "s" * 100}, *messages], "max_tokens": 1, "temperature": 0}
        done = client.post("/v1/chat/completions", json={**body, "evict": True})
        assert done.status_code == 200 and (f"{left_out} older messages" in done.json().get("notice", "")) == bool(
            left_out
        )
        assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_several_samples_stop_texts_and_greedy(sdk):
    several = sdk.chat.completions.create(model="toy", messages=HI, n=3, seed=1, max_tokens=20, temperature=1.5)
    texts = [choice.message.content for choice in several.choices]
    assert len(set(texts)) == 3 and several.usage.completion_tokens == 60
    greedy = [
        sdk.chat.completions.create(model="toy", messages=HI, max_tokens=40, temperature=0).choices[0].message.content
        for _ in range(2)
    ]
    assert greedy[0] == greedy[1]
    stop = greedy[0][10:12]
    cut = sdk.chat.completions.create(model="toy", messages=HI, max_tokens=40, temperature=0, stop=stop).choices[0]
    assert cut.message.content == greedy[0][: greedy[0].index(stop)]
    assert cut.finish_reason == "stop"


def test_openais_client_gets_errors_as_it_knows_them(sdk):
    with pytest.raises(openai.BadRequestError, match="temperature must be a number from 0 to 2"):
        sdk.chat.completions.create(model="toy", messages=HI, temperature=3)
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not loaded; 'toy' is"):
        sdk.chat.completions.create(model="gpt-4", messages=HI)
    with pytest.raises(openai.BadRequestError, match="context holds 4096"):
        sdk.chat.completions.create(model="toy", messages=[{"role": "user", "content": "x" * 8000}])


def test_the_older_pages_interface(client):
    lines = client.post("/chat/completions", json={"messages": HI, "max_tokens": 12}).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert events[-1] == {"done": True}
    assert all(event["gpu"] == 0 and event["token"] for event in events[:-1])
    whole = client.post("/chat/completions", json={"messages": HI, "max_tokens": 12, "stream": False}).json()
    assert whole["choices"][0]["message"]["content"]
    for beyond in ({"temperature": 0}, {"temperature": 2.1}, {"max_tokens": 1025}, {"top_k": 1001}, {"message": ""}):
        assert client.post("/api/chat", json={"message": "hi", **beyond}).status_code == 400, beyond
    first = client.post("/api/chat", json={"message": "hi", "max_tokens": 5}).json()
    second = client.post(
        "/api/chat", json={"message": "so?", "session_id": first["session_id"], "max_tokens": 5}
    ).json()
    assert [message["role"] for message in second["conversation"]] == ["user", "assistant"] * 2
    assert second["conversation"][1]["content"] == first["response"]
    path = f"/api/session/{first['session_id']}"
    assert client.get(path).json()["conversation"] == second["conversation"]
    bad = client.post("/api/chat", json={"message": "x", "session_id": first["session_id"], "top_k": 0})
    assert bad.status_code == 400
    assert client.get(path).json()["conversation"] == second["conversation"], "only a complete answer is kept"
    assert client.post(f"/api/clear?session_id={first['session_id']}").json()["conversation"] == []
    assert client.get("/api/session/nobody").status_code == 404
    assert client.post("/api/clear").status_code == 400
    fresh = client.post("/api/session/new").json()["session_id"]
    assert client.get(f"/api/session/{fresh}").json()["conversation"] == []


def test_health_stats_and_metrics(client):
    client.post("/v1/chat/completions", json={"messages": HI, "max_tokens": 3})
    assert client.get("/health").json() == {"status": "ok", "ready": True, "num_gpus": 1, "available_workers": 1}
    stats = client.get("/stats").json()
    assert (stats["total"], stats["available"], stats["busy"]) == (4, 4, 0)
    assert client.get("/api/status").json()["template"] == "chatml"
    text = client.get("/metrics").text
    values = dict(re.findall(r"^(gpt_chat_\w+(?:\{[^}]*\})?) ([\d.e+]+)$", text, re.M))
    assert int(values['gpt_chat_answers_total{how="finished"}']) >= 1
    assert values['gpt_chat_first_token_seconds_bucket{le="+Inf"}'] == values["gpt_chat_first_token_seconds_count"]
    names = {name for line in text.splitlines() if not line.startswith("#") for name in [re.split(r"[{ ]", line)[0]]}
    typed = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} == typed


def test_the_page_and_its_parts_are_local_and_guarded(client):
    page = client.get("/")
    assert client.head("/").status_code == 200 and client.head("/").content == b""
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    parts = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert parts and all(part.startswith("/web/") for part in parts)
    for part in parts:
        assert client.get(part).status_code == 200
    for away in (
        "/web/..%2f__main__.py",
        "/web/%2e%2e/__main__.py",
        "/web/%00",
        "/web/server.py",
        "/openapi.json",
        "/docs",
    ):
        assert client.get(away).status_code == 404


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../secret/run", 403),
        ("/etc/passwd", 403),
        ("../x.pt", 403),
        ("link", 403),
        ("linked", 403),
        ("damaged", 400),
        ("toy/../../secret/run", 403),
        (".", 403),
        ("toy/../base/../..", 403),
        ("missing", 404),
        ("a" * 4000, 404),
        ("toy/tokenizer", 400),
        ("toy/tokenizer/gpt_tokenizer.json", 400),
        ("x.pt", 400),
        ("to\0y", 400),
        ("", 400),
        (7, 400),
    ],
)
def test_no_checkpoint_outside_the_root_and_a_failed_one_keeps_the_old(client, name, status):
    response = client.post("/api/load_checkpoint", json={"checkpoint": name})
    assert response.status_code == status, response.text
    assert client.get("/api/status").json()["model"] == "toy"
    assert client.post("/v1/chat/completions", json={"messages": HI, "max_tokens": 2}).status_code == 200


def test_a_refusal_reaches_a_client_that_sends_more_than_anybody_reads(client):
    for path, status in (("/v1/chat/completions", 413), ("/nowhere", 404), ("/health", 405)):
        for _ in range(3):
            response = client.post(path, content=b"x" * (6 << 20))
            assert response.status_code == status and response.json()["error"]["code"] == status


def test_other_models_are_loaded_and_listed_without_leaving_the_root(client):
    names = client.get("/api/checkpoints").json()["checkpoints"]
    assert {"toy", "toy/checkpoints/step_000003", "base", "roles", "x.pt"} <= set(names)
    assert not [name for name in names if "secret" in name or "link" in name]
    try:
        for name, kind in (("base", "base"), ("roles", "chat"), ("toy/checkpoints/step_000003", "chat")):
            assert client.post("/api/load_checkpoint", json={"checkpoint": name}).json()["model"] == name
            assert client.get("/api/status").json()["kind"] == kind
            assert client.post("/v1/chat/completions", json={"messages": HI, "max_tokens": 4}).status_code == 200
    finally:
        client.post("/api/load_checkpoint", json={"checkpoint": "toy"})


def test_strangers_pages_are_kept_out(client):
    body = {"messages": HI, "max_tokens": 2}
    path = "/v1/chat/completions"
    assert client.post(path, json=body, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post(path, json=body, headers={"origin": "null"}).status_code == 403
    assert client.post(path, json=body, headers={"host": "evil.example"}).status_code == 403
    assert client.post(path, json=body, headers={"origin": str(client.base_url).rstrip("/")}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/health").headers


LONG = {"messages": HI, "max_tokens": 3000, "temperature": 1}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place_within_a_second(server, client, stream):
    async def go_away():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as own:
            asking = asyncio.create_task(own.post("/v1/chat/completions", json={**LONG, "n": 4, "stream": stream}))
            while (await own.get("/stats")).json()["busy"] < 4:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            asking.cancel()

    asyncio.run(go_away())
    start = time.monotonic()
    wait_until(lambda: client.get("/stats").json()["busy"] == 0, 1)
    assert time.monotonic() - start < 1
    assert client.post("/v1/chat/completions", json={**LONG, "max_tokens": 2}).status_code == 200


def test_who_finds_no_place_waits_is_told_where_and_is_turned_away_in_time(server, client):
    async def crowd():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as own:
            first = asyncio.create_task(own.post("/v1/chat/completions", json={**LONG, "n": 4}))
            while (await own.get("/stats")).json()["busy"] < 4:
                await asyncio.sleep(0.02)
            shown = {**LONG, "max_tokens": 2, "stream": True, "stream_options": {"include_position": True}}
            told = asyncio.create_task(own.post("/v1/chat/completions", json=shown))
            await asyncio.sleep(0.3)
            waiting = [asyncio.create_task(own.post("/v1/chat/completions", json=LONG)) for _ in range(5)]
            await asyncio.sleep(0.3)
            over = await own.post("/v1/chat/completions", json=LONG)
            answers = await asyncio.gather(*waiting)
            first.cancel()
            return over, answers, await told

    over, answers, told = asyncio.run(crowd())
    assert over.status_code == 503 and "6 requests wait already" in over.json()["error"]["message"]
    for answer in answers:
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert "no place came free within 2 s" in answer.json()["error"]["message"]
    assert told.status_code == 200
    assert told.text.startswith(": position 1\n\n")
    assert json.loads(told.text.split("data: ")[1])["error"]["code"] == 503
    wait_until(lambda: client.get("/stats").json()["busy"] == 0, 2)


def test_a_server_that_ends_says_so_to_those_who_wait(out, caplog):
    logging.getLogger("uvicorn.error").addHandler(caplog.handler)
    options = ("--top_k", 3, "--devices", "cpu,cpu", "--rows", 1)
    with (
        serving_here(out / "toy", *options) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor() as pool,
    ):

        def ask(**more):
            return pool.submit(lambda: client.post("/v1/chat/completions", json={**LONG, **more}).text)

        def stats():
            return client.get("/stats").json()

        asked = [ask(stream=False), ask(stream=True)]
        wait_until(lambda: [worker["busy"] for worker in stats()["workers"]] == [1, 1], 20)
        asked += [ask(stream=stream, stream_options={"include_position": True}) for stream in (False, True)]
        wait_until(lambda: stats()["waiting"] == 2, 20)
        server.end()
        ends = [each.result(20) for each in asked]
    assert all("the server is ending" in text for text in ends), ends
    assert not caplog.records


def test_hostile_requests_are_refused_and_nothing_breaks(server, client):
    statuses = bombard(server.url, 300, seed=1)
    assert sum(statuses.values()) == 300 and statuses.get(400, 0) > 100 and statuses.get(200, 0) > 10
    assert client.get("/health").json()["ready"]
    assert not [line for line in server.said if "Traceback" in line or "failed" in line]


@pytest.fixture(scope="module")
def besieged(out):
    """A server in a process of its own, and the memory that it held once everything had been used."""
    with serving(out / "toy", "--top_k", 3, "--prefix_mb", 1) as server:
        bombard(server.url, 1000, seed=2)
        yield server, server.resident_bytes


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_hostile_requests_leave_the_memory_as_it_was(besieged, part):
    server, before = besieged
    statuses = bombard(server.url, 1000, seed=100 + part)
    assert sum(statuses.values()) == 1000
    assert server.resident_bytes - before < 16 << 20, (before, server.resident_bytes, statuses)
    assert not [line for line in server.said if "Traceback" in line]
