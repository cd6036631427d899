"""The server's inside: places and who waits for them, sessions, answers that nobody reads."""

import asyncio
from types import SimpleNamespace

import pytest
import torch

from app_modules import app_modules
from chat_toys import save_run, turns
from gpt_core.generate import Sampling


@pytest.fixture(scope="module")
def app():
    """app("speaker") is that module of apps/chat."""
    with app_modules("chat") as import_:
        yield import_


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat")
    save_run(out, "toy")
    return out


class Place:
    def __init__(self, rows):
        self.rows, self.busy = rows, 0


def test_places_are_handed_out_in_order_and_come_back(app):
    hall_module = app("hall")

    async def scene():
        hall, told = hall_module.Hall([Place(2), Place(2)], timeout=5, most_waiting=3), []
        first = [await hall.enter(1) for _ in range(4)]
        assert sorted(worker.busy for worker in hall.workers) == [2, 2]
        big = asyncio.create_task(hall.enter(2, lambda position: told.append(("big", position))))
        await asyncio.sleep(0)
        small = asyncio.create_task(hall.enter(1, lambda position: told.append(("small", position))))
        gone = asyncio.create_task(hall.enter(1))
        await asyncio.sleep(0)
        with pytest.raises(hall_module.Busy, match="3 requests wait already"):
            await hall.enter(1)
        gone.cancel()
        await asyncio.sleep(0)
        hall.leave(first[0], 1)
        await asyncio.sleep(0)
        assert not big.done() and not small.done(), "who came first is first, though the second would fit"
        hall.leave(first[2], 1) if first[2] is first[0] else hall.leave(next(w for w in first[1:] if w is first[0]), 1)
        await asyncio.sleep(0.01)
        assert big.done() and not small.done()
        hall.leave(big.result(), 2)
        await small
        assert told == [("big", 1), ("small", 2), ("small", 1)]
        assert hall.waiting == 0 and sum(worker.busy for worker in hall.workers) == 3

    asyncio.run(scene())


def test_a_worker_that_is_replaced_ends_when_nobody_has_a_place_there(app):
    class Closing(Place):
        closed = False

        def close(self):
            self.closed = True

    async def scene():
        old, idle, new = Closing(1), Closing(1), Place(1)
        hall = app("hall").Hall([old, idle], timeout=5, most_waiting=3)
        assert await hall.enter(1) is old
        waiting = asyncio.create_task(hall.enter(1))
        idle.busy = 1
        await asyncio.sleep(0)
        hall.leave(old, 1)  # promised to the one who waits, and who does not know yet
        hall.swap([new])
        assert not old.closed and not idle.closed
        assert await waiting is old
        hall.leave(old, 1)
        hall.leave(idle, 1)
        assert old.closed and idle.closed and await hall.enter(1) is new

    asyncio.run(scene())


def test_nobody_waits_longer_than_told_and_no_place_is_lost(app):
    hall_module = app("hall")

    async def scene():
        hall = hall_module.Hall([Place(1)], timeout=0.05, most_waiting=5)
        worker = await hall.enter(1)
        with pytest.raises(hall_module.Busy, match=r"within 0\.05 s"):
            await hall.enter(1)
        waiting = asyncio.create_task(hall.enter(1))
        await asyncio.sleep(0)
        hall.leave(worker, 1)  # given to the one who waits, who goes in the same moment
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert worker.busy == 0 and hall.waiting == 0

    asyncio.run(scene())


def test_who_may_call_the_server(app):
    allowed = app("serving").allowed_hosts
    assert allowed("127.0.0.1", []) == {"localhost", "127.0.0.1", "::1"}
    assert allowed("0.0.0.0", []) is None and allowed("::", []) is None
    assert "gpu-box" in allowed("0.0.0.0", ["GPU-box"])


@pytest.fixture
def hall(app, out):
    """One worker of the small model, and what its requests are counted by."""
    workers = app("site_state").start_workers(out / "toy", "latest", app("loading").How(), ["cpu"], 3, 1 << 20)
    hall = app("hall").Hall(workers, timeout=60, most_waiting=3)
    hall.metrics = app("metrics").Metrics()
    yield hall
    workers[0].abandon()


def ask_of(app, count=20, **more):
    return app("validation").Ask(turns("hi"), Sampling(top_k=3), count, **more)


async def become(true):
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_an_answer_that_nobody_reads_gives_its_place_back(app, hall):
    async def scene():
        answering = await app("service").answer(ask_of(app, samples=2), hall, hall.metrics)
        assert hall.workers[0].busy == 2
        await become(lambda: hall.workers[0].busy == 0)
        pieces = [piece async for piece in answering]
        answering.close()
        assert sum(piece.tokens for piece in pieces) == 40 and hall.workers[0].busy == 0
        assert hall.metrics.answers == {"finished": 1} and hall.metrics.new_tokens == 40

    asyncio.run(scene())


def test_a_model_that_fails_fails_its_answers_only(app, hall):
    worker, failed = hall.workers[0], app("service").WorkerFailed

    async def said():
        answering = await app("service").answer(ask_of(app), hall, hall.metrics)
        try:
            return sum([piece.tokens async for piece in answering])
        finally:
            answering.close()

    async def scene():
        step, worker._batch.step = worker._batch.step, lambda: 1 / 0
        for answer in await asyncio.gather(said(), said(), return_exceptions=True):
            assert isinstance(answer, failed)
        worker._batch.step = step
        weights = worker.loaded.model.norm.weight
        kept = weights.detach().clone()
        with torch.no_grad():
            weights.fill_(float("nan"))
            with pytest.raises(failed):
                await said()
            weights.copy_(kept)
        assert await said() == 20 and worker.busy == 0
        assert hall.metrics.answers == {"failed": 3, "finished": 1}

    asyncio.run(scene())


def test_a_session_holds_what_is_read_and_stays_cleared(app, hall):
    module = app("sessions")
    site = SimpleNamespace(hall=hall, metrics=hall.metrics)

    async def scene():
        session = module.Session(turns(*["x" * 3000] * 20))
        said = await module._turn(site, "s", session, "hi", Sampling(top_k=3), 9)
        assert len(said["conversation"]) == 12 and session.messages == said["conversation"]
        assert "10 older messages are left out" in said["notice"]
        asking = asyncio.create_task(module._turn(site, "s", session, "so?", Sampling(top_k=3), 9))
        await become(lambda: hall.workers[0].busy == 1)
        session.messages = []
        assert (await asking)["response"] and session.messages == []

    asyncio.run(scene())


def test_sessions_are_forgotten_when_idle_and_the_oldest_when_there_are_many(app):
    sessions = app("sessions").Sessions(idle_seconds=3600, most=2)
    names = [sessions.new()[0] for _ in range(2)]
    sessions.get(names[0])
    sessions.new()
    assert sessions.get(names[0])
    with pytest.raises(app("validation").Refused, match="no such session"):
        sessions.get(names[1])
    sessions.get(names[0]).used -= 3601
    with pytest.raises(app("validation").Refused, match="an hour"):
        sessions.get(names[0])


def test_answers_are_remembered_up_to_a_number_of_tokens(app, monkeypatch):
    monkeypatch.setattr(app("speaker"), "REMEMBERED_TOKENS", 10)
    answers = app("speaker")._Answers()
    for name, count in (("a", 4), ("b", 4), ("a", 5), ("c", 1)):
        answers.put(b"", name, [7] * count)
    assert answers.get(b"", "a") == [7] * 5 and answers.get(b"", "b") == [7] * 4
    answers.put(b"", "d", [7])
    assert [name for name in "abcd" if answers.get(b"", name)] == ["a", "b", "d"], "c was used longest ago"


def test_a_port_that_is_taken_is_one_line(app):
    listen = app("serving").listen
    with listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match=r"in use.*; choose another --host or --port"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_client_that_takes_nothing_is_given_up(app, monkeypatch):
    streams, closed = app("streams"), []
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.05)

    async def scene():
        async def one():
            yield b"x"

        async def forever(*message):
            if not message or message[0]["type"] == "http.response.body":
                await asyncio.sleep(60)

        await asyncio.wait_for(streams.EventStream(one(), lambda: closed.append(True))({}, forever, forever), 5)

    asyncio.run(scene())
    assert closed == [True]


def test_an_answer_whose_stream_never_began_gives_its_place_back(app):
    streams, closed = app("streams"), []

    async def scene():
        async def never():
            yield b"x"

        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            await asyncio.sleep(60)

        await streams.EventStream(never(), lambda: closed.append(True))({"type": "http"}, receive, send)

    asyncio.run(scene())
    assert closed == [True]
