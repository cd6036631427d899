"""The optimizer of models sized by depth: every parameter in exactly one group, with nanochat's options."""

import pytest
import torch
from torch import nn

from gpt_optim import depth

WIDTH, LAYERS = 8, 3


class Layer(nn.Module):
    def __init__(self, gains):
        super().__init__()
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH, False), "out": nn.Linear(WIDTH, WIDTH, False)})
        self.ffn = nn.ModuleDict({"up": nn.Linear(WIDTH, 32, False), "down": nn.Linear(32, WIDTH, False)})
        self.value_gate = nn.Linear(4, 2, False)
        if gains:
            self.attn_norm = nn.LayerNorm(WIDTH)


class Model(nn.Module):
    """The names of gpt_core's Nanochat."""

    def __init__(self, tied=False, gains=False):
        super().__init__()
        self.embed = nn.Embedding(20, WIDTH)
        self.blocks = nn.ModuleList(Layer(gains) for _ in range(LAYERS))
        self.head = None if tied else nn.Linear(WIDTH, 20, False)
        self.value_embeds = nn.ModuleDict({"0": nn.Embedding(20, WIDTH), "2": nn.Embedding(20, WIDTH)})
        self.resid_lambdas = nn.Parameter(torch.ones(LAYERS))
        self.x0_lambdas = nn.Parameter(torch.ones(LAYERS))
        self.smear_gate = nn.Linear(4, 1, False)
        self.smear_lambda, self.backout_lambda = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))


def groups(model, **options):
    made = {group["name"]: group for group in depth(model, **options).param_groups}
    assert len(made) == len(depth(model, **options).param_groups), "a name for each group"
    return made


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gains", [False, True])
def test_every_parameter_is_in_exactly_one_group(tied, gains):
    model = Model(tied, gains)
    taken = [p for group in depth(model).param_groups for p in group["params"]]
    assert len(taken) == len(set(taken)) == len(list(model.parameters()))
    made = groups(model)
    assert ("wte" in made) != tied and ("gains" in made) == gains
    assert made["lm_head"]["param_names"] == (["embed.weight"] if tied else ["head.weight"])
    matrices = [group for group in made.values() if group["kind"] == "normuon"]
    assert all(p.dim() == 2 for group in matrices for p in group["params"])
    assert all(name.startswith("blocks.") for group in matrices for name in group["param_names"])
    assert all(len({p.shape for p in group["params"]}) == 1 for group in matrices)
    assert sum(len(group["params"]) for group in matrices) == 5 * LAYERS
    assert made["matrices 24x8"]["split"] == (8, 8, 8) and made["matrices 32x8"]["split"] is None


def test_the_options_are_nanochats():
    made = groups(Model(gains=True))
    options = {name: (group["lr"], group["betas"], group["weight_decay"]) for name, group in made.items()}
    assert (
        options.items()
        >= {
            "lm_head": (0.008, (0.8, 0.96), 0.01),
            "wte": (0.3, (0.8, 0.995), 0.001),
            "value_embeds": (0.15, (0.8, 0.995), 0.01),
            "resid_lambdas": (0.005, (0.8, 0.95), 0.05),
            "x0_lambdas": (0.5, (0.96, 0.95), 0.0),
            "smear_backout": (0.2, (0.8, 0.95), 0.0),
            "gains": (6e-4, (0.8, 0.95), 0.0),
        }.items()
    )
    assert {group["eps"] for group in made.values()} == {1e-10}
    muon = made["matrices 8x8"]
    assert (muon["lr"], muon["momentum"], muon["beta2"], muon["weight_decay"]) == (0.02, 0.95, 0.9, 0.28)
    assert muon["cautious"] and muon["scale_decay"] and not made["wte"]["cautious"]


def test_factors_move_what_they_say_and_the_rate_moves_all():
    usual, made = groups(Model()), groups(Model(), rate_factor=0.5, width_factor=3.0, decay_factor=7.0)
    for name, group in made.items():
        wide = name in ("lm_head", "wte", "value_embeds")
        assert group["lr"] == pytest.approx(usual[name]["lr"] * 0.5 * (3.0 if wide else 1.0))
        decay = 7.0 if group["kind"] == "normuon" else 1.0
        assert group["weight_decay"] == pytest.approx(usual[name]["weight_decay"] * decay)
    for name, group in groups(Model(), learning_rate=3e-4).items():
        assert group["lr"] == pytest.approx(usual[name]["lr"] / 2)


def test_a_step_lowers_the_loss_of_every_group():
    torch.manual_seed(0)
    model = Model(gains=True)
    optimizer = depth(model, learning_rate=1e-4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    moved = {
        name: p.detach().norm() < before[name].norm() for name, p in model.named_parameters() if before[name].any()
    }
    assert all(moved.values()), moved


def test_what_fits_no_group_is_named():
    model = Model()
    model.extra = nn.Linear(4, 4, False)
    with pytest.raises(ValueError, match=r"no group for extra.weight of shape \(4, 4\)"):
        depth(model)
    for option in ("learning_rate", "rate_factor", "width_factor"):
        with pytest.raises(ValueError, match=f"{option} must be positive, got 0"):
            depth(Model(), **{option: 0.0})
