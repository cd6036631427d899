"""A rank of test_distributed.py: writes what it saw to FOLDER/rank_R.pt."""

import os
import signal

import torch
from toys import VOCAB, Spelled, ToyLoader, make_state, run_loop

from gpt_core.checkpoint import CheckpointError
from gpt_core.checkpoint.training_state import load_checkpoint, save_checkpoint
from gpt_core.distributed import distributed
from gpt_core.training import Hook, ModelWithLoss, autoregressive, evaluate
from gpt_core.training.config import ParallelConfig
from gpt_core.training.parallel import parallelize, resolve_strategy


class Losses(Hook):
    def __init__(self, ranks):
        self.ranks, self.losses, self.gradients = ranks, [], []

    def on_gradients(self, state):
        self.gradients.append([p.grad.clone() for p in state.model.parameters()])

    def on_step(self, state):
        (loss_sum,) = self.ranks.sum([float(state.last.loss_sum)])
        self.losses.append((loss_sum / state.last.count, state.last.grad_norm, state.last.count))


class Kill(Hook):
    """SIGTERM to this process after step 2."""

    def on_step(self, state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def snapshot(state):
    return {
        "weights": {name: p.detach().clone() for name, p in state.model.named_parameters()},
        "optimizer": {
            f"{name}/{key}": value.clone()
            for name, p in state.model.named_parameters()
            for key, value in state.optimizer.state[p].items()
        },
        "step": state.step,
        "status": state.status,
        "tokens": state.tokens,
    }


def train(ranks, max_steps, state=None, micro_steps=1, **options):
    loader = ToyLoader(rank=ranks.rank, world_size=ranks.world_size, shares=ToyLoader.FEW)
    # another seed per rank: DDP must hand rank 0's weights to all
    state = state or make_state(seed=ranks.rank, data=loader)
    loss = autoregressive()
    loss.use_tokenizer(Spelled(*range(VOCAB)))
    strategy = resolve_strategy(ParallelConfig(), ranks)
    forward = parallelize(ModelWithLoss(state.model, loss), strategy, ranks)
    run_loop(state, max_steps, ranks=ranks, loss=loss, forward=forward, micro_steps=micro_steps, **options)
    return state, forward


def save(run_dir, state, ranks):
    return save_checkpoint(
        run_dir,
        state.step,
        model=state.model,
        optimizer=state.optimizer,
        data=state.data,
        meta=state.meta(),
        distributed=ranks,
    )


def main(folder):
    with distributed("cpu") as ranks:
        seen = {"rank": ranks.rank, "backend": ranks.backend, "broadcast": ranks.broadcast(f"from {ranks.rank}")}
        seen["sum"] = ranks.sum([ranks.rank + 1, 2.0**53 * ranks.rank])

        losses = Losses(ranks)
        state, forward = train(ranks, 4, micro_steps=2, hooks=[losses])
        seen |= {"losses": losses.losses, "gradients": losses.gradients, "trained": snapshot(state)}
        data = ToyLoader(seed=5, rank=ranks.rank, world_size=ranks.world_size)
        seen["evaluation"] = evaluate(
            forward,
            data,
            loss=autoregressive(),
            iterations=6,
            distributed=ranks,
            autocast=lambda: torch.autocast("cpu", enabled=False),
        )

        checkpoint = save(folder / "run", state, ranks)
        resumed = make_state(seed=9, data=ToyLoader(rank=ranks.rank, world_size=ranks.world_size))
        torch.manual_seed(1000 + ranks.rank)
        own = torch.get_rng_state()
        save(folder / "rng", state, ranks)
        torch.manual_seed(0)
        where = folder / "rng" / "checkpoints" / checkpoint.name
        load_checkpoint(where, model=resumed.model, optimizer=resumed.optimizer, data=resumed.data, distributed=ranks)
        seen["rng_is_back"] = torch.equal(torch.get_rng_state(), own)
        seen["resumed"] = snapshot(resumed)

        # rank 1 alone cannot write its part: both are told, and nothing new appears
        state.step += 1
        if ranks.rank == 1:
            state.data.state_dict = lambda: {"not": "JSON", "at": object()}
        try:
            save(folder / "run", state, ranks)
            seen["failed_save"] = None
        except CheckpointError as error:
            seen["failed_save"] = str(error)

        # a signal to rank 1 alone, in the middle of the steps of both
        stopped, _ = train(ranks, 50, hooks=[Kill()] if ranks.rank == 1 else [])
        seen["stopped"] = (stopped.step, stopped.status)
        torch.save(seen, folder / f"rank_{ranks.rank}.pt")
