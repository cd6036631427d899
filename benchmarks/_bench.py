"""What the benchmarks share: run sides in turn, measure CPU time, print a table and a line of JSON."""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def alternate(sides: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each side, `repeats` of them: every round runs each side once, so drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-warmup, repeats):
        for name, run in sides.items():
            start = time.process_time()
            run()
            if round_ >= 0:
                seconds[name].append(time.process_time() - start)
    return seconds


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns; floats get four significant digits."""
    cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def finish(**figures: Any) -> None:
    """The last line of a benchmark: its figures as one JSON object."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}))


def load_peer(path: Path, name: str) -> ModuleType:
    """Import one file of a peer's checkout under another name. SystemExit that says what to give if it is not there."""
    if not path.is_file():
        raise SystemExit(f"{path} is not there; give the folder of a checkout that holds {path.name}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
