"""Record a few steps with torch.profiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from gpt_core.monitor import Sinks
from gpt_core.training.state import Hook, TrainState

WARMUP_STEPS = 10


class Profile(Hook):
    """Writes `report/profile.json` (open it in Perfetto or chrome://tracing) for `steps` steps after a warm-up."""

    def __init__(self, steps: int, run_dir: Path, sinks: Sinks):
        self.path, self.sinks = run_dir / "report" / "profile.json", sinks
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=WARMUP_STEPS, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
        )
        self._steps_left = WARMUP_STEPS + 1 + steps

    def on_start(self, state: TrainState) -> None:
        self._profiler.start()

    def on_step(self, state: TrainState) -> None:
        if self._steps_left:
            self._profiler.step()
            self._steps_left -= 1
            if not self._steps_left:
                self._profiler.stop()

    def on_end(self, state: TrainState) -> None:
        if self._steps_left:  # the run was shorter than the recording
            self._profiler.stop()

    def _write(self, profiler: profile) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.path))
        self.sinks.artifact(self.path, "profile")
