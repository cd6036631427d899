"""Groups: an exact partition, and errors that say what to do."""

import pytest
from torch import nn

from gpt_optim import Rule, default_rules, param_groups


class Tiny(nn.Module):
    def __init__(self, tied: bool = False, context: int = 32):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Embedding(context, 8)
        self.blocks = nn.ModuleList([nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 32)})])
        self.unusual = nn.Linear(8, 11, bias=False)
        if tied:
            self.unusual.weight = self.embed.weight


def names_of(model: nn.Module, group: dict) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}


@pytest.mark.parametrize("tied", [False, True])
def test_default_rules_partition_the_model(tied):
    model = Tiny(tied)
    hidden, outer, vectors = param_groups(model, default_rules(model, muon={"lr": 0.1}, adamw={"lr": 0.2}))
    # `up` has the shape of the position embedding, and is a hidden matrix nevertheless
    assert names_of(model, hidden) == {"blocks.0.up.weight"}
    assert names_of(model, outer) == {"embed.weight", "position.weight"} | (set() if tied else {"unusual.weight"})
    assert len(vectors["params"]) == 3 and vectors["weight_decay"] == 0.0
    assert (hidden["kind"], outer["kind"], vectors["kind"]) == ("muon", "adamw", "adamw")
    assert (hidden["lr"], outer["lr"]) == (0.1, 0.2)
    assert sum(len(g["params"]) for g in (hidden, outer, vectors)) == len(list(model.parameters()))


def test_heads_and_tables_are_known_by_their_names():
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"output": nn.Linear(4, 4, bias=False)})])})
    model["lm_head"] = nn.Linear(4, 6, bias=False)
    model["position"] = nn.Linear(4, 5, bias=False)  # a table, though no nn.Embedding
    hidden, outer = param_groups(model, default_rules(model))
    assert names_of(model, hidden) == {"blocks.0.output.weight"}
    assert names_of(model, outer) == {"lm_head.weight", "position.weight"}


def test_the_first_rule_wins_and_any_alias_counts():
    model = Tiny(tied=True)
    first, rest = param_groups(model, [Rule(r"unusual", {"lr": 1.0}), Rule(".*")])
    assert len(first["params"]) == 1 and first["params"][0] is model.embed.weight and first["lr"] == 1.0
    assert not any(p is model.embed.weight for p in rest["params"])


def test_frozen_parameters_are_left_out():
    model = Tiny()
    model.embed.weight.requires_grad_(False)
    (group,) = param_groups(model, [Rule(".*")])
    assert not any(p is model.embed.weight for p in group["params"])
    with pytest.raises(ValueError, match="no trainable parameters"):
        param_groups(model.requires_grad_(False), [Rule(".*")])


def test_errors_name_the_parameters():
    model = Tiny()
    with pytest.raises(ValueError, match=r"no rule matches position\.weight.*add a rule"):
        param_groups(model, [Rule("embed"), Rule("blocks|unusual")])
    with pytest.raises(ValueError, match=r"'positions.weight' matches no trainable.*nearest to it: position\.weight"):
        param_groups(model, [Rule("positions.weight"), Rule(".*")])
    with pytest.raises(ValueError, match=r"earlier rules take .*unusual\.weight; move it up"):
        param_groups(model, [Rule(".*"), Rule("unusual")])
