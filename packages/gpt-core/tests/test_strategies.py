"""ddp, zero1, zero2 and fsdp on 2, 3 and 4 gloo ranks against one process: steps, checkpoints, bytes, samples.

One start of each number of ranks serves all tests.
"""

import pytest
import strategies_worker
import torch

from gpt_core.checkpoint import find_checkpoint, load_weights
from gpt_core.config import load_config
from gpt_core.distributed import Distributed
from gpt_core.training.config import ParallelConfig
from gpt_core.training.parallel import check_combination, resolve_strategy
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.state_bytes import StateBytes, state_bytes

pytestmark = pytest.mark.slow

STRATEGIES = ("ddp", "zero1", "zero2", "fsdp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fork_ranks):
    folder = tmp_path_factory.mktemp("strategies")
    for size in (2, 3, 4, 1):  # the others continue what two have saved
        ended = fork_ranks(folder, size, strategies_worker.main, folder, timeout=200)
        assert not any(rank.code for rank in ended), ended
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    """seen[W][R]: what rank R of W saw."""
    return {
        size: [torch.load(folder / f"{size}_{rank}.pt", weights_only=True) for rank in range(size)]
        for size in (1, 2, 3, 4)
    }


@pytest.fixture(scope="module")
def single(seen):
    return seen[1][0]["single"]


def furthest(weights, others):
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_five_steps_are_those_of_one_process(seen, single, size, strategy):
    """With accumulation, clipping that bites, another number of targets in every micro-step, and a tied head."""
    first = seen[size][0][strategy]
    assert furthest(first["weights"], single["weights"]) <= 1e-6
    for (loss, norm), (wanted_loss, wanted_norm) in zip(first["losses"], single["losses"], strict=True):
        assert wanted_norm > 0.2, "clipping to 0.1 should bite"
        assert loss == pytest.approx(wanted_loss, abs=1e-6) and norm == pytest.approx(wanted_norm, rel=1e-5)
    assert first["evaluation"] == pytest.approx(single["evaluation"], abs=1e-6)
    assert first["texts"] == single["texts"] and len(single["texts"]) == 1
    for other in seen[size][1:]:
        assert furthest(other[strategy]["weights"], first["weights"]) == 0, "ranks differ"
        assert other[strategy]["losses"] == first["losses"] and other[strategy]["evaluation"] == first["evaluation"]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_gradient_statistics_of_shards_are_those_of_the_whole(seen, single, size):
    for stats, wanted, (_, norm) in zip(seen[size][0]["fsdp"]["stats"], single["stats"], single["losses"], strict=True):
        assert stats["global_norm"] == pytest.approx(norm, rel=1e-5)
        assert stats["layers"] == pytest.approx(wanted["layers"], rel=1e-4)
        assert stats["value_max"] == pytest.approx(wanted["value_max"], rel=1e-4)


def test_what_two_ranks_saved_goes_on_anywhere(seen, single):
    """On 1, 2, 3 and 4 ranks, with the same strategy and between ddp, fsdp and one process."""
    resumed = {
        (size, name): run for size, ranks in seen.items() for name, run in ranks[0].items() if "continued" in name
    }
    assert len(resumed) == 11
    for (size, name), run in resumed.items():
        straight = seen[2][0][name.removesuffix(" continued")]
        assert furthest(run["weights"], straight["weights"]) <= 1e-6, (size, name)
        assert furthest(run["weights"], single["weights"]) <= 2e-6
        assert len(run["losses"]) == 2, "steps 4 and 5"
    for strategy in ("zero1", "zero2", "fsdp"):
        assert furthest(resumed[2, f"{strategy} continued"]["weights"], seen[2][0][strategy]["weights"]) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_fused_with_the_head_is_that_of_all_logits(seen, single, strategy):
    """Under fsdp the head's weight, which the loss takes itself, is gathered like those that modules use."""
    first, second = (rank[f"{strategy} fused"] for rank in seen[2])
    assert furthest(first["weights"], single["weights"]) <= 1e-6 and furthest(first["weights"], second["weights"]) == 0
    for got, wanted in zip(first["losses"], single["losses"], strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)
    assert first["evaluation"] == pytest.approx(single["evaluation"], abs=1e-6)


def test_a_fused_loss_in_mixed_precision_on_shards(seen):
    first = seen[2][0]
    for got, wanted in zip(first["fsdp fused bfloat16"]["losses"], first["ddp torch.bfloat16"]["losses"], strict=True):
        assert got == pytest.approx(wanted, rel=2e-3)


def test_another_optimizers_state_is_refused_in_one_line(seen):
    for rank in seen[2]:
        message = rank["refused"]
        assert "ToyZero" in message and "SGD" in message and "optimizer.module" in message
        assert "\n" not in message


def test_a_sharded_model_is_saved_as_one_ordinary_file(folder, seen, toys):
    model = toys.gpt(weight_tying=False)
    model.head.weight = model.embed.weight
    load_weights(model, find_checkpoint(folder / "fsdp"))
    other = toys.gpt(weight_tying=False)
    other.head.weight = other.embed.weight
    load_weights(other, find_checkpoint(folder / "ddp"))
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (one - two).abs().max() <= 1e-6, name


@pytest.mark.parametrize("dtype", ["torch.bfloat16", "torch.float16"])
def test_mixed_precision_is_the_same_in_all(seen, dtype):
    first = seen[2][0]
    for strategy in ("zero2", "fsdp"):
        for got, wanted in zip(first[f"{strategy} {dtype}"]["losses"], first[f"ddp {dtype}"]["losses"], strict=True):
            assert got == pytest.approx(wanted, rel=1e-4)
        assert furthest(seen[2][1][f"{strategy} {dtype}"]["weights"], first[f"{strategy} {dtype}"]["weights"]) == 0
    assert first[f"ddp {dtype}"]["losses"] != first["ddp"]["losses"][:2]


def test_keller_and_recomputation_work_on_shards(seen):
    first = seen[2][0]
    for (loss, norm), (wanted_loss, wanted_norm) in zip(
        first["fsdp keller"]["losses"], first["ddp keller"]["losses"], strict=True
    ):
        assert loss == pytest.approx(wanted_loss, abs=1e-6) and norm == pytest.approx(wanted_norm, rel=1e-5)
    assert furthest(first["fsdp keller"]["weights"], first["ddp keller"]["weights"]) <= 1e-6
    for got, wanted in zip(first["fsdp recompute"]["losses"], first["fsdp"]["losses"], strict=False):
        assert got == pytest.approx(wanted, rel=1e-5)


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_state_bytes_are_what_the_formula_says(seen, size, strategy):
    """Of rank 0 exactly; no other rank has more."""
    planned, found = seen[size][0][strategy]["bytes"]
    assert planned == found
    for other in seen[size][1:]:
        assert all(a <= b for a, b in zip(other[strategy]["bytes"][1], found, strict=True))
    whole = seen[1][0]["single"]["bytes"][1]
    shares = {"ddp": (1, 1, 1), "zero1": (1, 1, 1 / size), "zero2": (1, 1, 1 / size), "fsdp": (1 / size,) * 3}
    for got, all_of_it, share in zip(found, whole, shares[strategy], strict=True):
        assert got == pytest.approx(share * all_of_it, rel=0.1), "rows of 16 and 17 do not divide evenly"


@pytest.mark.parametrize(("size", "saving"), [(2, 0.5), (4, 0.75), (8, 0.875)])
def test_the_saving_of_fsdp_is_the_published_one(toys, size, saving):
    model = toys.gpt(n_embd=64)
    planned = state_bytes(model, torch.optim.AdamW(model.parameters()), "fsdp", size, micro_steps=1)
    assert planned.saving == pytest.approx(saving, abs=2e-3)  # 17 rows, and a step counter per tensor
    assert f"{planned.saving:.1%} less than ddp's" in planned.sentence("fsdp")
    accumulating = state_bytes(model, torch.optim.AdamW(model.parameters()), "fsdp", size, micro_steps=2)
    assert accumulating.gradients == 4 * sum(p.numel() for p in model.parameters())


def test_the_saving_of_zero1_and_what_is_not_known(toys):
    P = 124_373_760
    for size, saving, gigabytes in ((2, 0.25, 1.492), (4, 0.375, 1.244), (8, 0.4375, 1.119)):
        planned = StateBytes(4 * P, 4 * P, 8 * P // size, 16 * P)
        assert planned.saving == pytest.approx(saving) and planned.total == pytest.approx(gigabytes * 1e9, rel=1e-3)
    model = toys.gpt()
    unknown = state_bytes(model, torch.optim.SGD(model.parameters()), "ddp", 2, micro_steps=1)
    assert unknown.optimizer is None and unknown.saving is None and "n/a" in unknown.sentence("ddp")


# --- what cannot work --------------------------------------------------------------------------------------------

CONFIG = """
model: {module: gpt_core.models.gpt, module_kwargs: {}}
data: {module: gpt_core.training.autoregressive, module_kwargs: {}}
loss: {module: gpt_core.training.autoregressive, module_kwargs: {}}
optimizer: {module: toy_zero.toy_zero, module_kwargs: {}}
scheduler: {module: gpt_core.training.autoregressive, module_kwargs: {}}
scaler: {module: gpt_core.training.amp_grad_scaler, module_kwargs: {}}
"""


@pytest.mark.parametrize(
    ("strategy", "arguments", "parts"),
    [
        ("zero1", ["--optimizer.module=torch.optim.AdamW"], ["torch.optim.AdamW", "zero", "ddp or fsdp"]),
        ("zero2", ["--optimizer.module=torch.optim.AdamW"], ["torch.optim.AdamW", "zero", "ddp or fsdp"]),
        ("ddp", ["++optimizer.module_kwargs.zero=1"], ["parallel.strategy=zero1"]),
        ("fsdp", ["--general.compile=model"], ["general.compile=block"]),
        ("zero2", ["--gradient_log_interval=5"], ["gradient_log_interval", "zero1"]),
        ("zero2", ["--scaler.module=gpt_core.training.keller_scaler"], ["keller_scaler", "amp_grad_scaler"]),
    ],
)
def test_what_cannot_work_together_is_said(tmp_path, strategy, arguments, parts):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ValueError) as error:
        check_combination(load_config([str(path), *arguments], schema=SCHEMA), strategy)
    for part in parts:
        assert part in str(error.value), error.value
    check_combination(load_config([str(path)], schema=SCHEMA), strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_is_too_few(strategy):
    pair = Distributed(rank=0, world_size=2, backend="gloo")
    assert resolve_strategy(ParallelConfig(strategy=strategy), pair) == strategy
    with pytest.raises(ValueError, match=rf"{strategy}, but there is one process"):
        resolve_strategy(ParallelConfig(strategy=strategy), Distributed())
