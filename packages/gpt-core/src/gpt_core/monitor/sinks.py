"""Where the numbers of a run go: the protocol of a sink, and the fan-out that the training loop talks to.

Metrics are a flat mapping of name to number; `None` means "not known" (MFU on unknown hardware). Names are
`group/name`: `train/loss`, `val/loss`, `memory/rss_gb`, `grad/global_norm`, `stability/loss_variance`.

Events carry everything that is not a number per step. Kinds the sinks of this package understand:

| kind         | data                                                                              |
|--------------|-----------------------------------------------------------------------------------|
| `start`      | `StartupInfo.record()`: configuration, parameters, hardware (no step)              |
| `eval`       | step and what was measured, for people; the numbers go through `log` as well      |
| `checkpoint` | step, path, val_loss                                                              |
| `sample`     | step, text                                                                        |
| `info`, `warning`, `error` | message                                                             |

Other kinds are recorded as they are.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Number = float | int | None
Status = Literal["completed", "interrupted", "failed"]


class Sink(Protocol):
    """One destination of metrics. A sink with `optional = True` may fail without ending the run."""

    optional: bool

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        """Numbers of one step."""

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something that happened; see the table above."""

    def summary(self, data: Mapping[str, Any]) -> None:
        """Final figures of the run."""

    def artifact(self, path: str | Path, name: str) -> None:
        """A file that belongs to the run (a plot, a sample)."""

    def close(self, status: Status, error: str | None = None) -> None:
        """The run is over. Called once; nothing follows."""


class BaseSink:
    """A sink that ignores everything: inherit and override what the destination can show."""

    optional = False

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        pass

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        pass

    def summary(self, data: Mapping[str, Any]) -> None:
        pass

    def artifact(self, path: str | Path, name: str) -> None:
        pass

    def close(self, status: Status, error: str | None = None) -> None:
        pass


class Sinks(BaseSink):
    """Fans out to several sinks.

    An optional sink (W&B, TensorBoard) that raises is reported once as a `warning` event to the others and
    dropped: a tracker's network trouble must neither end a run nor pass unnoticed. A required sink (the files
    of the run folder) that raises ends the run, because its record would have a hole.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks: list[Sink] = list(sinks)
        self._closed = False

    def __iter__(self):
        return iter(self._sinks)

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        self._each("log", lambda sink: sink.log(step, metrics))

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        self._each("event", lambda sink: sink.event(kind, data))

    def summary(self, data: Mapping[str, Any]) -> None:
        self._each("summary", lambda sink: sink.summary(data))

    def artifact(self, path: str | Path, name: str) -> None:
        self._each("artifact", lambda sink: sink.artifact(path, name))

    def info(self, message: str) -> None:
        self.event("info", {"message": message})

    def warning(self, message: str) -> None:
        self.event("warning", {"message": message})

    def close(self, status: Status, error: str | None = None) -> None:
        """Close every sink even if one fails, then raise the first failure of a required one. Idempotent."""
        if self._closed:
            return
        self._closed = True
        failure: Exception | None = None
        # Optional sinks first, so that the others can still record that one of them failed.
        for sink in sorted(self._sinks, key=lambda sink: not sink.optional):
            try:
                sink.close(status, error)
            except Exception as exc:
                if sink.optional:
                    self._drop(sink, "close", exc)
                elif failure is None:
                    failure = exc
        if failure is not None:
            raise failure

    def _each(self, action: str, call: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                call(sink)
            except Exception as exc:
                if not sink.optional:
                    raise
                self._drop(sink, action, exc)

    def _drop(self, sink: Sink, action: str, exc: Exception) -> None:
        self._sinks.remove(sink)
        name = type(sink).__name__
        self.warning(f"{name} failed in {action}() and is off from here on: {type(exc).__name__}: {exc}")


def flatten(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`flatten("grad", {"a": 1, "layers": {"h.0": 2}})` -> `{"grad/a": 1, "grad/layers/h.0": 2}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(f"{group}/{name}", value))
        else:
            flat[f"{group}/{name}"] = value
    return flat
