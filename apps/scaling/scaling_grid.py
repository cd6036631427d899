"""Which runs a scaling study needs: depths x compute budgets x seeds, each with its plan before anything is run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measurement import Measurement

from gpt_core import scaling
from gpt_core.config import Config, load_config
from gpt_core.monitor.strict_json import write_atomic
from gpt_core.monitor.text import count, duration
from gpt_core.scaling.resolve import STEPS
from gpt_core.training.recipe import SCHEMA

APPS = Path(__file__).resolve().parents[1]
CONFIGS = [APPS / "scaling" / "configs", APPS / "pretrain" / "configs"]
PRETRAIN = APPS / "pretrain"


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    budget: float
    """Training FLOPs."""
    depth: int
    seed: int

    @property
    def name(self) -> str:
        return f"c{self.budget:g}-d{self.depth}-s{self.seed}"

    @property
    def key(self) -> tuple[float, int, int]:
        return (self.budget, self.depth, self.seed)


@dataclass(frozen=True)
class Study:
    """A sweep as it was asked for. Equal configurations can go on with each other's runs."""

    config: str
    overrides: tuple[str, ...]
    budgets: tuple[float, ...]
    depths: tuple[int, ...]
    seeds: tuple[int, ...]

    def cells(self) -> list[Cell]:
        """The cheapest budget first: a part of the grid is whole budgets."""
        return [Cell(c, d, s) for c in sorted(self.budgets) for s in self.seeds for d in sorted(self.depths)]


def load(study: Study, cell: Cell | None = None) -> Config:
    """The configuration of the study, or of one of its runs."""
    own = [] if cell is None else [f"--scaling.depth={cell.depth}", f"--scaling.target_flops={cell.budget!r}"]
    return load_config([study.config, *study.overrides, *own], schema=SCHEMA, config_dirs=CONFIGS)


def plan_all(
    study: Study, processes: int, device_type: str, data: scaling.Data | None = None
) -> list[tuple[Cell, scaling.Plan]]:
    """Every run with its sizes, batch and steps; data None: the study's own is opened.

    ValueError for a configuration whose runs would not take their budgets.
    """
    data = data or scaling.look_at(load(study))
    planned = []
    for cell in study.cells():
        plan = scaling.resolve(load(study, cell), world_size=processes, device_type=device_type, data=data)
        assert plan is not None
        if plan.steps_by != "target_flops":
            raise ValueError(
                f"{STEPS} {plan.kept[STEPS]}: the runs of a sweep end when their FLOPs are spent; leave it out"
            )
        planned.append((cell, plan))
    return planned


def arguments(study: Study, cell: Cell, runs: Path) -> list[str]:
    """Command line of apps/pretrain for one run."""
    shipped = next((path for folder in CONFIGS[:1] if (path := folder / f"{study.config}.yaml").is_file()), None)
    keys = {
        "scaling.depth": cell.depth,
        "scaling.target_flops": repr(cell.budget),
        "general.seed": cell.seed,
        "general.out_dir": str(runs),
        "general.run_name": cell.name,
        "eval.eval_every": 0,
        "eval.at_start": "false",
        "checkpoint.checkpoint_keep_best": "false",
        "generate.max_new_tokens": 0,
    }
    return [str(shipped or study.config), *study.overrides, *(f"--{key}={value}" for key, value in keys.items())]


OWN = {"depth": "--depths", "target_flops": "--budgets", "seed": "--seeds", "out_dir": "--out", "run_name": "--out"}
"""Keys that a sweep sets itself, and the option that says them."""


def check_overrides(overrides: Sequence[str]) -> None:
    """ValueError for a key that the sweep would override."""
    for given in overrides:
        key = given.partition("=")[0].lstrip("-").replace("-", "_").rpartition(".")[2]
        if given.startswith("--") and key in OWN:
            raise ValueError(f"{given}: a sweep sets it for every run; use {OWN[key]}")


def check_rows(planned: Sequence[tuple[Cell, scaling.Plan]], rows: Iterable[Measurement], folder: Path) -> None:
    """ValueError where a run that is done is not the one that is planned."""
    done = {row.key: row for row in rows}
    for cell, plan in planned:
        row = done.get(cell.key)
        if row is None:
            continue
        if row.num_iterations != plan.steps or row.batch not in (None, plan.step.tokens):
            raise ValueError(
                f"{folder}/results.csv: {cell.name} took {row.num_iterations:,} steps of {row.batch or 0:,} tokens, "
                f"the plan is {plan.steps:,} of {plan.step.tokens:,}: another configuration, or number of processes. "
                "Go on as before, or give --out another folder"
            )


def keep(study: Study, folder: Path) -> None:
    """Write the study into its folder. ValueError where the folder is another one's (a larger grid is the same)."""
    file = folder / "study.json"
    mine = {key: value for key, value in asdict(study).items() if key in ("config", "overrides")}
    mine["overrides"] = list(study.overrides)
    if file.exists():
        old = json.loads(file.read_text(encoding="utf-8"))
        for key, value in mine.items():
            if old.get(key) != value:
                raise ValueError(
                    f"{folder} holds another sweep ({key} was {old.get(key)!r}, is {value!r}): repeat its command to "
                    "go on with it, or give --out another folder"
                )
    write_atomic(file, json.dumps(mine, indent=1) + "\n")


def describe(
    planned: Sequence[tuple[Cell, scaling.Plan]], rows: Iterable[Measurement], rate: float | None, folder: Path
) -> str:
    """The plan as a table, with what it costs at `rate` FLOP/s (None: as fast as the runs that are done)."""
    done = {row.key: row for row in rows}
    source = "declared"
    if rate is None:
        timed = [(plan.flops, done[cell.key].train_time_sec) for cell, plan in planned if cell.key in done]
        spent = sum(seconds for _, seconds in timed if seconds)
        rate = sum(flops for flops, seconds in timed if seconds) / spent if spent else None
        source = "measured on the runs that are done"
    lines = [
        f"{'run':<20}{'N_scaling':>13}{'batch':>10}{'steps':>9}{'tokens':>9}{'tok:N':>8}{'FLOPs':>11}{'epochs':>8}{'time':>11}"
    ]
    for cell, plan in planned:
        epochs = "?" if plan.epochs is None else f"{plan.epochs:.2f}"
        time = "done" if cell.key in done else duration(plan.flops / rate) if rate else "?"
        lines.append(
            f"{cell.name:<20}{plan.counts.scaling:>13,}{plan.step.tokens:>10,}{plan.steps:>9,}{count(plan.tokens):>9}"
            f"{plan.tokens / plan.counts.scaling:>8.1f}{plan.flops:>11.3g}{epochs:>8}{time:>11}"
        )
    left = sum(plan.flops for cell, plan in planned if cell.key not in done)
    cost = (
        f"{duration(left / rate)} at {rate:.3g} FLOP/s ({source})"
        if rate
        else "known after the first run, or with --flop-rate"
    )
    finished = sum(cell.key in done for cell, _ in planned)
    lines.append(f"{len(planned)} runs, {finished} done ({folder}); {left:.3g} FLOPs left: {cost}")
    lines += [f"warning: {cell.name}: {warning}" for cell, plan in planned for warning in plan.warnings]
    return "\n".join(lines)
