"""Save checkpoints: at intervals of steps or hours, when the validation loss improves, and at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_core.checkpoint import CheckpointError, find_checkpoint, list_checkpoints, step_folder
from gpt_core.checkpoint.log import append_log
from gpt_core.checkpoint.training_state import prune, save_checkpoint
from gpt_core.distributed import Distributed
from gpt_core.monitor import Sinks
from gpt_core.training.config import CheckpointConfig
from gpt_core.training.sharded_optimizer import steps_between_updates
from gpt_core.training.state import Hook, TrainState


class Save(Hook):
    """Writes `checkpoints/step_*` of `run_dir` and keeps the links `latest` and `best` and `checkpoint_log.yaml`.

    A save that fails in the middle of a run (a full disk) is reported and training goes on, since the next one may
    succeed; one that fails at the end raises `CheckpointError`. `description` goes into every meta.json. Where the
    optimizer keeps gradients from step to step, only steps after which it has none are saved, and the last one.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        run_dir: Path,
        sinks: Sinks,
        distributed: Distributed,
        description: Mapping[str, Any],
    ):
        self.config, self.run_dir, self.sinks, self.distributed = config, run_dir, sinks, distributed
        self.description = description
        self._best = float("inf")
        self._saved_step = -1
        self._next_save = time.monotonic() + 3600 * max(config.checkpoint_after, config.checkpoint_every_hr)

    def on_start(self, state: TrainState) -> None:
        self._whole_updates = steps_between_updates(state.optimizer)
        if self.config.save_every % self._whole_updates:
            raise ValueError(
                f"checkpoint.save_every is {self.config.save_every}, but the optimizer keeps gradients for every "
                f"{self._whole_updates}. step, which no checkpoint holds: use a multiple of {self._whole_updates}"
            )
        self._best = float("inf") if state.best_val_loss is None else state.best_val_loss
        self._saved_step = state.step if state.step else -1  # a resumed run has this step on disk

    def on_step(self, state: TrainState) -> None:
        if state.step % self._whole_updates:
            return
        if self._improved(state):
            self._save(state, best=True)
        elif self._due(state):
            self._save(state, best=False)

    def on_end(self, state: TrainState) -> None:
        if self._saved_step != state.step or self._improved(state):
            self._save(state, best=self._improved(state), final=True)
        elif state.step:
            self._keep_books(state)  # a kill right after the last save may have left them undone

    def _improved(self, state: TrainState) -> bool:
        """Whether the state, as it is now, was evaluated and beats the best one on disk."""
        if not self.config.checkpoint_keep_best or not state.step or state.val_step != state.step:
            return False
        return state.val_loss is not None and state.val_loss < self._best

    def _due(self, state: TrainState) -> bool:
        by_step = bool(self.config.save_every) and state.step % self.config.save_every == 0
        if not self.config.checkpoint_every_hr:
            return by_step
        late, *_ = self.distributed.sum([self.distributed.is_main and time.monotonic() >= self._next_save])
        return by_step or bool(late)  # rank 0's clock decides for all

    def _save(self, state: TrainState, *, best: bool, final: bool = False) -> None:
        meta = {**self.description, **state.meta()}
        try:
            folder = save_checkpoint(
                self.run_dir,
                state.step,
                model=state.model,
                optimizer=state.optimizer,
                data=state.data,
                meta=meta,
                distributed=self.distributed,
                best=best,
            )
        except CheckpointError as error:
            if final:
                raise
            self.sinks.warning(f"{error}. Training goes on")
            return
        self._saved_step = state.step
        self._next_save = time.monotonic() + 3600 * self.config.checkpoint_every_hr
        if best and state.val_loss is not None:
            self._best = state.val_loss
        self._keep_books(state)
        shown = str(folder.relative_to(self.run_dir))
        self.sinks.event("checkpoint", {"step": state.step, "path": shown, "val_loss": meta["val_loss"], "best": best})

    def _keep_books(self, state: TrainState) -> None:
        """Log the latest checkpoint, if it is of this step, and delete the ones that are too old."""
        if not self.distributed.is_main or not list_checkpoints(self.run_dir):
            return
        folder = find_checkpoint(self.run_dir)
        try:
            if folder == step_folder(self.run_dir, state.step):
                entry = {"step": state.step, "val_loss": state.meta()["val_loss"], "tokens": state.tokens}
                append_log(self.run_dir, folder, entry)
            prune(self.run_dir, self.config.keep_last)
        except OSError as error:  # the checkpoint is whole and linked
            self.sinks.warning(f"{folder} is saved, but the log of checkpoints is not up to date: {error}")
