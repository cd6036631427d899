"""Published methods: each does what its paper's formula says."""

import math
from fractions import Fraction

import pytest
import torch

from gpt_core.models import GPTConfig
from gpt_dag.baselines import NALU, NAU, NMU, AbacusGPT, FoNE, NumberRows, XVal, digit_places
from gpt_dag.baselines.number_tokens import NUMBER, PAD, SYMBOLS
from gpt_dag.tokens import WordTokenizer

WORDS = WordTokenizer()
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 32}


def set_(parameter, values):
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


def test_nalu_adds_and_multiplies_by_its_gate():
    unit = NALU(2, 1)
    set_(unit.w_hat, [[0.3, -0.7]])
    set_(unit.m_hat, [[1.0, 0.2]])
    set_(unit.gate, [[0.1, 0.4]])
    x = [1.5, -2.0]
    w = [math.tanh(a) / (1 + math.exp(-b)) for a, b in ((0.3, 1.0), (-0.7, 0.2))]
    total = sum(a * b for a, b in zip(w, x, strict=True))
    product = math.exp(sum(a * math.log(abs(b) + 1e-7) for a, b in zip(w, x, strict=True)))
    g = 1 / (1 + math.exp(-(0.1 * 1.5 - 0.4 * 2.0)))
    assert float(unit(torch.tensor([x])).detach()) == pytest.approx(g * total + (1 - g) * product, rel=1e-5)
    assert float(unit.regularization()) == 0


@pytest.mark.parametrize(
    ("kind", "weights", "x", "y"),
    [
        (NAU, [[1.0, -1.0]], [5.0, 3.0], 2.0),
        (NAU, [[2.0, -7.0]], [5.0, 3.0], 2.0),  # clamped
        (NMU, [[1.0, 0.0]], [5.0, 3.0], 5.0),
        (NMU, [[1.0, 1.0]], [-5.0, 3.0], -15.0),
        (NMU, [[0.5, -2.0]], [5.0, 3.0], 3.0),
    ],
)
def test_nau_and_nmu_by_their_formula(kind, weights, x, y):
    unit = kind(2, 1)
    set_(unit.w, weights)
    assert unit(torch.tensor([x])).tolist() == [[y]]


def test_their_regularizers_vanish_at_whole_weights():
    for kind in (NAU, NMU):
        unit = kind(3, 1)
        set_(unit.w, [[1.0, 0.0, 1.0]])
        assert float(unit.regularization().detach()) == 0
        set_(unit.w, [[0.5, 0.0, 0.9]])
        assert float(unit.regularization().detach()) == pytest.approx(0.6 / 3)


def test_expressions_with_a_token_per_number():
    rows = NumberRows.of(["5.2 - -3", "(1 - 2) * 4"])
    assert rows.ids.tolist() == [
        [PAD, PAD, PAD, PAD, NUMBER, 3, NUMBER, 8],
        [6, NUMBER, 3, NUMBER, 7, 4, NUMBER, 8],
    ]
    assert rows.values[0].tolist() == [0, 0, 0, 0, 5.2, 0, -3.0, 0] and SYMBOLS[8] == "="


def test_xval_scales_one_embedding_by_the_value():
    model = XVal(12, scale=10.0, **SHAPE)
    rows = NumberRows.of(["5 + -20"])
    embedded = model.embed(model.gpt.embed(rows.ids), rows.values, rows.ids == NUMBER)[0]
    number, plus = model.gpt.embed.weight[NUMBER], model.gpt.embed.weight[2]
    assert torch.allclose(embedded[0], 0.5 * number) and torch.allclose(embedded[2], -2 * number)
    assert torch.equal(embedded[1], plus)
    said = model(rows).double().sinh()
    assert model.answers(rows, 4) == [round(Fraction(float(said.detach())), 4)]
    with torch.no_grad():
        assert float(model.loss(rows, [Fraction(-15)])) == pytest.approx((math.asinh(-15) - float(model(rows))) ** 2)


def test_fone_phases_are_the_papers():
    model = FoNE(12, digits=3, decimals=1, **SHAPE)
    features = model.features(torch.tensor([-417.3], dtype=torch.float64))[0]
    for place, period in enumerate((1, 10, 100, 1000)):
        turn = 2 * math.pi * 417.3 / period
        assert features[2 * place] == pytest.approx(math.cos(turn)), place
        assert features[2 * place + 1] == pytest.approx(math.sin(turn)), place
    assert features[8:].tolist() == [1, 0]
    with pytest.raises(ValueError, match="need n_embd of 42"):
        FoNE(12, digits=10, decimals=10, **SHAPE)


def test_fone_reads_the_digits_whose_phases_stand_in_its_channels():
    model, rows = FoNE(12, digits=3, decimals=1, **SHAPE), NumberRows.of(["1 + 1", "2 + 2"])
    hidden = torch.zeros(2, 32)
    for row, digits in enumerate(([3, 7, 1, 4], [0, 0, 9, 0])):
        for place, digit in enumerate(digits):
            angle = 2 * math.pi * digit / 10
            hidden[row, 2 * place : 2 * place + 2] = torch.tensor([math.cos(angle), math.sin(angle)])
    hidden[0, 8], hidden[1, 9] = 1.0, 1.0
    model.last_hidden = lambda rows: hidden
    assert model.answers(rows, 4) == [Fraction(-4173, 10), Fraction(90)]
    assert model.fits(Fraction(9999, 10)) and not model.fits(Fraction(1000))
    assert float(model.loss(rows, [Fraction(-4173, 10), Fraction(90)])) < float(
        model.loss(rows, [Fraction(4173, 10), Fraction(19)])
    )


def test_abacus_counts_digits_within_numbers():
    places = lambda text: digit_places(torch.tensor([WORDS.encode(text)]))[0].tolist()
    assert places("12.5 + 407 = 3") == [1, 2, 0, 3, 0, 1, 2, 3, 0, 1]
    assert places("( 1 ) - 20 plus two 3") == [0, 1, 0, 0, 1, 2, 0, 0, 1]


def test_abacus_places_matter_and_shift_in_training():
    torch.manual_seed(0)
    config = GPTConfig.from_preset("hybrid", vocab_size=WORDS.vocab_size, context_length=16, **SHAPE)
    model = AbacusGPT(config)
    ids = torch.tensor([WORDS.encode("1 2 + 3".replace(" 2", "2"))])
    plain = model.eval()(ids)
    with torch.no_grad():
        model.abacus.weight[2] += 1.0
    assert not torch.equal(model(ids), plain), "the 2 has place 2"
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert len({tuple(model(ids)[0, -1].tolist()) for _ in range(8)}) > 1
    assert model.abacus.weight[0].eq(0).all()
