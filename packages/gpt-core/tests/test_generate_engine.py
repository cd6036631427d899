"""The generation loop: equal to recomputing, batches equal to single rows, every way to end, seeds."""

import pytest
import torch
from torch import nn
from toys import any_gpt

from gpt_core.generate import Completion, Sampling, Step, generate, stream
from gpt_core.models import GPT, GPTConfig

CONTEXT = 16
GREEDY = Sampling(temperature=0)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13], [4]]
ARCHITECTURES = {
    "gpt2": {},
    "smear": {"smear": True, "weight_tying": False},
    "smear_windows": {"smear": True, "position_encoding": "rope", "window": 5, "window_pattern": "SSL"},
    "rope": {"position_encoding": "rope", "normalization": "rmsnorm", "ffn_type": "swiglu", "weight_tying": False},
    "no_positions": {"position_encoding": "none"},
    "grouped": {"position_encoding": "rope", "n_kv_head": 2},
    "window": {"position_encoding": "rope", "window": 5, "window_pattern": "S"},
    "mixed_windows": {"window": 4, "window_pattern": "SSL", "n_kv_head": 1},
    "post_norm_qk": {"norm_position": "post", "qk_norm": True},
}


def build(name="gpt2", **more):
    fields = {"vocab_size": 41, "context_length": CONTEXT, "n_layer": 3, "n_head": 4, "n_embd": 32, "init_std": 0.25}
    return any_gpt(5, **fields, **ARCHITECTURES[name], **more)  # greedy rows of seed 5 do not soon repeat themselves


def silent(message):
    pass


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    ("overflow", "sampling"),
    [("crop", GREEDY), ("stop", GREEDY), ("crop", Sampling(temperature=0.9, top_k=20, repetition_penalty=1.3))],
)
def test_cached_equals_recomputed_within_and_past_the_context(name, overflow, sampling):
    model = build(name)
    settings = {"sampling": sampling, "seed": 3, "overflow": overflow, "notify": silent}
    cached = generate(model, PROMPTS, 22, **settings)
    assert cached == generate(model, PROMPTS, 22, cache=False, **settings)
    assert len({token for row in cached for token in row.ids}) > 5, "a model that repeats itself tests nothing"


@pytest.mark.parametrize("overflow", ["crop", "stop"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_equals_its_rows_one_by_one(name, overflow):
    model = build(name)
    settings = {"sampling": GREEDY, "overflow": overflow, "notify": silent}
    alone = [generate(model, [prompt], 22, **settings)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, 22, **settings) == alone


@torch.no_grad()
def reference(model, prompt, new_tokens):
    """nanoGPT's loop, greedy: crop to the last S tokens, take the likeliest, append."""
    ids = list(prompt)
    for _ in range(new_tokens):
        ids.append(int(model(torch.tensor([ids[-CONTEXT:]]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_crop_is_the_textbook_loop_even_for_a_prompt_over_the_context():
    model, prompt = build(), list(range(1, 40))
    got = generate(model, [prompt, [7, 8]], 22, sampling=GREEDY, notify=silent)
    assert [row.ids for row in got] == [reference(model, prompt, 22), reference(model, [7, 8], 22)]
    assert {row.reason for row in got} == {"length"}


def test_a_full_context_is_said_once():
    said = []
    generate(build(), PROMPTS, 40, sampling=GREEDY, notify=said.append)
    assert len(said) == 1
    assert "context of 16 tokens is full" in said[0]
    said.clear()
    generate(build(), [[1]], CONTEXT, sampling=GREEDY, notify=said.append)
    assert not said, "16 new tokens from one need only 16 places: the last is never fed back"


def test_stop_ends_rows_where_the_context_is_full():
    rows = generate(build(), PROMPTS, 40, sampling=GREEDY, overflow="stop")
    assert [(len(row.ids), row.reason) for row in rows] == [
        (CONTEXT - len(prompt) + 1, "context") for prompt in PROMPTS
    ]


def test_stop_generates_nothing_for_a_prompt_over_the_context():
    model, long = build(), [3] * (CONTEXT + 1)
    got = generate(model, [long, [1, 2]], 5, sampling=GREEDY, overflow="stop", num_samples=2)
    assert got[:2] == [Completion([], "context")] * 2
    assert got[2:] == generate(model, [[1, 2]], 5, sampling=GREEDY) * 2


@pytest.mark.parametrize("position_encoding", ["rope", "none"])
def test_slide_goes_on_with_windows_in_every_layer(position_encoding):
    fields = {"position_encoding": position_encoding, "window": 5, "window_pattern": "S"}
    torch.manual_seed(0)
    model = GPT(GPTConfig(41, CONTEXT, n_layer=3, n_head=4, n_embd=32, init_std=0.25, **fields)).double()
    wide = GPT(GPTConfig(41, 100, n_layer=3, n_head=4, n_embd=32, **fields)).double()
    wide.load_state_dict(model.state_dict())
    got = generate(model, PROMPTS, 45, sampling=GREEDY, overflow="slide")
    assert got == generate(wide, PROMPTS, 45, sampling=GREEDY, cache=False), "sliding = a longer context"
    assert got == generate(model, PROMPTS, 45, sampling=GREEDY, overflow="slide", cache=False)
    assert model.config.context_length == CONTEXT


@pytest.mark.parametrize("name", ["gpt2", "rope", "mixed_windows"])
def test_slide_is_refused_where_it_means_nothing(name):
    with pytest.raises(ValueError, match=r"slide.*every layer.*crop"):
        generate(build(name), [[1]], 5, overflow="slide")


def test_stop_tokens_end_a_row_and_are_left_out():
    model = build()
    free = generate(model, PROMPTS, 12, sampling=GREEDY)
    stop_id = free[0].ids[4]
    rows = generate(model, PROMPTS, 12, sampling=GREEDY, stop_ids=[stop_id])
    for row, before in zip(rows, free, strict=True):
        if stop_id in before.ids:
            assert row == Completion(before.ids[: before.ids.index(stop_id)], "stop_token", stop_id)
        else:
            assert row == before
    assert {row.reason for row in rows} == {"stop_token", "length"}, "both kinds of end occur in this batch"


def test_stop_when_ends_a_row_after_its_token():
    model, calls = build(), []

    def third_of_row_1(row, token):
        calls.append((row, token))
        return row == 1 and sum(r == 1 for r, _ in calls) == 3

    free = generate(model, PROMPTS, 6, sampling=GREEDY)
    rows = generate(model, PROMPTS, 6, sampling=GREEDY, stop_when=third_of_row_1)
    assert rows[1] == Completion(free[1].ids[:3], "stop_text")
    assert [rows[i] for i in (0, 2, 3)] == [free[i] for i in (0, 2, 3)]


def test_budgets_per_prompt():
    model = build()
    rows = generate(model, PROMPTS, [2, 5, 1, 3], sampling=GREEDY)
    free = generate(model, PROMPTS, 5, sampling=GREEDY)
    assert rows == [Completion(row.ids[:n], "length") for row, n in zip(free, [2, 5, 1, 3], strict=True)]


def test_seeds_reproduce_and_differ():
    model = build()
    draws = [generate(model, PROMPTS, 10, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_samples_of_a_prompt_differ_and_share_its_encoding():
    model, passes = build(), []
    model.register_forward_hook(lambda module, args, out: passes.append(tuple(args[0].shape)))
    rows = generate(model, [[1, 2, 3], [4]], 6, num_samples=5, seed=0)
    assert passes == [(2, 3)] + [(10, 1)] * 5
    assert len({tuple(row.ids) for row in rows[:5]}) > 1
    assert rows == generate(model, [[1, 2, 3], [4]], 6, num_samples=5, seed=0, cache=False)


def test_ended_rows_are_not_computed_any_more():
    model, sizes = build(), []
    model.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    generate(model, PROMPTS, [1, 2, 4, 6], sampling=GREEDY)
    assert sizes == [3, 3, 2, 2, 1, 1], "equal prompts share the first pass; then one row less as each one ends"


def test_streaming_yields_as_it_goes():
    model, passes = build(), []
    model.register_forward_hook(lambda module, args, out: passes.append(1))
    steps = stream(model, [[1, 2]], 3, sampling=GREEDY)
    assert not passes
    first = next(steps)
    assert (first.row, first.reason, len(passes)) == (0, None, 1)
    rest = list(steps)
    assert [step.reason for step in rest] == [None, "length"]
    assert [first.token, *(step.token for step in rest)] == generate(model, [[1, 2]], 3, sampling=GREEDY)[0].ids
    assert isinstance(first, Step)


def test_the_model_is_left_as_it_was():
    model = build(dropout=0.5)
    expected = generate(model, PROMPTS, 5, sampling=GREEDY)
    model.train()
    steps = stream(model, PROMPTS, 5, sampling=GREEDY)
    next(steps)
    assert not torch.is_inference_mode_enabled(), "the caller's own code runs as before between steps"
    steps.close()
    assert model.training
    assert generate(model, PROMPTS, 5, sampling=GREEDY) == expected, "dropout is off while generating"
    assert model.training
    model(torch.tensor([[1]])).sum().backward()


def test_tokens_past_vocab_size_are_never_generated():
    free = generate(build(), [[1]], 20, seed=0)[0].ids
    assert max(free) > 20
    assert max(generate(build(), [[1]], 20, seed=0, vocab_size=20)[0].ids) < 20


def test_autocast_keeps_the_cache_in_its_dtype():
    model = build().float()
    with torch.autocast("cpu", torch.bfloat16):
        cached = generate(model, PROMPTS, 8, sampling=GREEDY)
    assert [len(row.ids) for row in cached] == [8] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["gpt2", "grouped", "window"])
def test_cuda_generates_what_the_cpu_does(name):
    model = build(name)
    expected = generate(model, PROMPTS, 30, sampling=GREEDY, notify=silent)
    model.cuda()
    assert generate(model, PROMPTS, 30, sampling=GREEDY, notify=silent) == expected
    draws = [generate(model, PROMPTS, 9, seed=5, cache=cache) for cache in (True, False)]
    assert draws[0] == draws[1]


def test_a_model_without_cache_is_said_and_recomputed():
    class Plain(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config = inner, inner.config

        def forward(self, ids_BT, only_last=False):
            return self.inner(ids_BT, only_last=only_last)

    model, said = build(), []
    got = generate(Plain(model), PROMPTS, 5, sampling=GREEDY, notify=said.append)
    assert got == generate(model, PROMPTS, 5, sampling=GREEDY)
    assert len(said) == 1
    assert "Plain has no key/value cache" in said[0]


@pytest.mark.parametrize(
    ("prompts", "arguments", "message"),
    [
        ([], {}, "no prompts"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, 41]], {}, "ids from 1 to 41.*vocabulary has 41"),
        ([[-1]], {}, "ids from -1"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ([[1]], {"max_new_tokens": [3, 4]}, "for each of 1 prompts"),
        ([[1]], {"num_samples": 0}, "num_samples must be at least 1"),
        ([[1]], {"overflow": "wrap"}, "overflow must be 'crop', 'stop' or 'slide', got 'wrap'"),
    ],
)
def test_bad_arguments_are_errors_before_the_first_step(prompts, arguments, message):
    with pytest.raises(ValueError, match=message):
        stream(build(), prompts, **{"max_new_tokens": 5, **arguments})


def test_a_model_without_config_is_named():
    with pytest.raises(ValueError, match="Linear has no `config` with context_length"):
        stream(nn.Linear(2, 2), [[1]], 2)
