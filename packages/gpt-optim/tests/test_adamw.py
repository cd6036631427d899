"""AdamW: the grouping, and the fused kernel against a float64 transcription of the paper."""

import pytest
import torch
from torch import nn

from gpt_optim import adamw, decay_groups


def small_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 7, bias=False))
    model[3].weight.requires_grad_(True)
    return model


def test_matrices_decay_and_vectors_do_not():
    decayed, undecayed = decay_groups(small_model(), 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(7, 5), (6, 5), (7, 6)]
    assert all(p.dim() == 1 for p in undecayed["params"]) and len(undecayed["params"]) == 3
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)


def test_tied_and_frozen_parameters():
    embedding, head = nn.Embedding(7, 5), nn.Linear(5, 7)
    head.weight = embedding.weight
    head.bias.requires_grad_(False)
    groups = decay_groups(nn.ModuleList([embedding, head]), 0.1)
    assert [len(group["params"]) for group in groups] == [1]
    with pytest.raises(ValueError, match="no trainable"):
        adamw(nn.Linear(2, 2).requires_grad_(False))


def test_five_steps_equal_the_formula_in_float64():
    model = small_model()
    lr, decay, beta1, beta2, eps = 1e-2, 0.1, 0.9, 0.95, 1e-8
    optimizer = adamw(model, lr, decay, beta1, beta2, eps)
    reference = [p.detach().double().clone() for p in model.parameters()]
    first = [torch.zeros_like(p) for p in reference]
    second = [torch.zeros_like(p) for p in reference]
    for step in range(1, 6):
        model.zero_grad()
        torch.manual_seed(step)
        model(torch.randint(7, (4, 3))).square().sum().backward()
        for i, p in enumerate(model.parameters()):
            grad = p.grad.double()
            reference[i] *= 1 - lr * (decay if p.dim() >= 2 else 0.0)
            first[i] = beta1 * first[i] + (1 - beta1) * grad
            second[i] = beta2 * second[i] + (1 - beta2) * grad**2
            denominator = (second[i] / (1 - beta2**step)).sqrt() + eps
            reference[i] -= lr * first[i] / (1 - beta1**step) / denominator
        optimizer.step()
    for p, expected in zip(model.parameters(), reference, strict=True):
        torch.testing.assert_close(p.double(), expected, rtol=1e-4, atol=1e-6)


def test_all_decays_everything_as_torchs_adamw_does():
    ours, theirs = small_model(), small_model()
    optimizers = [
        adamw(ours, 1e-2, 0.1, eps=1e-6, decay="all"),
        torch.optim.AdamW(theirs.parameters(), 1e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1),
    ]
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for step in range(3):
            torch.manual_seed(step)
            model(torch.randint(7, (4, 3))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("zero", [1, 2])
def test_zero_of_one_process_is_adamw(zero):
    ours, theirs = small_model(), small_model()
    optimizers = [adamw(ours, 1e-2, zero=zero), adamw(theirs, 1e-2)]
    for step in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            torch.manual_seed(step)
            model(torch.randint(7, (4, 3))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"decay": "none"}, "decay must be 'matrices' or 'all', got 'none'"),
        ({"zero": 3}, "zero must be 0, 1 .* or 2 .*, got 3"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        adamw(small_model(), **options)
