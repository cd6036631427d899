"""A rank of test_strategies.py: trains a toy with every strategy, and writes what it saw to FOLDER/W_R.pt."""

import warnings
from functools import partial

import torch
import toys
from toy_zero import toy_zero
from toys import ToyLoader, run_loop, tiny_gpt

from gpt_core.checkpoint import CheckpointError
from gpt_core.checkpoint.training_state import load_checkpoint, save_checkpoint
from gpt_core.config import Factory
from gpt_core.distributed import distributed
from gpt_core.monitor import gradient_stats
from gpt_core.training import Hook, ModelWithLoss, TrainState, amp_grad_scaler, autoregressive, evaluate, keller_scaler
from gpt_core.training.config import SampleConfig
from gpt_core.training.fsdp import gathered
from gpt_core.training.hooks import Sample
from gpt_core.training.parallel import checkpoint_activations, parallelize
from gpt_core.training.precision import autocast
from gpt_core.training.sharded_optimizer import build_optimizer
from gpt_core.training.state_bytes import local_bytes, optimizer_bytes, state_bytes

MICRO_STEPS = 12  # of a step, over all ranks
CONTINUED = {  # number of ranks -> strategy of the checkpoint -> strategy to resume with
    1: {"fsdp": "single", "ddp": "single", "zero1": "single"},
    2: {"fsdp": "fsdp", "ddp": "fsdp", "zero1": "zero1", "zero2": "zero2"},
    3: {"fsdp": "ddp", "zero1": "zero1"},
    4: {"fsdp": "fsdp", "zero2": "zero2"},
}
MODEL = {"module": "gpt_core.models.gpt", "module_kwargs": {}}

adamw = partial(toys.adamw, lr=1e-3)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def tied(seed):
    """A GPT whose head is another module with the embedding's parameter, as in other people's models."""
    model = tiny_gpt(seed=seed, weight_tying=False)
    model.head.weight = model.embed.weight
    return model


class Watch(Hook):
    def __init__(self, ranks):
        self.ranks, self.losses, self.stats = ranks, [], []

    def on_gradients(self, state):
        self.stats.append(gradient_stats(state.model.named_parameters()))

    def on_step(self, state):
        (loss_sum,) = self.ranks.sum([float(state.last.loss_sum)])
        self.losses.append((loss_sum / state.last.count, state.last.grad_norm))


class Run:
    """A toy run with one strategy; rank 0 has other weights than the rest, until they are broadcast."""

    def __init__(
        self,
        ranks,
        strategy,
        optimizer=adamw,
        *,
        scaler=amp_grad_scaler,
        dtype=torch.float32,
        recompute=False,
        fused=False,
    ):
        self.ranks, self.strategy, self.loss = ranks, strategy, autoregressive()
        self.autocast = partial(autocast, dtype, ranks.device)
        model = tied(seed=ranks.rank)
        if recompute:
            checkpoint_activations(model)
        self.forward = parallelize(ModelWithLoss(model, self.loss, fused=fused), strategy, ranks, dtype)
        kwargs = {"dtype": dtype, "device_type": "cpu"} if scaler is amp_grad_scaler else {"dtype": dtype}
        loader = ToyLoader(rank=ranks.rank, world_size=ranks.world_size)
        optimizer = build_optimizer(Factory("toy", {}, optimizer), model, strategy)
        self.state = TrainState(model, optimizer, scaler(0.1, **kwargs), loader)
        self.planned = state_bytes(model, optimizer, strategy, ranks.world_size, micro_steps=1)

    def train(self, steps, *hooks):
        micro_steps = MICRO_STEPS // self.ranks.world_size
        self.state.status = "running"  # again
        watch = Watch(self.ranks)
        run_loop(
            self.state, steps, ranks=self.ranks, loss=self.loss, forward=self.forward, micro_steps=micro_steps,
            hooks=[watch, *hooks], autocast=self.autocast,
        )  # fmt: skip
        return {"losses": watch.losses, "stats": watch.stats, "weights": self.weights()}

    def weights(self):
        whole = {name: getattr(p, "full_tensor", p.detach)() for name, p in self.state.model.named_parameters()}
        return {name: p.detach().clone() for name, p in whole.items()}

    def bytes(self):
        """Planned, and found: of weights, gradients (by a backward pass) and optimizer."""
        batch = next(ToyLoader(rank=self.ranks.rank))
        self.forward(batch.inputs, batch.targets).objective.backward()
        parameters = list(self.state.model.parameters())
        grads = [p.grad for p in parameters]
        found = (local_bytes(parameters), local_bytes(grads), optimizer_bytes(self.state.optimizer))
        return (self.planned.weights, self.planned.gradients, self.planned.optimizer), found

    def gather(self):
        return gathered(self.forward)

    def evaluate(self):
        data = ToyLoader(seed=5, rank=self.ranks.rank, world_size=self.ranks.world_size)
        result = evaluate(
            self.forward, data, loss=self.loss, iterations=12, distributed=self.ranks, autocast=self.autocast
        )
        return (result.loss, result.accuracy, result.targets)

    def save(self, folder):
        state = self.state
        save_checkpoint(
            folder, state.step, model=state.model, optimizer=state.optimizer, data=state.data,
            meta=state.meta() | {"model": MODEL}, distributed=self.ranks,
        )  # fmt: skip

    def load(self, folder):
        state = self.state
        where = folder / "checkpoints" / "step_000003"
        state.restore(
            load_checkpoint(
                where, model=state.model, optimizer=state.optimizer, data=state.data, distributed=self.ranks
            )
        )
        return self


class Texts:
    """Sinks that keep the samples."""

    def __init__(self):
        self.texts = []

    def event(self, kind, data):
        self.texts.append(data["text"])

    def info(self, message):
        pass


class Letters:
    vocab_size, eot_id = 17, None

    def encode(self, text):
        return [ord(letter) - 97 for letter in text]

    def decode(self, ids):
        return "".join(chr(97 + i) for i in ids)


def strategies(ranks):
    if ranks.world_size == 1:
        return {"single": ("single", adamw)}
    zero = {"zero1": ("zero1", toy_zero), "zero2": ("zero2", toy_zero)}
    return {"ddp": ("ddp", adamw), **zero, "fsdp": ("fsdp", adamw)}


def look(folder, ranks):
    """Everything that is checked, by name."""
    seen, pair = {}, ranks.world_size == 2
    for name, (strategy, optimizer) in strategies(ranks).items():
        run = Run(ranks, strategy, optimizer)
        seen[name] = run.train(3)
        if pair:
            run.save(folder / name)
        texts = Texts()
        settings = SampleConfig(prompt="ab", max_new_tokens=12, temperature=0.0, sample_every=5)
        more = run.train(5, Sample(settings, texts, ranks, Letters(), 1, run.gather, run.autocast))
        seen[name] = {key: seen[name][key] + more[key] for key in ("losses", "stats")} | {"weights": more["weights"]}
        seen[name] |= {"texts": texts.texts, "evaluation": run.evaluate(), "bytes": run.bytes()}

    # what was saved on two ranks goes on here, under the same strategy and under another
    for saved, strategy in CONTINUED[ranks.world_size].items():
        optimizer = toy_zero if "zero" in saved else adamw
        seen[f"{saved} continued"] = Run(ranks, strategy, optimizer).load(folder / saved).train(5)

    if pair:
        for dtype in (torch.bfloat16, torch.float16):
            for strategy in ("ddp", "zero2", "fsdp"):
                optimizer = toy_zero if strategy == "zero2" else adamw
                seen[f"{strategy} {dtype}"] = Run(ranks, strategy, optimizer, dtype=dtype).train(2)
        for strategy in ("ddp", "fsdp"):
            seen[f"{strategy} keller"] = Run(ranks, strategy, scaler=keller_scaler).train(2)
        for strategy in ("ddp", "zero1", "zero2", "fsdp"):
            optimizer = toy_zero if "zero" in strategy else adamw
            run = Run(ranks, strategy, optimizer, fused=True)
            seen[f"{strategy} fused"] = run.train(5) | {"evaluation": run.evaluate()}
        seen["fsdp fused bfloat16"] = Run(ranks, "fsdp", dtype=torch.bfloat16, fused=True).train(2)
        seen["fsdp recompute"] = Run(ranks, "fsdp", recompute=True).train(2)
        try:
            Run(ranks, "ddp", sgd).load(folder / "zero1")
        except CheckpointError as error:
            seen["refused"] = str(error)
    return seen


def main(folder):
    warnings.simplefilter("error")
    with distributed("cpu") as ranks:
        torch.save(look(folder, ranks), folder / f"{ranks.world_size}_{ranks.rank}.pt")
