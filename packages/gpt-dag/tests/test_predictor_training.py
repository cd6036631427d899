"""The predictor in gpt-core's training loop: micro-steps are distinct and add up, padding is no token, checkpoints
(assertions 14 and 15)."""

from contextlib import nullcontext

import pytest
import torch

from gpt_core.checkpoint import CheckpointError, find_checkpoint, load_model, newest_run, save_model
from gpt_core.distributed import Distributed
from gpt_core.training import Hook, ModelWithLoss, TrainState, plan_batches, train
from gpt_core.training.config import TrainingConfig
from gpt_core.training.scalers import amp_grad_scaler
from gpt_dag.predictor import PredictorOnlyModel, batch_cosine, batch_factor, predictor, tag_loss
from gpt_dag.stream import expressions
from gpt_dag.tokens import WordTokenizer

SHAPE = {"n_layer": 1, "n_embd": 16, "dilations": (2,)}


def test_the_rate_grows_with_the_root_of_the_batch_up_to_a_cap():
    assert batch_factor(2.5e-4, 1024) == 1
    assert 2.5e-4 * batch_factor(2.5e-4, 16384) == pytest.approx(1e-3)
    assert 1e-3 * batch_factor(1e-3, 16384) == pytest.approx(2e-3), "capped"
    assert batch_factor(1e-3, 16384, most=None) == 4
    schedule = batch_cosine(100, 2.5e-4, 16384)
    assert [schedule(0), schedule(2), schedule(100)] == pytest.approx([4 / 3, 4, 0.2])
    assert max(map(schedule, range(100))) == schedule(2)
    with pytest.raises(ValueError, match=r"at least one example, got learning_rate=0\.001, examples=0"):
        batch_factor(1e-3, 0)


class Recorded:
    """A loader that remembers what it handed out."""

    def __init__(self, loader):
        self.loader, self.batches = loader, []

    def __next__(self):
        self.batches.append(next(self.loader))
        return self.batches[-1]


class Gradients(Hook):
    def __init__(self):
        self.of = {}

    def on_gradients(self, state):
        self.of = {name: p.grad.clone() for name, p in state.model.named_parameters()}


def one_step(device_batch_size, micro_steps, descent):
    """Gradients, batches and the state after one optimizer step of 32 examples."""
    torch.manual_seed(0)
    model, loss = predictor(WordTokenizer.vocab_size, **SHAPE).double(), tag_loss()
    data = Recorded(expressions(96, device_batch_size, seed=5, max_ops=2, held_out=8, prefetch=0).train)
    config = TrainingConfig(96, device_batch_size, gradient_accumulation_steps=micro_steps)
    state = TrainState(model, descent(model.parameters(), 1e-3), amp_grad_scaler(0.0, torch.float32, "cpu"), data)
    gradients = Gradients()
    train(
        state,
        ModelWithLoss(model, loss),
        loss=loss,
        schedule=lambda step: 1.0,
        plan=plan_batches(config, 1),
        max_steps=1,
        distributed=Distributed(),
        autocast=nullcontext,
        hooks=[gradients],
    )
    return gradients.of, data.batches, state


def test_16_micro_steps_take_16_distinct_batches_and_add_up_to_one_large_one(descent):
    many, batches, state = one_step(2, 16, descent)
    once, (whole,), _ = one_step(32, 1, descent)
    assert len(batches) == 16
    rows = [tuple(row[row > 0].tolist()) for batch in batches for row in batch.inputs]
    assert len(set(rows)) == 32, "as many different expressions"
    assert set(rows) == {tuple(row[row > 0].tolist()) for row in whole.inputs}
    assert max(float((many[name] - once[name]).abs().max()) for name in many) < 1e-5
    assert state.tokens == sum(map(len, rows)), "padding is no token"
    assert state.step == 1


def saved(run_dir, step, accuracy):
    """A checkpoint of a new predictor."""
    folder = run_dir / f"checkpoints/step_{step:06d}"
    folder.mkdir(parents=True)
    torch.manual_seed(step)
    model = predictor(WordTokenizer.vocab_size, **SHAPE)
    recipe = {"module": "gpt_dag.predictor.predictor", "module_kwargs": model.config.to_dict()}
    save_model(folder, model, {"step": step, "accuracy": accuracy, "model": recipe})
    return model.eval()


def test_a_saved_predictor_is_found_and_is_the_same(tmp_path):
    saved(tmp_path / "run-1", 200, 90.0)
    model = saved(tmp_path / "run-1", 1500, 99.5)
    saved(tmp_path / "run_2", 9000, 1.0)
    assert newest_run(tmp_path, prefix="run-").name == "run-1", "run ignores run_2"
    folder = find_checkpoint(tmp_path / "run-1")
    assert folder.name == "step_001500", "a point in the accuracy does not end the name"
    loaded = load_model(folder)
    ids = torch.randint(1, WordTokenizer.vocab_size, (2, 9))
    assert isinstance(loaded, PredictorOnlyModel)
    assert torch.equal(loaded(ids).packed, model(ids).packed)
    assert loaded.config.dilations == (2,)


def test_a_missing_checkpoint_lists_what_is_there(tmp_path):
    for step in range(12):
        saved(tmp_path / "run-1", 100 + step, 0.0)
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path / "run-1", "step_000999")
    assert sum(f"step_{100 + step:06d}" in str(error.value) for step in range(12)) >= 10
