"""GPT with a DAG: what it adds to the plain one, that nothing sees the future, and what the gate does."""

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from gpt_core.models import gpt
from gpt_dag import DagGPT, DAGLogger, gpt_dag, parse
from gpt_dag.executor import Execution
from gpt_dag.models import from_gpt
from gpt_dag.models.controller import straight_through
from gpt_dag.models.gate import GateMixer
from gpt_dag.models.plan_source import SpanValues
from gpt_dag.models.read_out import BLANK, END, LENGTH, characters_of
from gpt_dag.models.spans import find_spans
from gpt_dag.models.value_embedding import FEATURES, LOG_PERIODS, value_features
from gpt_dag.plans import Plans
from gpt_dag.tokens import WordTokenizer

WORDS = WordTokenizer()
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16}
READER = {"vocab_size": WORDS.vocab_size, "n_layer": 1, "n_embd": 16, "n_head": 2}
PREDICTOR = {"plan_source": "predictor", "predictor_kwargs": READER}


def build(seed=0, context=24, **kwargs):
    torch.manual_seed(seed)
    return gpt_dag(WORDS.vocab_size, context, **{**SMALL, **kwargs})


def batch(*texts):
    ids = [WORDS.encode(text) for text in texts]
    longest = max(map(len, ids))
    return torch.tensor([row + [WORDS.pad_id] * (longest - len(row)) for row in ids])


def reads(values):
    """In place of a trained predictor: the value of every span, in order; None: unreadable."""

    def evaluate(ids_SL):
        given = list(values)[: len(ids_SL)]
        assert len(given) == len(ids_SL)
        real = torch.tensor([[float(v or 0)] for v in given], dtype=torch.float64).view(-1, 1)
        bad = torch.tensor([[v is None] for v in given], dtype=torch.bool).view(-1, 1)
        log = torch.where(real == 0, 1.0, real.abs()).log()
        return SpanValues(Execution(real.sign(), log, torch.zeros_like(bad), bad), given, None)

    return evaluate


# --- dag_depth = 0, and what a DAG adds


@pytest.mark.parametrize("fields", [{}, {"preset": "hybrid", "bias": True}])
def test_without_depth_it_is_the_plain_gpt_bit_for_bit(fields):
    torch.manual_seed(3)
    plain = gpt(WORDS.vocab_size, 24, **{**SMALL, **fields})
    model = build(3, dag_depth=0, **fields)
    assert type(model) is type(plain)
    assert not any("dag" in name for name in model.state_dict())
    assert model.state_dict().keys() == plain.state_dict().keys()
    ids = batch("one plus two =", "3 * 4 = 12")
    assert torch.equal(model(ids), plain(ids))
    logger = DAGLogger()
    logger.setup_gradient_tracking(model)
    model(ids).sum().backward()
    assert logger.get_wandb_logging_dict(model) == {} == logger.get_detailed_node_values(model)
    assert logger.get_node_values_list(model) == [] and logger.format_console_logging(model, WORDS.decode, ids) == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dag_depth": -1}, "dag_depth must be 0 .* got -1"),
        ({"gate_mode": "some"}, "gate_mode is all or last, got 'some'"),
        ({"plan_source": "oracle"}, "plan_source is controller or predictor, got 'oracle'"),
        ({"plan_source": "predictor"}, "needs one trained in phase 1"),
        ({"predictor": "out/run"}, 'plan_source is "controller"'),
        ({**PREDICTOR, "predictor_kwargs": {**READER, "vocab_size": 9}}, "the GPT knows 70 tokens, the predictor 9"),
    ],
)
def test_what_cannot_be_built_says_why(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong)


@pytest.mark.parametrize("kwargs", [{}, {"gate_mode": "last"}, PREDICTOR])
def test_a_seed_gives_the_gpt_inside_the_same_weights(kwargs):
    plain, model = build(5, dag_depth=0).state_dict(), build(5, **kwargs).state_dict()
    assert all(torch.equal(model[name], weight) for name, weight in plain.items())
    assert {name.partition(".")[0] for name in model.keys() - plain.keys()} == {"dag"}


def test_a_dag_takes_plain_rows_only():
    model, ids = build(), batch("1 + 2 = 3")
    with pytest.raises(ValueError, match="no packed documents"):
        model(ids[:1], cu_seqlens=torch.tensor([0, 2, ids.shape[1]], dtype=torch.int32))


# --- who sees what


@pytest.mark.parametrize("kwargs", [{}, {"dag_depth": 3, "preset": "hybrid"}, {**PREDICTOR, "freeze_predictor": False}])
def test_no_position_sees_the_future(kwargs):
    model = build(**kwargs).eval()
    ids = batch("one plus two = 3 <|endoftext|> 2 * 3 - 1 = 5")
    if kwargs.get("plan_source"):
        model.dag.source.evaluate = reads([3, 5])
    before = model(ids)
    for t in range(1, ids.shape[1] - 1, 5):
        changed = ids.clone()
        changed[:, t + 1 :] = torch.randint(3, WORDS.vocab_size, changed[:, t + 1 :].shape)
        if kwargs.get("plan_source"):
            count = int((changed == WORDS.equals_id).sum())
            seen = int((ids[:, : t + 1] == WORDS.equals_id).sum())
            model.dag.source.evaluate = reads([3, 5][:seen] + [7] * (count - seen))
        assert torch.equal(model(changed)[:, : t + 1], before[:, : t + 1]), t


def test_the_predictor_is_asked_for_what_stands_before_the_equals_sign():
    ids = batch("one plus two = 3 <|endoftext|> 4 * 5 = 20", "7", "= 6", "1 = 2 = 3")
    spans = find_spans(ids, WORDS.equals_id, WORDS.eot_id, WORDS.pad_id)
    assert [WORDS.decode(row) for row in spans.ids.tolist()] == ["one plus two", "4 * 5", "", "1", "2"]
    assert spans.length.tolist() == [3, 3, 0, 1, 1]
    assert spans.which[0].tolist() == [-1, -1, -1, 0, 0, -1, -1, -1, -1, 1, 1, 1]
    assert spans.since[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2]
    assert spans.which[3].tolist()[:5] == [-1, 3, 3, 4, 4]
    assert set(spans.which[1].tolist()) == {-1}


def test_where_there_is_no_value_the_hidden_state_stays():
    model = build(**PREDICTOR).eval()
    model.dag.source.evaluate = reads([Fraction(3), None])
    model.tracing = True
    ids = batch("1 + 2 = 3", "1 / 0 = 3")
    fused = model.hidden(ids)
    plain = build(dag_depth=0).eval().hidden(ids)
    changed = (fused != plain).any(-1)
    assert changed.tolist() == [[False] * 3 + [True] * 2, [False] * 5]
    assert model.trace.gate[1].eq(0).all() and model.trace.nodes.valid[0, 3:].all()


def test_a_batch_without_an_equals_sign_is_the_plain_gpts():
    model, ids = build(**PREDICTOR).eval(), batch("one plus two", "3 - 4")
    assert torch.equal(model(ids), build(dag_depth=0).eval()(ids))


def test_a_result_that_the_executor_takes_for_zero_is_told_as_it_is(monkeypatch):
    close = "9999.9999 * 9999.9997 - 9999.9998 * 9999.9998"
    plans = Plans.from_expressions([parse(text) for text in (close, f"1 / ({close})", "1 / (2 - 2)", "3 - 3")])
    invalid = torch.zeros(4, dtype=torch.bool)
    monkeypatch.setattr("gpt_dag.models.plan_source.decode", lambda *_: SimpleNamespace(plans=plans, invalid=invalid))
    source = build(**PREDICTOR).dag.source
    assert source.predictor.execute(plans).result.zero[0]
    values = source.evaluate(torch.ones(4, 3, dtype=torch.int64))
    assert values.nodes.result.value.tolist() == pytest.approx([-1e-8, -1e8, 0, 0], rel=1e-9)
    assert values.nodes.result.invalid.tolist() == [False, False, True, False]


# --- the gate


@pytest.mark.parametrize("keep", [1.0, 0.0])
def test_the_last_position_alone_is_mixed(keep):
    model = build(gate_mode="last", gate_keep=keep).eval()
    model.tracing, ids = True, batch("1 + 2 = 3", "4 * 5 + 6")
    fused, plain = model.hidden(ids), build(dag_depth=0).eval().hidden(ids)
    assert torch.equal(fused[:, :-1], plain[:, :-1])
    g, d, h = model.trace.gate, model.trace.dag, plain[:, -1:]
    assert g.shape == (2, 1, 1) and ((g > 0) & (g < 1)).all()
    assert torch.allclose(fused[:, -1:], (1 - keep * g) * h + g * d, atol=1e-6)


def test_the_gate_starts_nearly_closed_and_opens_by_its_formula():
    mixer = GateMixer(4)
    h, d = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.nn.init.zeros_(mixer.map.bias)
    mixed, gate = mixer(h, d)
    wanted = torch.sigmoid(torch.cat([h, d], -1) @ mixer.map.weight.T + mixer.map.bias)
    assert torch.allclose(gate, wanted) and torch.allclose(mixed, (1 - wanted) * h + wanted * d)
    assert build().dag.gate.map.bias.tolist() == [-2.0]


def test_every_parameter_gets_a_gradient():
    for kwargs in ({}, {"gate_mode": "last"}, {**PREDICTOR, "freeze_predictor": False}, PREDICTOR):
        model = build(**kwargs)
        if kwargs.get("freeze_predictor") is not False and kwargs:
            frozen = [p for n, p in model.named_parameters() if ".predictor." in n]
            assert not any(p.requires_grad for p in frozen)
        model.train()(batch("one plus two = 3", "4 * 5 = 20")).logsumexp(-1).sum().backward()
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, p in model.named_parameters() if p.grad is None} & trained == set(), kwargs


def test_hard_choices_are_exact_and_pass_soft_gradients():
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], requires_grad=True)
    one_hot = straight_through(probs)
    assert one_hot.tolist() == [[0, 1, 0], [0, 0, 1]]
    (one_hot * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert probs.grad.tolist() == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("kwargs", [{}, {"gate_mode": "last"}, PREDICTOR])
def test_values_stay_float64_under_autocast(kwargs):
    model, ids = build(**kwargs), batch("one plus two = 3", "4 * 5 = 20")
    model.tracing = True
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    nodes = model.trace.nodes
    assert logits.dtype == torch.bfloat16 and nodes.sign.dtype == nodes.log.dtype == torch.float64
    logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_an_unfrozen_predictor_changes_nothing_forward():
    ids = batch("one plus two = 3", "4 * 5 = 20")
    frozen, free = build(**PREDICTOR).eval(), build(**PREDICTOR, freeze_predictor=False).eval()
    assert torch.equal(frozen(ids), free(ids))
    assert not frozen.train().dag.source.predictor.training and free.train().dag.source.predictor.training


# --- numbers as vectors, and back


def test_features_of_a_number():
    sign, log = torch.tensor([-1.0, 1.0, 0.0, 1.0]), torch.tensor([math.log(2.5), 700.0, 5.0, 0.0], dtype=torch.float64)
    features = value_features(sign, log, torch.tensor([True, True, True, False]))
    assert features.shape == (4, FEATURES) and features.isfinite().all()
    assert features[:, :4].tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert features[0, 4] == pytest.approx(math.log(2.5) / 10) and features[2, 4] == 0
    assert features[3, 4:].eq(0).all(), "no value, no features"
    waves = features[0, 5 : 5 + LOG_PERIODS]
    periods = 2 * math.pi * math.log(2.5) / waves.clamp(-1, 1).acos()
    assert periods[-1] == pytest.approx(100) and waves[0] == pytest.approx(math.cos(20 * math.pi * math.log(2.5)))


def test_a_phase_tells_a_digit():
    """FoNE: the phase of v / 10^(i+1) is the digit at 10^i, followed by the lower ones."""
    value = -4071.25
    features = value_features(torch.tensor(-1.0), torch.tensor(math.log(-value), dtype=torch.float64))
    cos, sin = features[-26:].chunk(2)
    turns = torch.atan2(sin, cos) / (2 * math.pi) % 1
    digits = [int((1 - turns[i]) * 10 + 1e-9) for i in (8, 7, 6, 5)]  # of a negative number, from 10^4 down
    assert digits == [4, 0, 7, 1]


def test_gradients_reach_the_logarithm():
    log = torch.tensor([2.0, 0.0], dtype=torch.float64, requires_grad=True)
    value_features(torch.tensor([1.0, 0.0]), log).sum().backward()
    assert log.grad[0] != 0 and log.grad[1] == 0 and log.grad.isfinite().all()


def test_characters_of_values():
    classes, written = characters_of(["-0.25", None, "1" * LENGTH])
    assert classes[0].tolist() == [11, 0, 10, 2, 5, END] + [BLANK] * (LENGTH - 6)
    assert written.tolist() == [True, False, False] and classes[1:].eq(BLANK).all()
    assert characters_of([])[0].shape == (0, LENGTH)


def test_the_read_out_head_learns_to_copy_numbers_it_has_not_seen(descent):
    """What the numeric head is for: a rule about places, learned on some values, holds for others."""
    torch.manual_seed(0)
    model = build(context=32, **{**PREDICTOR, "n_embd": 32})
    optimizer = descent(model.parameters(), 5e-3)
    for step in range(25):
        numbers = torch.randint(100, 10_000, (12,), generator=torch.Generator().manual_seed(step)).tolist()
        ids = batch(*(f"1 = {number} <|endoftext|>" for number in numbers))
        model.dag.source.evaluate = reads([Fraction(number) for number in numbers])
        logits, targets = model(ids[:, :-1])[:, 1:], ids[:, 2:].masked_fill(ids[:, 2:] == 0, -1)
        right = ((logits.argmax(-1) == targets) | (targets < 0)).all(1).float().mean()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert right > 0.9, "of the numbers of the last batch, before it was learned from"


# --- weights from a plain GPT


def test_a_plain_gpts_weights_go_into_a_gpt_with_a_dag():
    plain = build(9, dag_depth=0)
    model = from_gpt(plain, dag_depth=3, gate_mode="last")
    assert isinstance(model, DagGPT) and len(model.dag.source.step_embed) == 3
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in plain.state_dict().items())
    assert "the DAG is new" in model.notes[0] and model.config == plain.config
    assert from_gpt(model, dag_depth=3) is model
    with pytest.raises(ValueError, match="dag_depth: it has 3, asked for 2"):
        from_gpt(model, dag_depth=2)
