"""Precision, torch.compile and its fallback, recomputed activations."""

import pytest
import torch
from torch import nn

from gpt_core.training import ModelWithLoss, autoregressive, precision
from gpt_core.training.compilation import compile_module, eager
from gpt_core.training.parallel import checkpoint_activations
from gpt_core.training.precision import autocast, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "device", "fast_cpu", "gpu_bf16", "dtype"),
    [
        ("auto", CPU, True, False, torch.float32),
        ("auto", CPU, False, False, torch.float32),
        ("fastest", CPU, True, False, torch.bfloat16),
        ("fastest", CPU, False, False, torch.float32),
        ("auto", CUDA, False, True, torch.bfloat16),
        ("auto", CUDA, True, False, torch.float16),
        ("fastest", CUDA, False, True, torch.bfloat16),
        ("fastest", CUDA, False, False, torch.float16),
        ("float32", CUDA, True, True, torch.float32),
        ("float16", CPU, True, True, torch.float16),
        ("bfloat16", CPU, False, False, torch.bfloat16),
    ],
)
def test_the_dtype_of_a_name(monkeypatch, name, device, fast_cpu, gpu_bf16, dtype):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: fast_cpu)

    def is_bf16_supported(including_emulation=True):  # torch emulates it on GPUs without, and calls that supported
        return gpu_bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert resolve_dtype(name, device) == dtype


def test_an_unknown_dtype_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'fp8'; use one of auto, fastest, float32, bfloat16, float16"):
        resolve_dtype("fp8", CPU)


def test_float32_is_no_autocast():
    with autocast(torch.float32, CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(torch.bfloat16, CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


# --- compilation -------------------------------------------------------------------------------------------------


@pytest.fixture
def compile_with(monkeypatch):
    """Make `module.compile()` use another backend, or fail: the machinery is tested, not the compiler."""
    original = nn.Module.compile

    def install(**options):
        monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, **options))

    return install


def attempt(toys, model, mode):
    forward = ModelWithLoss(model, autoregressive())
    ids = torch.zeros(toys.BATCH, toys.CONTEXT, dtype=torch.long)
    why = compile_module(forward, mode, example=lambda: (ids, ids), autocast=lambda: autocast(torch.float32, CPU))
    return forward, why


def refuse(*args, **kwargs):
    raise RuntimeError("torch.compile is not supported on Python 3.99\nand more lines")


def broken_backend(graph, inputs):
    raise RuntimeError("no C++ compiler found")


# dynamo's own, while it looks at a block's input
dynamo_warns = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@dynamo_warns
@pytest.mark.parametrize("mode", ["block", "model"])
@pytest.mark.parametrize("broken", ["at once", "at the first call"])
def test_a_compiler_that_fails_is_said_and_training_goes_on_eagerly(toys, monkeypatch, compile_with, mode, broken):
    if broken == "at once":
        monkeypatch.setattr(nn.Module, "compile", refuse)
    else:
        compile_with(backend=broken_backend)
    model = toys.gpt()
    rng = torch.get_rng_state()
    forward, why = attempt(toys, model, mode)
    assert ("Python 3.99" if broken == "at once" else "no C++ compiler found") in why and "\n" not in why
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.grad is None for p in model.parameters())
    state = toys.state(model)
    toys.train(state, 2, forward=forward)
    plain = toys.state()
    toys.train(plain, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.model.parameters(), strict=True))


@dynamo_warns
@pytest.mark.parametrize("mode", ["off", "block", "model"])
def test_compiling_keeps_names_random_state_and_results(toys, compile_with, mode):
    compile_with(backend="eager")
    model, plain = toys.gpt(), toys.gpt()
    names, rng = [name for name, _ in model.named_parameters()], torch.get_rng_state()
    forward, why = attempt(toys, model, mode)
    assert why is None
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(torch.get_rng_state(), rng) and all(p.grad is None for p in model.parameters())
    first, second = toys.state(model), toys.state(plain)
    toys.train(first, 3, forward=forward)
    toys.train(second, 3)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_model_without_blocks_is_told_what_to_use(toys):
    forward = ModelWithLoss(nn.Linear(2, 2), autoregressive())
    ids = torch.zeros(1, 1, dtype=torch.long)
    why = compile_module(forward, "block", example=lambda: (ids, ids), autocast=lambda: autocast(torch.float32, CPU))
    assert "Linear has no .blocks" in why and "general.compile=model" in why


@dynamo_warns
def test_eager_sets_the_compiled_parts_aside_for_a_while(toys, compile_with):
    compile_with(backend="eager")
    model = toys.gpt()
    attempt(toys, model, "block")
    compiled = [block._compiled_call_impl for block in model.blocks]
    assert all(compiled)
    with pytest.raises(KeyError), eager(model):
        assert not any(m._compiled_call_impl for m in model.modules())
        raise KeyError
    assert [block._compiled_call_impl for block in model.blocks] == compiled


# --- recomputed activations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_gives_equal_gradients_and_names(toys, dropout):
    gradients, losses = [], []
    for recompute in (False, True):
        model = toys.gpt(dropout=dropout)
        names = [name for name, _ in model.named_parameters()]
        if recompute:
            calls = []
            model.blocks[0].attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            checkpoint_activations(model)
        batch = next(toys.Loader())
        torch.manual_seed(3)
        loss = ModelWithLoss(model, autoregressive()).train()(batch.inputs, batch.targets).objective
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for p in model.parameters()])
        assert [name for name, _ in model.named_parameters()] == names == list(model.state_dict())
    assert len(calls) == 2, "forward ran again in the backward pass"
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_model_without_blocks_cannot_recompute():
    with pytest.raises(ValueError, match="Linear has none"):
        checkpoint_activations(nn.Linear(2, 2))


def test_an_error_of_the_data_is_not_taken_for_one_of_the_compiler(toys):
    def example():
        raise ValueError("the shards are too short")

    forward = ModelWithLoss(toys.gpt(), autoregressive())
    with pytest.raises(ValueError, match="the shards are too short"):
        compile_module(forward, "block", example=example, autocast=lambda: autocast(torch.float32, CPU))
