"""Requests that join and leave a running batch get what they would get alone."""

import random

import pytest
import torch
from toys import any_gpt

from gpt_core.generate import ContinuousBatch, Request, Sampling, Tool, generate
from gpt_core.models import GPTConfig

CONTEXT = 96
ARCHITECTURES = {
    "gpt2": {},
    "smear": {"smear": True},
    "smear_windows": {"smear": True, "position_encoding": "rope", "window": 5, "window_pattern": "SSL"},
    "grouped": {"position_encoding": "rope", "n_kv_head": 2, "qk_norm": True},
    "windows": {"position_encoding": "rope", "window": 7, "window_pattern": "SSL"},
    "all_windows": {"position_encoding": "rope", "window": 16, "window_pattern": "S"},
    "softcaps": {"attention_softcap": 5.0, "logit_softcap": 9.0, "window": 5, "window_pattern": "SL"},
}
GREEDY = Sampling(temperature=0)


def build(name, **more):
    fields = {"vocab_size": 41, "context_length": CONTEXT, "n_layer": 3, "n_head": 4, "n_embd": 32, "init_std": 0.25}
    return any_gpt(0, **fields, **ARCHITECTURES[name], **more)


def prompts_of(count, longest, seed=0):
    draw = random.Random(seed)
    return [[draw.randrange(41) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def drain(batch, gathered=None, steps=None):
    """Run to the end (or some steps); {(ticket, sample): (ids, reason)}."""
    found = {} if gathered is None else gathered
    while batch.busy and (steps is None or steps > 0):
        for event in batch.step():
            ids, reason = found.get((event.ticket, event.sample), ([], None))
            assert reason is None, "nothing comes after the end"
            found[event.ticket, event.sample] = (ids + [event.token] * (event.token is not None), event.reason)
        steps = None if steps is None else steps - 1
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_rows_that_come_and_go_equal_the_recomputed_ones(name):
    model, draw = build(name), random.Random(1)
    prompts, budgets = prompts_of(8, 30), [draw.randint(1, 25) for _ in range(8)]
    budgets[3] = 66
    expected = generate(model, prompts, budgets, sampling=GREEDY, cache=False)
    batch, found, tickets = ContinuousBatch(model, 4, chunk=11), {}, []
    for prompt, budget in zip(prompts, budgets, strict=True):
        tickets.append(batch.add(Request(prompt, budget, GREEDY)))
        drain(batch, found, steps=draw.randint(0, 7))
        assert batch.running <= 4
    drain(batch, found)
    assert [found[ticket, 0] for ticket in tickets] == [(done.ids, done.reason) for done in expected]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prompts_that_come_together_are_encoded_in_one_pass(name):
    model, passes = build(name), []
    model.norm.register_forward_hook(lambda norm, x, y: passes.append(tuple(y.shape[:2])))
    batch = ContinuousBatch(model, 9)
    begun, known = prompts_of(1, 1)[0] * 20, prompts_of(7, 9, seed=2)
    batch.add(Request(begun, 4, GREEDY))
    begun += next(token for token, _ in drain(batch).values())
    prompts = [*known[:4], [*begun, 5, 6], *known[4:]]  # one of them is held already, but for its end
    passes.clear()
    tickets = [batch.add(Request(prompt, 12, GREEDY, num_samples=1 + (i == 2))) for i, prompt in enumerate(prompts)]
    found = drain(batch, steps=1)
    assert len(found) == 9 and passes[0] == (1, sum(map(len, known)) + 3) and passes[1] == (9, 1)
    drain(batch, found)
    expected = generate(model, prompts, 12, sampling=GREEDY, cache=False)
    assert [found[ticket, 0] for ticket in tickets] == [(done.ids, done.reason) for done in expected]
    assert found[tickets[2], 1] == found[tickets[2], 0]


def test_a_row_that_ends_at_once_leaves_its_place_to_the_prompt_that_is_half_encoded():
    model = build("grouped")
    prompts = [[1, 2, 3], [4] * 5, [7, 8] * 9]
    batch = ContinuousBatch(model, 3, chunk=12)
    tickets = [batch.add(Request(prompt, count, GREEDY)) for prompt, count in zip(prompts, (1, 9, 9), strict=True)]
    expected = generate(model, prompts, [1, 9, 9], sampling=GREEDY, cache=False)
    found = drain(batch)
    assert [found[ticket, 0] for ticket in tickets] == [(done.ids, done.reason) for done in expected]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_turns_of_a_conversation_encode_only_what_is_new(name):
    model = build(name)
    batch, ids = ContinuousBatch(model, 2), prompts_of(1, 1)[0] * 20
    for turn in range(3):
        prompt = ids + prompts_of(1, 8, seed=turn)[0]
        ticket = batch.add(Request(prompt, 9, GREEDY))
        answer, _ = drain(batch)[ticket, 0]
        assert answer == generate(model, [prompt], 9, sampling=GREEDY, cache=False)[0].ids
        ids = prompt + answer
    counts = batch.counts
    assert counts.prompt_tokens - counts.reused_tokens < len(ids), "no token was encoded twice"
    assert counts.reused_tokens > 20


def test_a_beginning_is_reused_where_no_window_has_forgotten_it():
    full, windowed = (ContinuousBatch(build(name), 2) for name in ("grouped", "windows"))
    shared = list(range(30))
    for batch in (full, windowed):
        for last in (31, 32):
            batch.add(Request([*shared, last], 5, GREEDY))
            drain(batch)
    assert full.counts.reused_tokens == 30
    assert windowed.counts.reused_tokens == 0, "its windows hold the last 7 tokens of the other conversation"


def test_nothing_is_kept_beyond_the_bytes_given():
    batch = ContinuousBatch(build("gpt2"), 2, prefix_bytes=3 * 64 * 32 * 8 * 2)  # 64 tokens, 3 layers, keys and values
    for start in range(6):
        batch.add(Request([(start + i) % 41 for i in range(25)], 4, GREEDY))
    drain(batch)
    assert len(batch.prefixes) == 2
    assert 0 < batch.prefixes.nbytes <= batch.prefixes.max_bytes
    none = ContinuousBatch(build("gpt2"), 2, prefix_bytes=0)
    none.add(Request(list(range(30)), 4, GREEDY))
    drain(none)
    assert len(none.prefixes) == 0


def test_a_seed_gives_the_same_sample_in_any_company():
    model = build("windows")
    request = Request([5, 6, 7], 40, Sampling(top_k=20, temperature=1.3), seed=7)
    alone = ContinuousBatch(model, 6)
    first = alone.add(request)
    expected = drain(alone)[first, 0]
    crowd = ContinuousBatch(model, 6)
    for prompt in prompts_of(4, 9):
        crowd.add(Request(prompt, 50))
    drain(crowd, {}, steps=4)
    ticket = crowd.add(request)
    assert drain(crowd)[ticket, 0] == expected


def test_samples_of_one_prompt_differ_and_depend_on_seed_and_number():
    model = build("gpt2")
    batch = ContinuousBatch(model, 4)
    several = batch.add(Request([1, 2, 3], 20, seed=3, num_samples=4))
    found = drain(batch)
    assert len({tuple(found[several, sample][0]) for sample in range(4)}) == 4
    assert len({found[several, sample][0][0] for sample in range(4)}) > 1, "the first tokens are drawn one by one"
    second = batch.add(Request([1, 2, 3], 20, seed=5))
    assert drain(batch)[second, 0] == found[several, 2]


def test_rows_draw_from_the_distribution_of_their_own_settings():
    batch = ContinuousBatch(build("gpt2"), 64)
    with torch.no_grad():
        probs = torch.softmax(batch.model(torch.tensor([[4, 9]]))[0, -1] / 0.7, -1)
    for seed in range(40):
        batch.add(Request([4, 9], 1, Sampling(temperature=0.7), seed=1000 * seed, num_samples=50))
    firsts = torch.tensor([ids[0] for ids, _ in drain(batch).values()])
    assert len(firsts) == 2000
    frequencies = torch.bincount(firsts, minlength=41) / 2000
    assert (frequencies - probs).abs().max() < 5 * (0.25 / 2000) ** 0.5
    mixed = [Sampling(temperature=0), Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(temperature=5)]
    tickets = [batch.add(Request([4, 9], 1, sampling)) for sampling in mixed for _ in range(3)]
    found = drain(batch)
    assert {found[ticket, 0][0][0] for ticket in tickets[:9]} == {int(probs.argmax())}


def test_the_repetition_penalty_counts_the_rows_own_tokens():
    batch = ContinuousBatch(build("gpt2"), 3)
    plain = batch.add(Request([3] * 5, 40, GREEDY))
    never_twice = batch.add(Request([3] * 5, 36, Sampling(temperature=0, repetition_penalty=1e9)))
    found = drain(batch)
    assert len(set(found[never_twice, 0][0])) == 36
    assert len(set(found[plain, 0][0])) < 36


def test_why_rows_end():
    model = build("gpt2")
    batch = ContinuousBatch(model, 3)
    greedy = generate(model, [[1, 2]], 5, sampling=GREEDY)[0].ids
    stop = greedy[3]
    stopped = batch.add(Request([1, 2], 50, GREEDY, stop_ids={stop}))
    long = batch.add(Request([7] * (CONTEXT - 3), 50, GREEDY))
    whole = batch.add(Request([8] * CONTEXT, 50, GREEDY))
    found = drain(batch)
    assert found[stopped, 0] == (greedy[: greedy.index(stop)], "stop_token")
    assert (len(found[long, 0][0]), found[long, 0][1]) == (4, "context")
    assert (len(found[whole, 0][0]), found[whole, 0][1]) == (1, "context")


def test_banned_tokens_are_never_drawn():
    batch = ContinuousBatch(build("gpt2"), 2)
    banned = tuple(range(0, 40))
    ticket = batch.add(Request([1], 9, banned_ids=banned))
    other = batch.add(Request([1], 30))
    found = drain(batch)
    assert found[ticket, 0][0] == [40] * 9
    assert set(found[other, 0][0]) != {40}


def test_padding_of_the_vocabulary_is_never_drawn():
    batch = ContinuousBatch(build("gpt2"), 2, vocab_size=3)
    ticket = batch.add(Request([1], 50, Sampling(temperature=50)))
    assert set(drain(batch)[ticket, 0][0]) == {0, 1, 2}


@pytest.mark.parametrize("when", [0, 1, 3, 8])
def test_a_cancelled_request_has_no_more_events_and_disturbs_nobody(when):
    model = build("windows")
    prompts = prompts_of(5, 30, seed=3)
    expected = generate(model, prompts, 30, sampling=GREEDY, cache=False)
    batch, found = ContinuousBatch(model, 3, chunk=8), {}
    tickets = [batch.add(Request(prompt, 30, GREEDY)) for prompt in prompts]
    drain(batch, found, steps=when)
    for gone in (tickets[0], tickets[2], tickets[3]):
        batch.cancel(gone)
    before = {key: len(ids) for key, (ids, _) in found.items()}
    drain(batch, found)
    for ticket, done in zip(tickets, expected, strict=True):
        ids, reason = found.get((ticket, 0), ([], None))
        if ticket in (tickets[1], tickets[4]):
            assert (ids, reason) == (done.ids, "length")
        else:
            assert len(ids) == before.get((ticket, 0), 0) and ids == done.ids[: len(ids)]
    assert not batch.busy


def test_many_newcomers_go_before_the_rows_and_rows_go_on_where_none_can_join():
    batch = ContinuousBatch(build("gpt2"), 4, chunk=10)
    first = batch.add(Request([1], 60, GREEDY))
    batch.step()
    newcomers = [batch.add(Request([i] * 10, 60, GREEDY)) for i in range(2, 8)]
    steps = [[event.ticket for event in batch.step()] for _ in range(6)]
    assert steps[:2] == [newcomers[:1], newcomers[1:2]]
    assert steps[2] == [newcomers[2], first, *newcomers[:3]], "the rows are full, and all get tokens"
    assert all(step == [first, *newcomers[:3]] for step in steps[3:])


def tool_of(run):
    return Tool(call_start=30, call_end=31, answer_start=32, answer_end=33, run=run)


class Scripted(torch.nn.Module):
    """A model that says the given tokens in order, whatever it reads; what it read stays in its cache's length."""

    supports_cache = True

    def __init__(self, said, prompt_length):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = GPTConfig(vocab_size=41, context_length=CONTEXT, n_layer=1, n_head=1, n_embd=2)
        self.said, self.prompt_length = said, prompt_length

    def forward(self, ids_BT, *, cache, only_last):
        T = ids_BT.shape[1]
        place = int(cache.positions(T).flatten()[-1]) + 1 - self.prompt_length
        cache.update(0, torch.zeros(1, 1, T, 2), torch.zeros(1, 1, T, 2))
        cache.advance(T)
        return torch.nn.functional.one_hot(torch.tensor([[self.said[place]]]), 41).float()


def test_a_closed_call_puts_its_answer_in_place_of_what_the_model_says():
    heard = []
    tool = tool_of(lambda ids: heard.append(list(ids)) or [9, 9])
    said = [1, 30, 5, 6, 31, 20, 20, 20, 20, 2, 3, 40]
    batch = ContinuousBatch(Scripted(said, 2), 1)
    batch.add(Request([0, 0], 50, GREEDY, stop_ids={40}, tool=tool))
    events = []
    while batch.busy:
        events += batch.step()
    assert heard == [[5, 6]]
    assert [event.token for event in events] == [1, 30, 5, 6, 31, 32, 9, 9, 33, 2, 3, None]
    assert [event.forced for event in events] == [False] * 5 + [True] * 4 + [False] * 3
    assert events[-1].reason == "stop_token" and events[-1].stop_id == 40


@pytest.mark.parametrize(
    ("said", "calls"),
    [
        ([1, 31, 2, 40], 0),  # closed without an opening
        ([30, 5, 40], 0),  # never closed
        ([30, 5, 31, 6, 40], 1),  # no answer: the model goes on
        ([30, 30, 5, 31, 40], 1),  # opened twice: from the last opening on
    ],
)
def test_calls_without_an_answer_change_nothing(said, calls):
    heard = []
    tool = tool_of(lambda ids: heard.append(list(ids)))
    batch = ContinuousBatch(Scripted(said, 1), 1)
    ticket = batch.add(Request([0], 50, GREEDY, stop_ids={40}, tool=tool))
    assert drain(batch)[ticket, 0] == (said[:-1], "stop_token")
    assert heard == [[5]] * calls


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], 5), "needs a prompt"),
        (Request([1], 0), "max_new_tokens ≥ 1"),
        (Request([1] * (CONTEXT + 1), 5), f"context holds {CONTEXT}"),
        (Request([1, 41], 5), r"\[0, 41\)"),
        (Request([-1], 5), r"\[0, 41\)"),
        (Request([1], 5, num_samples=4), r"\[1, 3\]"),
    ],
)
def test_requests_that_cannot_be_served(request_, message):
    batch = ContinuousBatch(build("gpt2"), 3)
    with pytest.raises(ValueError, match=message):
        batch.add(request_)
    assert not batch.busy


def test_a_model_without_a_cache_is_refused():
    model = build("gpt2")
    model.supports_cache = False
    with pytest.raises(ValueError, match="no key/value cache"):
        ContinuousBatch(model, 2)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=3)])
def test_a_row_without_finite_logits_ends_and_leaves_nothing_to_others(sampling):
    model = build("windows", weight_tying=False)
    with torch.no_grad():
        model.embed.weight[40] = float("nan")
    expected = generate(model, [[1, 2, 3], [4] * 20, [9] * 5], 30, sampling=GREEDY, cache=False)
    batch = ContinuousBatch(model, 3)
    first = batch.add(Request([1, 2, 3], 30, GREEDY))
    found = drain(batch, steps=1)
    bad = batch.add(Request([5, 40] * 15, 9, sampling, seed=1, num_samples=2))
    drain(batch, found, steps=1)
    assert [found[bad, sample] for sample in range(2)] == [([], "not_finite")] * 2
    assert not batch.prefixes.find([5, 40] * 15)
    long, short = batch.add(Request([4] * 20, 30, GREEDY)), batch.add(Request([9] * 5, 30, GREEDY))
    drain(batch, found)
    assert [found[ticket, 0][0] for ticket in (first, long, short)] == [done.ids for done in expected]


def test_samples_differ_for_seeds_of_any_sign():
    batch = ContinuousBatch(build("gpt2"), 3)
    ticket = batch.add(Request([1, 2, 3], 20, seed=-1, num_samples=3))
    found = drain(batch)
    assert len({tuple(found[ticket, sample][0]) for sample in range(3)}) == 3


def test_what_is_too_large_to_keep_costs_nothing_that_is_kept():
    batch = ContinuousBatch(build("gpt2"), 2, prefix_bytes=3 * 30 * 32 * 8 * 2)  # 30 tokens, 3 layers, keys and values
    for prompt in ([1] * 20, [2] * 60):
        batch.add(Request(prompt, 4, GREEDY))
        drain(batch)
    assert len(batch.prefixes) == 1 and batch.prefixes.find([1] * 20)


def test_a_cleared_batch_begins_anew():
    model = build("windows")
    batch, prompts = ContinuousBatch(model, 2, chunk=8), prompts_of(4, 30, seed=3)
    for prompt in prompts:
        batch.add(Request(prompt, 30, GREEDY))
    drain(batch, steps=3)
    batch.clear()
    assert not batch.busy and not batch.step() and len(batch.prefixes) == 0
    ticket = batch.add(Request(prompts[0], 30, GREEDY))
    assert drain(batch)[ticket, 0][0] == generate(model, prompts[:1], 30, sampling=GREEDY, cache=False)[0].ids
