"""Several micro-steps are one big batch: in number, and in gradient."""

from contextlib import nullcontext

import pytest
import torch

from gpt_core.training import BatchPlan, Hook, ModelWithLoss, autoregressive, plan_batches
from gpt_core.training.config import TrainingConfig


def plan(world_size=1, **options):
    return plan_batches(TrainingConfig(**options), world_size)


@pytest.mark.parametrize(("total", "world_size", "micro_steps"), [(40, 1, 40), (40, 8, 5), (40, 2, 20)])
def test_gradient_accumulation_steps_count_all_processes_together(total, world_size, micro_steps):
    made = plan(world_size, gradient_accumulation_steps=total, device_batch_size=12, context_length=1024)
    assert made.micro_steps == micro_steps
    assert made.sequences == 480 and made.tokens == 491_520  # the same whatever the number of processes


@pytest.mark.parametrize(
    ("global_batch", "device_batch", "world_size", "micro_steps"),
    [(480, 12, 1, 40), (480, 12, 8, 5), (512, 64, 8, 1), (560, 64, 8, 1), (500, 12, 8, 5)],
)
def test_global_batch_size_is_rounded_to_whole_micro_steps(global_batch, device_batch, world_size, micro_steps):
    made = plan(world_size, global_batch_size=global_batch, device_batch_size=device_batch)
    assert made.micro_steps == micro_steps
    assert made.sequences == micro_steps * device_batch * world_size


def test_without_either_every_process_takes_one_micro_step():
    assert plan(4, device_batch_size=3).sequences == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 10, "world_size": 4}, r"10 cannot be\s*shared by 4.*multiple of 4"),
        (  # nanoGPT's 480 sequences on two nodes
            {"gradient_accumulation_steps": 40, "device_batch_size": 12, "world_size": 16},
            r"40 cannot.*device_batch_size=10 with training.gradient_accumulation_steps=48 is the same.*480 sequences",
        ),
        (
            {"global_batch_size": 512, "device_batch_size": 64, "world_size": 16},
            r"512, but 16 processes .*=64 would take 1024.*device_batch_size=32, or .*global_batch_size=1024 if",
        ),
        (
            {"global_batch_size": 100, "device_batch_size": 64, "world_size": 8},
            "512 sequences.*chosen; use training.g",
        ),
        ({"global_batch_size": 8, "device_batch_size": 16}, "would take 16.*device_batch_size=8, or"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps.*at least 1, got 0"),
        ({"gradient_accumulation_steps": 4, "global_batch_size": 8}, r"twice.*got 4 and 8"),
        ({"device_batch_size": 0}, "at least 1, got 0"),
        ({"global_batch_size": 0}, "global_batch_size.*at least 1, got 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan(**options)


class Gradients(Hook):
    """The gradients of every step, before clipping."""

    def __init__(self):
        self.steps = []

    def on_gradients(self, state):
        self.steps.append([p.grad.clone() for p in state.model.parameters()])


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_micro_steps_with_unequal_masks_are_one_big_batch(toys, z_loss):
    """4 x 2 sequences, of whose targets none, a quarter, a half, three quarters are masked, equal 8 at once."""
    seen = Gradients()
    state = toys.state()
    weights = [p.detach().clone() for p in state.model.parameters()]
    toys.train(state, 1, micro_steps=4, hooks=[seen], loss=autoregressive(z_loss))

    batches = [next(loader) for loader in [toys.Loader()] for _ in range(4)]
    counts = [int((b.targets != -1).sum()) for b in batches]
    assert len(set(counts)) > 2, "the test needs batches with unequal numbers of targets"
    ids, targets = (torch.cat([getattr(b, name) for b in batches]) for name in ("inputs", "targets"))
    model = toys.gpt()
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    (autoregressive(z_loss)(model(ids), targets).objective / (targets != -1).sum()).backward()
    for ours, p in zip(seen.steps[0], model.parameters(), strict=True):
        assert (ours - p.grad).abs().max() <= 1e-6
    assert state.last.count == sum(counts) and state.tokens == 4 * toys.BATCH * toys.CONTEXT


class Chunks:
    """A loader of prepared batches."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def __next__(self):
        return next(self.batches)


@pytest.mark.parametrize("chunks", [2, 4])
def test_accumulation_in_float64_is_exact(toys, chunks):
    """So the small differences of float32 are rounding, not another weighting."""
    ids = torch.randint(toys.VOCAB, (8, toys.CONTEXT + 1), generator=torch.Generator().manual_seed(3))
    targets = ids[:, 1:].clone()
    targets[0] = -1
    targets[5, 2:] = -1
    gradients = []
    for parts in (1, chunks):
        seen = Gradients()
        pieces = [toys.Batch(i, t) for i, t in zip(ids[:, :-1].chunk(parts), targets.chunk(parts), strict=True)]
        state = toys.state(toys.gpt().double(), data=Chunks(pieces))
        toys.train(state, 1, micro_steps=parts, hooks=[seen])
        gradients.append(seen.steps[0])
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-14)


def test_a_wholly_masked_micro_step_changes_nothing(toys):
    ids = torch.randint(toys.VOCAB, (2, toys.CONTEXT + 1), generator=torch.Generator().manual_seed(3))
    good = toys.Batch(ids[:, :-1], ids[:, 1:])
    empty = toys.Batch(ids[:, :-1], torch.full_like(good.targets, -1))
    ends = []
    for batches in ([good], [good, empty], [empty, good]):
        state = toys.state(data=Chunks(batches))
        toys.train(state, 1, micro_steps=len(batches))
        ends.append([p.detach() for p in state.model.parameters()])
    for other in ends[1:]:
        for a, b in zip(ends[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_sequences_of_the_plan_are_what_the_loop_reads(toys):
    state = toys.state()
    toys.train(state, 3, micro_steps=4)
    assert state.data.state_dict()["batches"] == 12
    assert state.tokens == 3 * BatchPlan(toys.BATCH, 4, 1, toys.CONTEXT).tokens


def test_the_forward_handed_in_is_the_one_called(toys):
    state, calls = toys.state(), []
    forward = ModelWithLoss(state.model, autoregressive())
    forward.register_forward_hook(lambda *_: calls.append(1))
    toys.train(state, 2, micro_steps=3, forward=forward, autocast=nullcontext)
    assert len(calls) == 6
