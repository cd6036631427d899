"""The predictor: its size, what it sees, what its loss counts, and that it learns (assertions 10 and 16)."""

import pytest
import torch
import torch.nn.functional as F

from gpt_core.monitor import flops_per_token
from gpt_dag.predictor import predictor, tag_loss
from gpt_dag.predictor.packing import Packing
from gpt_dag.stream import Law, sample
from gpt_dag.tags import NEGATIVE, ROLE, VALUE
from gpt_dag.tokens import WordTokenizer

VOCABULARY = WordTokenizer.vocab_size
SMALL = {"n_layer": 2, "n_embd": 16, "n_head": 2, "window": 2}
MIXERS = ["window", "full", "conv"]


def small(mixer, **shape):
    torch.manual_seed(0)
    return predictor(VOCABULARY, 64, mixer=mixer, **SMALL | shape).eval()


@pytest.fixture(scope="module")
def layout():
    return sample(Law(min_ops=0, max_ops=3), 8, seed=1).layout


def test_the_default_has_1_6_million_parameters_nearly_all_outside_the_embedding():
    model = predictor(VOCABULARY)
    total = sum(p.numel() for p in model.parameters())
    assert 1_550_000 <= total <= 1_700_000
    assert model.embed.weight.numel() <= 0.05 * total
    large = predictor(50257, embedding_rank=32)
    assert sum(p.numel() for p in large.parameters()) - large.embed.weight.numel() <= 1_700_000


@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_changes_nothing(mixer, layout):
    model = small(mixer)
    plain = model(layout.ids)
    padded = model(F.pad(layout.ids, (0, 20)))
    assert (plain.packed - padded.packed).abs().max() < 1e-5
    tags = padded.tags()
    assert (tags[:, layout.ids.shape[1] :] == -1).all()
    assert torch.equal(tags[:, : layout.ids.shape[1]], plain.tags())
    alone = model(layout.ids[3:4, : layout.length[3]])
    assert (alone.column(ROLE)[0] - plain.column(ROLE)[3, : layout.length[3]]).abs().max() < 1e-5


def test_a_row_of_padding_is_no_error():
    ids = torch.tensor([[3, 4, 5], [0, 0, 0]])
    for mixer in MIXERS:
        model = small(mixer)
        assert model(ids).packed.isfinite().all()
        assert model.predict_plan(ids).invalid[1]


@pytest.mark.parametrize(
    ("mixer", "shape", "reach"),
    [("window", {}, 4), ("conv", {"dilations": (1, 3)}, 8), ("full", {}, 29)],
)
def test_a_token_sees_as_far_as_its_windows_reach(mixer, shape, reach):
    model = small(mixer, **shape)
    ids = torch.full((1, 30), 7)
    ids.requires_grad = False
    vectors = model.embed(ids).detach().requires_grad_()
    model.embed = _Given(vectors)
    model(ids).packed[0].square().sum().backward()
    seen = vectors.grad[0].abs().sum(-1) > 0
    assert seen.nonzero().max().item() == reach


class _Given(torch.nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.vectors = vectors

    def forward(self, ids):
        return self.vectors[0, : len(ids)]


def test_packing_is_undone_by_unpacking(layout):
    packing = Packing(layout.ids != 0)
    packed = packing.pack(layout.ids)
    assert len(packed) == layout.length.sum() and (packed != 0).all()
    assert torch.equal(packing.unpack(packed), layout.ids)
    assert packing.position[: layout.length[0]].tolist() == list(range(layout.length[0]))


def test_arithmetic_of_a_training_step_is_six_times_the_weights_that_are_multiplied():
    model = predictor(VOCABULARY)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    assert flops_per_token(model.config) == 6 * matrices


def test_the_loss_counts_tokens_and_whole_examples(layout):
    model, loss = small("conv"), tag_loss()
    perfect = model(layout.ids)
    live = layout.tags[perfect.packing.live]
    blocks = [F.one_hot(live[:, c].clamp(min=0), n).float() * 100 for c, n in enumerate(perfect.classes)]
    object.__setattr__(perfect, "packed", torch.cat(blocks, -1))
    sums = loss(perfect, layout.tags, accuracy=True)
    assert loss.count(layout.tags) == layout.length.sum()
    assert sums.loss.item() == pytest.approx(0, abs=1e-4)
    assert (sums.correct.item(), sums.items.item()) == (8, 8)

    wrong = layout.tags.clone()
    row, token = (wrong[..., NEGATIVE] >= 0).nonzero()[0].tolist()
    wrong[row, token, NEGATIVE] ^= 1
    assert loss(perfect, wrong, accuracy=True).correct.item() == 7
    assert loss(perfect, wrong).loss.item() == pytest.approx(100)
    assert tag_loss(negative=0.5)(perfect, wrong).loss.item() == pytest.approx(50)

    wrong[:4] = -1  # rows that fill up the last batch of an epoch
    assert loss.count(wrong) == layout.length[4:].sum()
    assert loss(perfect, wrong, accuracy=True).items.item() == 4


def test_targets_without_meaning_are_not_learned(layout):
    model, loss = small("conv"), tag_loss(role=0, place=0, negative=0, percent=0, operator=0)
    loss(model(layout.ids), layout.tags).objective.backward()
    head = model.head.weight.grad.split(model.config.classes)
    assert head[VALUE].any() and not head[ROLE].any()


def test_a_focal_loss_looks_away_from_what_is_known(layout):
    logits = small("conv")(layout.ids)
    plain, focal = tag_loss()(logits, layout.tags), tag_loss(focus=2.0)(logits, layout.tags)
    assert focal.objective < plain.objective
    assert focal.loss == plain.loss, "what is reported stays comparable"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"mixer": "lstm"}, "mixer is window, full or conv, got 'lstm'"),
        ({"mixer": "window", "n_embd": 30, "n_head": 4}, "n_head heads of an even width"),
        ({"window": 0}, "window must be at least 1"),
        ({"dilations": (1, 0)}, "dilations must be 1 or more each"),
        ({"max_digits": 12, "max_decimals": 8}, "more than 16 digits"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        predictor(VOCABULARY, **shape)


def test_it_learns_64_examples_by_heart(descent):
    drawn = sample(Law(min_ops=1, max_ops=2, styles=("cardinal", "symbols")), 64, seed=3)
    torch.manual_seed(1)
    model = predictor(VOCABULARY, n_layer=3, n_embd=64, mixer="conv", window=2, dilations=(1, 2, 4), d_ff=64)
    loss, steps, rate = tag_loss(), 45, 5e-3
    optimizer = descent(model.parameters(), rate)
    for step in range(steps):
        rows = slice(16 * (step % 4), 16 * (step % 4) + 16)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        sums = loss(model(drawn.layout.ids[rows]), drawn.layout.tags[rows])
        (sums.objective / loss.count(drawn.layout.tags[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
    read = model.eval().predict_plan(drawn.layout.ids)
    assert not read.invalid.any()
    assert read.plans.fractions() == drawn.plans.fractions()
    executed = model.execute(read.plans).result
    assert executed.value.tolist() == pytest.approx([float(v) for v in drawn.plans.fractions()], rel=1e-9)
    assert model.to_text(read.plans)[0] == str(drawn.plans.expressions()[0])
