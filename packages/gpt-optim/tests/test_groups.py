"""Groups: an exact partition, clean names under every wrapper, and errors that say what to do."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gpt_optim import Rule, default_rules, param_groups
from gpt_optim.groups import clean_names, exactly


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up = nn.LayerNorm(8), nn.Linear(8, 32)

    def forward(self, x):
        return self.up(self.norm(x))


class Tiny(nn.Module):
    def __init__(self, tied: bool = False):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([Block()])
        self.unusual = nn.Linear(8, 11, bias=False)
        if tied:
            self.unusual.weight = self.embed.weight


RULES = [
    Rule(r"^blocks\.", {"kind": "muon"}, ndim=2),
    Rule("embed|unusual", {"kind": "adamw"}),
    Rule("norm|bias", {"lr": 0.5}),
]
NAMES = [
    ["blocks.0.up.weight"],
    ["embed.weight", "unusual.weight"],
    ["blocks.0.norm.weight", "blocks.0.norm.bias", "blocks.0.up.bias"],
]


def test_groups_hold_options_parameters_and_names_in_the_order_of_the_rules():
    model = Tiny()
    groups = param_groups(model, RULES)
    assert [group["param_names"] for group in groups] == NAMES
    named = dict(model.named_parameters())
    for group in groups:
        assert all(p is named[name] for p, name in zip(group["params"], group["param_names"], strict=True))
    assert (groups[0]["kind"], groups[1]["kind"], groups[2]["lr"]) == ("muon", "adamw", 0.5)


def test_torch_optimizers_take_the_groups():
    optimizer = torch.optim.AdamW(param_groups(Tiny(), [Rule(".*", ndim=2), Rule(".*", {"lr": 0.5}, ndim=1)]), lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
    assert optimizer.state_dict()["param_groups"][0]["param_names"][0] == "embed.weight"


def compiled_whole(model: nn.Module) -> nn.Module:
    return torch.compile(model)


def wrapped_in_ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def compiled_then_wrapped_in_ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(torch.compile(model))


def compiled_by_block_then_wrapped_then_compiled(model: nn.Module) -> nn.Module:
    model.blocks[0] = torch.compile(model.blocks[0])
    return torch.compile(DistributedDataParallel(model))


def checkpointed_by_block(model: nn.Module) -> nn.Module:
    model.blocks[0] = checkpoint_wrapper(model.blocks[0])
    return model


def sharded_by_fsdp2(model: nn.Module) -> nn.Module:
    fully_shard(model.blocks[0])
    return fully_shard(model)


def sharded_by_fsdp2_then_compiled(model: nn.Module) -> nn.Module:
    return torch.compile(sharded_by_fsdp2(model))


WRAPPERS = [
    compiled_whole,
    wrapped_in_ddp,
    compiled_then_wrapped_in_ddp,
    compiled_by_block_then_wrapped_then_compiled,
    checkpointed_by_block,
    sharded_by_fsdp2,
    sharded_by_fsdp2_then_compiled,
]


@pytest.fixture(scope="module")
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrappers_change_neither_names_nor_groups(wrap, one_process):
    model = wrap(Tiny())
    groups = param_groups(model, RULES)
    assert [group["param_names"] for group in groups] == NAMES
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_default_rules_are_the_same_under_wrappers(wrap, one_process):
    rules = default_rules(Tiny())
    assert default_rules(wrap(Tiny())) == rules
    assert len(param_groups(wrap(Tiny()), rules)) == len(rules) == 4


def test_a_submodule_called_module_keeps_its_name():
    model = nn.ModuleDict({"module": nn.Linear(2, 3, bias=False), "other": nn.Linear(2, 3, bias=False)})
    assert [names for names in clean_names(model).values()] == [["module.weight"], ["other.weight"]]


@pytest.mark.parametrize("pattern", ["embed", "unusual"])
def test_a_shared_parameter_answers_to_each_of_its_names(pattern):
    model = Tiny(tied=True)
    shared, rest = param_groups(model, [Rule(pattern), Rule(".*", exclude=pattern)])
    assert len(shared["params"]) == 1 and shared["params"][0] is model.embed.weight
    assert shared["param_names"] == ["embed.weight"]
    assert len(rest["params"]) == 4 and not any(p is model.embed.weight for p in rest["params"])


def test_frozen_parameters_are_left_out():
    model = Tiny()
    model.embed.weight.requires_grad_(False)
    (group,) = param_groups(model, [Rule(".*")])
    assert "embed.weight" not in group["param_names"] and len(group["params"]) == 5
    with pytest.raises(ValueError, match="no trainable parameters"):
        param_groups(model.requires_grad_(False), [Rule(".*")])


def test_ndim_and_exclude_narrow_a_rule():
    model = Tiny()
    rules = [Rule("weight$", exclude="embed|norm"), Rule("embed"), Rule(".*", ndim=1)]
    assert [group["param_names"] for group in param_groups(model, rules)] == [
        ["blocks.0.up.weight", "unusual.weight"],
        ["embed.weight"],
        NAMES[2],
    ]


def test_exactly_takes_these_names_only():
    rules = [Rule(exactly(["embed.weight"])), Rule(".*", exclude=exactly(["embed.weight"]))]
    assert [len(group["params"]) for group in param_groups(Tiny(), rules)] == [1, 5]
    assert not Rule(exactly(["a.b"])).matches(["a.bc", "axb", "x.a.b"], torch.zeros(1))


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match=r"no rule matches blocks\.0\.norm\.weight.*add a rule"):
        param_groups(Tiny(), RULES[:2])


def test_a_parameter_with_two_rules_is_an_error_whose_remedy_works():
    general, special = Rule(".*", exclude="norm|bias"), Rule("embed")
    with pytest.raises(ValueError) as error:
        param_groups(Tiny(), [general, special, Rule("norm|bias")])
    message = str(error.value)
    assert "embed.weight is taken by Rule('.*', exclude='norm|bias') and by Rule('embed')" in message
    assert "Rule('.*', ..., exclude='norm|bias|embed')" in message
    rules = [Rule(".*", exclude="norm|bias|embed"), special, Rule("norm|bias")]
    assert [len(group["params"]) for group in param_groups(Tiny(), rules)] == [2, 1, 3]


def test_a_shared_parameter_with_a_rule_for_each_name_is_an_error():
    rules = [Rule("embed"), Rule("unusual"), Rule("blocks")]
    with pytest.raises(ValueError, match=r"embed\.weight \(shared, also unusual\.weight\) is taken by"):
        param_groups(Tiny(tied=True), rules)
    assert [len(group["params"]) for group in param_groups(Tiny(), rules)] == [1, 1, 4]


def test_two_rules_with_one_pattern_are_told_apart_by_ndim():
    with pytest.raises(ValueError, match="different patterns, or an ndim each"):
        param_groups(Tiny(), [Rule(".*"), Rule(".*", ndim=2)])


def test_a_rule_without_parameters_is_an_error():
    with pytest.raises(ValueError, match=r"Rule\('embeds.weight'\) matches no trainable.*nearest to it: embed\.weight"):
        param_groups(Tiny(), [Rule("embeds.weight"), Rule(".*")])
    with pytest.raises(ValueError, match=r"Rule\('embed', ndim=3\) takes no.*embed\.weight fits its pattern"):
        param_groups(Tiny(), [Rule("embed", ndim=3), Rule(".*")])
