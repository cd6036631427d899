"""The loss fused with the head against the loss of all logits: sums, gradients, and when it is chosen."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gpt_core.models import GPT, GPTConfig, gpt
from gpt_core.training import ModelWithLoss, arithmetic, autoregressive, fused_loss, grokking, losses, model_with_loss
from gpt_core.training.fused_loss import FEWEST_ROWS, SMALLEST_VOCABULARY, choose
from gpt_core.training.precision import autocast
from gpt_kernels import convert_to_fp8

CPU = torch.device("cpu")


def build(vocab=37, seed=0, **fields):
    torch.manual_seed(seed)
    return gpt(vocab, 16, n_layer=1, n_head=2, n_embd=16, head_init_std=0.5, embedding_init_std=0.5, **fields)


def batch(vocab=37, masked=0.3, shape=(3, 16)):
    draw = torch.Generator().manual_seed(1)
    ids, targets = torch.randint(vocab, shape, generator=draw), torch.randint(vocab, shape, generator=draw)
    targets[torch.rand(shape, generator=draw) < masked] = -1
    return ids, targets


def sums_and_gradients(model, loss, fused, inputs, run=None):
    forward = ModelWithLoss(model, loss, fused=fused).train()
    sums = (run or (lambda forward: forward))(forward)(*inputs)
    (3 * sums.objective).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return sums, gradients


def assert_same(fused, plain, **bounds):
    for name in ("objective", "loss", "correct", "items"):
        torch.testing.assert_close(getattr(fused[0], name), getattr(plain[0], name), check_dtype=False, **bounds)
    assert not fused[0].loss.requires_grad
    assert fused[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        assert (fused[1][name] is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(
                fused[1][name], gradient, **bounds, msg=lambda said, name=name: f"{name}: {said}"
            )


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight_tying": False},
        {"logit_softcap": 3.0, "vocab_multiple_of": 16},
        {"weight_tying": False, "vocab_multiple_of": 16},
    ],
)
def test_sums_and_gradients_are_those_of_all_logits(fields, z_loss):
    model = build(**fields).double()
    plain, fused = (sums_and_gradients(model, autoregressive(z_loss), fused, batch()) for fused in (False, True))
    exact = not z_loss and "logit_softcap" not in fields  # the others are float32 without the fused loss
    assert_same(fused, plain, **({"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-5, "atol": 1e-6}))
    assert (plain[0].objective > plain[0].loss) == bool(z_loss)
    if "vocab_multiple_of" in fields and not model.config.weight_tying:
        assert (fused[1]["head.weight"][37:] == 0).all(), "rows that stand for no token learn nothing"


def test_in_evaluation_it_counts_hits_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(model_with_loss, "ROWS", 5)
    model, inputs = build(logit_softcap=3.0), batch()
    with torch.no_grad():
        plain, fused = (ModelWithLoss(model, autoregressive(0.1), fused=f).eval()(*inputs) for f in (False, True))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=0)
    assert fused.items == (inputs[1] != -1).sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype):
    model = build(logit_softcap=5.0, weight_tying=False)
    with autocast(dtype, CPU):
        plain, fused = (sums_and_gradients(model, autoregressive(1e-2), f, batch()) for f in (False, True))
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-3, atol=0)
    for name, gradient in plain[1].items():
        assert (fused[1][name] - gradient).norm() <= 0.02 * gradient.norm(), name


@pytest.mark.parametrize("frozen", ["embed", "head", "blocks"])
def test_what_is_frozen_gets_no_gradient(frozen):
    model = build(weight_tying=False)
    getattr(model, frozen).requires_grad_(False)
    plain, fused = (sums_and_gradients(model, autoregressive(), f, batch()) for f in (False, True))
    assert_same(fused, plain, rtol=1e-4, atol=1e-6)
    assert any(gradient is None for gradient in fused[1].values())


def test_packed_documents():
    model, (ids, targets) = build(position_encoding="rope"), batch(shape=(1, 16))
    inputs = (ids, targets, torch.tensor([0, 5, 16], dtype=torch.int32))
    plain, fused = (sums_and_gradients(model, autoregressive(), f, inputs) for f in (False, True))
    assert_same(fused, plain, rtol=1e-4, atol=1e-6)
    alone = sums_and_gradients(model, autoregressive(), True, inputs[:2])
    assert alone[0].loss != fused[0].loss


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_compiles_to_one_graph():
    def compiled(forward):
        return torch.compile(forward, fullgraph=True, backend="aot_eager")

    model = build(vocab_multiple_of=16, activation="relu2")
    plain = sums_and_gradients(model, autoregressive(1e-2), False, batch())
    fused = sums_and_gradients(model, autoregressive(1e-2), True, batch(), compiled)
    assert_same(fused, plain, rtol=1e-4, atol=1e-5)


def test_training_with_accumulation_gives_the_same_weights(toys):
    plain, fused = toys.state(), toys.state()
    toys.train(plain, 4, micro_steps=3)
    toys.train(fused, 4, micro_steps=3, forward=ModelWithLoss(fused.model, autoregressive(), fused=True))
    for a, b in zip(plain.model.parameters(), fused.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def decide(setting, model, loss, *, rows=FEWEST_ROWS, dtype=torch.float32, device=CPU):
    return choose(setting, model, loss, rows=rows, dtype=dtype, device=device)


class Largest(TorchDispatchMode):
    """The most elements of any tensor made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return made


@pytest.mark.parametrize("training", [True, False])
def test_all_logits_are_never_held(monkeypatch, training):
    in_chunks = partial(losses.linear_cross_entropy_and_lse, chunk_rows=16)
    monkeypatch.setattr(losses, "linear_cross_entropy_and_lse", in_chunks)
    monkeypatch.setattr(model_with_loss, "ROWS", 16)
    vocab, rows = 509, 64
    model, (ids, targets) = build(vocab), batch(vocab, shape=(rows // 16, 16))
    found = {}
    for fused in (False, True):
        forward = ModelWithLoss(model, autoregressive(), fused=fused).train(training)
        with Largest() as largest, torch.set_grad_enabled(training):
            sums = forward(ids, targets)
            if training:
                sums.objective.backward()
        found[fused] = largest.numel
    assert found == {False: rows * vocab, True: 16 * vocab}


# --- who else has a hand in the logits keeps them -----------------------------------------------------------------


def hooked(model):
    model.register_forward_hook(lambda module, inputs, logits: 2 * logits)


def hooked_head(model):
    model.head.register_forward_hook(lambda module, inputs, logits: 2 * logits)


def other_head(model):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    weight = model.head.weight
    model.head = Doubled(16, 37, bias=False)
    model.head.weight = weight


def own_forward(model):
    forward = model.head.forward
    model.head.forward = lambda x: 2 * forward(x)


def subclass(model):
    class Doubled(GPT):
        def logits(self, x_BTD):
            return 2 * super().logits(x_BTD)

    model.__class__ = Doubled


@pytest.mark.parametrize("change", [hooked, hooked_head, other_head, own_forward, subclass])
def test_a_hand_in_the_logits_is_not_passed_over(change):
    model, inputs = build(weight_tying=False), batch()
    before = model(inputs[0])
    plain = sums_and_gradients(model, autoregressive(), True, inputs)
    change(model)
    torch.testing.assert_close(model(inputs[0]), 2 * before)
    changed, all_logits = (sums_and_gradients(model, autoregressive(), f, inputs) for f in (True, False))
    assert changed[0].loss == all_logits[0].loss != plain[0].loss
    assert not decide("auto", model, autoregressive()).fused


def test_a_float8_head_is_used_by_the_logits():
    model, (ids, _) = build(vocab=32, weight_tying=False), batch(32)
    before = model(ids)
    assert "head" in convert_to_fp8(model, lambda name, linear: name == "head", backend="emulated")
    assert model.head_weight() is None
    assert not torch.equal(model(ids), before)
    torch.testing.assert_close(model(ids), before, rtol=0.1, atol=0.5)


# --- the choice --------------------------------------------------------------------------------------------------


def on_meta(vocab):
    with torch.device("meta"):
        return GPT(GPTConfig(vocab, 16, n_layer=1, n_head=2, n_embd=16))


@pytest.mark.parametrize(
    ("setting", "vocab", "rows", "fused"),
    [
        ("auto", SMALLEST_VOCABULARY - 1, 10**5, False),
        ("auto", SMALLEST_VOCABULARY, FEWEST_ROWS, True),
        ("auto", 50304, FEWEST_ROWS - 1, False),
        (True, 65, 16, True),
        (False, 50304, 10**5, False),
    ],
)
def test_auto_goes_by_the_size_of_the_logits(monkeypatch, setting, vocab, rows, fused):
    monkeypatch.setattr(fused_loss, "linear_backend", lambda x, weight: "torch")
    chosen = decide(setting, on_meta(vocab), autoregressive(), rows=rows)
    assert chosen.fused == fused
    assert ("fused with the head" in chosen.why) == fused
    assert (f"{rows} rows x {vocab} tokens" in chosen.why) == (setting == "auto")


def test_auto_leaves_products_to_onednn_where_that_is_faster(monkeypatch):
    monkeypatch.setattr(fused_loss, "linear_backend", lambda x, weight: "onednn")
    model = on_meta(50304)
    assert not decide("auto", model, autoregressive()).fused
    assert decide("auto", model, autoregressive(), dtype=torch.bfloat16).fused
    assert decide("auto", model, autoregressive(), dtype=torch.float32, device=torch.device("cuda")).fused


@pytest.mark.parametrize(
    ("model", "loss", "name"),
    [
        (nn.Linear(2, 2), autoregressive(), "Linear"),
        (on_meta(50304), grokking(), "Grokking"),
        (on_meta(50304), arithmetic(), "Arithmetic"),
    ],
)
def test_models_and_losses_that_need_all_logits(model, loss, name):
    for setting in ("auto", False):
        chosen = decide(setting, model, loss)
        assert not chosen.fused and name in chosen.why
    with pytest.raises(ValueError, match=rf"fused_loss is true, but {name} only works with all logits"):
        decide(True, model, loss)


def test_a_loss_that_judges_logits_otherwise_keeps_them():
    class Halved(losses.Autoregressive):
        def __call__(self, logits, targets, /, accuracy=False):
            sums = super().__call__(logits, targets, accuracy)
            return sums._replace(objective=sums.objective / 2)

    class Named(losses.Autoregressive):
        name = "the same"

    assert not decide("auto", on_meta(50304), Halved()).fused
    assert decide("auto", on_meta(50304), Named()).fused
