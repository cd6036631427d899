"""Early signs of divergence: loss variance and spikes over a sliding window, and a count of non-finite steps."""

import math
from collections import deque
from typing import Any


class StabilityMonitor:
    """Watches the loss of every step. Its state belongs in the checkpoint, so that counts survive a resume."""

    def __init__(self, window: int = 100):
        if window < 2:
            raise ValueError(f"stability window: got {window}, expected at least 2 steps")
        self._losses: deque[float] = deque(maxlen=window)
        self.nonfinite_losses = 0
        self.nonfinite_grads = 0
        self.best_loss: float | None = None
        self.best_loss_step: int | None = None

    def update(self, step: int, loss: float, grad_norm: float | None = None) -> dict[str, float | int | None]:
        """Account for one step. Non-finite values are counted and kept out of the window.

        loss_mean and loss_variance (unbiased) are over the window, this step included; loss_zscore is the distance of
        this loss from the window before it in standard deviations (a spike is > 5); None until they are defined.
        """
        zscore = None
        if math.isfinite(loss):
            zscore = self._zscore(loss)
            self._losses.append(loss)
            if self.best_loss is None or loss < self.best_loss:
                self.best_loss, self.best_loss_step = loss, step
        else:
            self.nonfinite_losses += 1
        if grad_norm is not None and not math.isfinite(grad_norm):
            self.nonfinite_grads += 1
        mean, variance = self._moments()
        return {
            "loss_mean": mean,
            "loss_variance": variance,
            "loss_zscore": zscore,
            "best_loss": self.best_loss,
            "best_loss_step": self.best_loss_step,
            "nonfinite_losses": self.nonfinite_losses,
            "nonfinite_grads": self.nonfinite_grads,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self._losses.maxlen,
            "losses": list(self._losses),
            "nonfinite_losses": self.nonfinite_losses,
            "nonfinite_grads": self.nonfinite_grads,
            "best_loss": self.best_loss,
            "best_loss_step": self.best_loss_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; a window of another length keeps the most recent losses that fit."""
        self._losses = deque(state["losses"], maxlen=self._losses.maxlen)
        self.nonfinite_losses = state["nonfinite_losses"]
        self.nonfinite_grads = state["nonfinite_grads"]
        self.best_loss = state["best_loss"]
        self.best_loss_step = state["best_loss_step"]

    def _moments(self) -> tuple[float | None, float | None]:
        if len(self._losses) < 2:
            return (self._losses[0] if self._losses else None), None
        mean = math.fsum(self._losses) / len(self._losses)
        return mean, math.fsum((loss - mean) ** 2 for loss in self._losses) / (len(self._losses) - 1)

    def _zscore(self, loss: float) -> float | None:
        mean, variance = self._moments()
        return (loss - mean) / math.sqrt(variance) if mean is not None and variance else None
