"""The terminal: one progress line on a tty, plain lines elsewhere, or the seed's iteration block.

Only rank 0 speaks; other ranks print warnings and errors. Text that the terminal cannot encode is escaped.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from .sinks import BaseSink, Number, Status
from .summary import summary_rows, summary_table
from .text import count, duration, is_utf8, number, pairs, percent, printable, scalar

ConsoleStyle = Literal["compact", "blocks", "quiet", "speedrun", "steps"]
_WIDTH = 80
_REDRAW_S = 0.1  # a faster progress line only costs time


class ConsoleSink(BaseSink):
    """Shows a run on `stream`.

    - compact: step, loss, tokens/s, MFU or n/a, time left. One live line on a tty, else one line per `log`.
    - blocks: the iteration block with memory and gradients, one per `log`.
    - quiet: evaluations, checkpoints, samples and messages only.
    - speedrun: the lines of modded-nanogpt's logs, of evaluations and steps; train_time is the clock of the record.
    - steps: `step_line` and `validation_line`, which are read from a log by apps/scaling and will not change.
    """

    def __init__(
        self,
        max_steps: int,
        *,
        start_step: int = 0,
        style: ConsoleStyle = "compact",
        rank: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if style not in get_args(ConsoleStyle):
            raise ValueError(f"console style: got {style!r}, expected one of {', '.join(get_args(ConsoleStyle))}")
        self.max_steps = max_steps
        self._start_step = start_step
        self._style = style
        self._rank = rank
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._started: float | None = None
        self._drawn = float("-inf")
        self._static: dict[str, Any] = {}
        self._best_val: float | None = None
        self._live: Any = None  # rich.live.Live, started at the first line on a tty
        self._tty = bool(getattr(self._stream, "isatty", lambda: False)())

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        if self._rank != 0 or scalar(metrics, "train/loss") is None:
            return
        now = self._clock()
        if self._started is None:
            # The first steps have already run; their mean time is the best start that can be reconstructed.
            each = (scalar(metrics, "train/step_time_ms") or 0.0) / 1e3
            self._started = now - each * max(1, step - self._start_step)
        if self._style == "compact" and self._tty:
            self._draw(step, metrics, now)
        elif self._style == "compact":
            self._print(self._line(step, metrics, now))
        elif self._style == "blocks":
            self._print(iteration_block(step, {**self._static, **metrics}, self._time_left(step, now)))
        elif self._style == "speedrun":
            self._print(self._record_line(step, (scalar(metrics, "train/train_time_hr") or 0.0) * 3600))
        elif self._style == "steps":
            self._print(step_line(step, self.max_steps, metrics))

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind in ("warning", "error"):
            where = f"rank {self._rank}: " if self._rank else ""
            self._print(f"{kind.upper()}: {where}{data.get('message', '')}", style="bold red")
        elif self._rank == 0:
            self._event(kind, data)

    def _event(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "start":
            self._static = {f"mfu/{key}": value for key, value in (data.get("mfu") or {}).items()}
        elif kind == "info":
            self._print(str(data.get("message", "")))
        elif kind == "eval" and self._style == "speedrun" and "val/train_time_s" in data:
            losses = f" val_loss:{data['val/loss']:.4f}"
            self._print(self._record_line(int(data["step"]), data["val/train_time_s"], losses))
        elif kind == "eval" and self._style == "steps" and scalar(data, "val/loss") is not None:
            self._print(validation_line(data))
        elif kind == "eval":
            self._print(self._eval_line(data), style="bold green" if self._is_best(data) else "green")
        elif kind == "checkpoint":
            self._print(f"saved {data.get('path', '')} (step {data.get('step', '?')})", style="dim")
        elif kind == "sample":
            rule = "─" * _WIDTH
            self._print(f"{rule}\nsample at step {data.get('step', '?')}\n{data.get('text', '')}\n{rule}")

    def summary(self, data: Mapping[str, Any]) -> None:
        if self._rank != 0 or "run_name" not in data:
            return
        self._stop_live()
        if self._tty and is_utf8(self._stream):
            self._rich().print(summary_table(data))
        else:
            self._print("\n".join(f"{label + ':':<20}{value:>24}" for label, value in summary_rows(data)))

    def artifact(self, path: str | Path, name: str) -> None:
        if self._rank == 0:
            self._print(f"wrote {path}", style="dim")

    def close(self, status: Status, error: str | None = None) -> None:
        self._stop_live()
        if status == "failed" and (self._rank == 0 or error):
            last = error.strip().splitlines()[-1] if error and error.strip() else "no reason given"
            self._print(f"run failed: {last}", style="bold red")
        elif status == "interrupted" and self._rank == 0:
            self._print("run interrupted; --init_from=resume goes on with the newest run")

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _is_best(self, data: Mapping[str, Any]) -> bool:
        loss = scalar(data, "val/loss", "val_loss")
        if loss is None or (self._best_val is not None and not loss < self._best_val):
            return False
        self._best_val = loss
        return True

    def _eval_line(self, data: Mapping[str, Any]) -> str:
        shown = {k: v for k, v in data.items() if k != "step" and isinstance(v, int | float)}
        return f"eval at step {data.get('step', '?')}: {pairs(shown)}"

    def _record_line(self, step: int, seconds: float, losses: str = "") -> str:
        """As in the logs of records; the time of steps alone, without validation and compilation."""
        milliseconds = 1e3 * seconds
        times = f"train_time:{milliseconds:.0f}ms step_avg:{milliseconds / max(step, 1):.2f}ms"
        return f"step:{step}/{self.max_steps}{losses} {times}"

    def _time_left(self, step: int, now: float) -> float | None:
        done = step - self._start_step
        if self._started is None or done <= 0 or now <= self._started:
            return None
        return (now - self._started) / done * max(0, self.max_steps - step)

    def _line(self, step: int, metrics: Mapping[str, Number], now: float) -> str:
        width = len(str(self.max_steps))
        rate = scalar(metrics, "train/tokens_per_sec")
        parts = [
            f"step {step:>{width}}/{self.max_steps}",
            f"loss {_loss(metrics)}",
            f"{count(rate)} tok/s" if rate is not None else "",
            f"MFU {percent(scalar(metrics, 'train/mfu'))}",
            f"left {duration(self._time_left(step, now))}",
        ]
        return " │ ".join(part for part in parts if part)

    def _draw(self, step: int, metrics: Mapping[str, Number], now: float) -> None:
        last = step >= self.max_steps
        if now - self._drawn < _REDRAW_S and not last:
            return
        self._drawn = now
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._rich(), auto_refresh=False)
            self._live.start()
        from rich.text import Text

        line = self._line(step, metrics, now)
        # The bar takes what the numbers leave of the line, and nothing in a narrow terminal.
        room = min(20, self._live.console.width - len(line) - 1)
        filled = round(room * min(1.0, step / max(1, self.max_steps)))
        bar = "█" * filled + "·" * (room - filled) + " " if room >= 5 else ""
        self._live.update(Text(printable(bar + line, self._stream), no_wrap=True, overflow="crop"), refresh=True)

    def _rich(self) -> Any:
        from rich.console import Console

        return Console(file=self._stream, highlight=False, soft_wrap=True)

    def _print(self, text: str, style: str | None = None) -> None:
        text = printable(text, self._stream)
        if not self._tty:
            self._stream.write(text + "\n")
            self._stream.flush()
            return
        from rich.text import Text

        console = self._live.console if self._live is not None else self._rich()
        console.print(Text(text, style=style or ""))


def _loss(metrics: Mapping[str, Number]) -> str:
    loss = scalar(metrics, "train/loss")
    return "n/a" if loss is None else f"{loss:.4f}"


def step_line(step: int, max_steps: int, metrics: Mapping[str, Any]) -> str:
    """A step as in VibeNanoChat's logs. Time: seconds, the mean of the steps since the last line; LR: that of the first
    group. Epoch is 1/1 always: a run goes once over its steps, however often these go over the data."""
    seconds, rate, mfu = (scalar(metrics, f"train/{name}") for name in ("step_time_ms", "tokens_per_sec", "mfu"))
    parts = (
        f"[Epoch 1/1] [Step {step:5d}/{max_steps}] ({100 * step / max(1, max_steps):5.1f}%)",
        f"Loss: {_loss(metrics)}",
        f"LR: {_or_unknown(scalar(metrics, 'train/lr'), '{:.2e}')}",
        f"Grad: {_or_unknown(scalar(metrics, 'train/grad_norm'), '{:.4f}')}",
        f"Speed: {_or_unknown(rate and rate / 1000, '{:.1f}K tok/s')}",
        f"MFU: {_or_unknown(mfu and 100 * mfu, '{:.2f}%')}",
        f"Time: {_or_unknown(seconds and seconds / 1000, '{:.4g}s')}",
    )
    return " | ".join(parts)


def validation_line(data: Mapping[str, Any]) -> str:
    """An evaluation as in VibeNanoChat's logs: the loss in nats per token, bits per byte, and what it took."""
    return (
        f"VALIDATION | Step {int(data['step']):5d} | Val Loss: {data['val/loss']:.6f}"
        f" | BPB: {_or_unknown(scalar(data, 'val/bits_per_byte'), '{:.6f}')}"
        f" | Time: {_or_unknown(scalar(data, 'val/time_s'), '{:.2f}s')}"
    )


def _or_unknown(value: float | None, shown: str) -> str:
    return "n/a" if value is None else shown.format(value)


def iteration_block(step: int, metrics: Mapping[str, Any], time_left: float | None = None) -> str:
    """The multi-line block of one iteration. Lines whose numbers were not measured are left out."""
    rule = "─" * _WIDTH
    milliseconds = scalar(metrics, "train/step_time_ms")
    rate = scalar(metrics, "train/lr")
    lines = [
        rule,
        f"Iter {step:6d} │ Loss {_loss(metrics)} │ Time {_fixed(milliseconds, 1)} ms"
        f" │ LR {'n/a' if rate is None else f'{rate:.2e}'} │ Left {duration(time_left)}",
        rule,
        f"MFU {percent(scalar(metrics, 'train/mfu'))}"
        f" │ Achieved {number(scalar(metrics, 'train/achieved_tflops'))} TF"
        f" │ Peak {_fixed(scalar(metrics, 'mfu/hardware_peak_tflops'), 1)} TF",
        f"Tokens/s {_fixed(scalar(metrics, 'train/tokens_per_sec'), 0)}"
        f" │ FLOPs/token {_giga(scalar(metrics, 'mfu/flops_per_token'))} GF",
    ]
    memory = {k.removeprefix("memory/"): v for k, v in metrics.items() if k.startswith("memory/")}
    if memory:
        lines.append("Memory " + " │ ".join(f"{k.removesuffix('_gb')} {_fixed(v, 2)} GB" for k, v in memory.items()))
    norm = scalar(metrics, "grad/global_norm", "train/grad_norm")
    if norm is not None:
        mean, std = scalar(metrics, "grad/value_mean"), scalar(metrics, "grad/value_std")
        detail = "" if mean is None else f" │ mean {number(mean)} │ std {number(std)}"
        lines.append(f"Gradients norm {norm:.4f}{detail}")
    return "\n".join(lines)


def _fixed(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}"


def _giga(value: float | None) -> str:
    return "n/a" if value is None else f"{value / 1e9:.3g}"
