"""Published ways to calculate beside the executor: what each reaches on two cores, and what it costs.

    uv run benchmarks/bench_dag_methods.py                              # 12 CPU minutes
    uv run benchmarks/bench_dag_methods.py --unit-steps 200 --steps 50  # to look

(a) Units: NALU, NAU and NMU learn y = x1 o x2 from x in [1, 2] and are tested on [2, 6] and on ±[1, 6]. A seed succeeds
    where the mean squared error there is below 1e-5 of the variance. Our executor is given the operation: it learns
    nothing, and stands there for what exactness means.
(b) Sequences: "expression =" in symbols, 1 to 3 operations, the same number of rows for all. Right is an answer with
    all of its digits, rounded to four decimals. xVal and FoNE have a token per number, the others one per character;
    Abacus writes lowest digits first.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from _bench import finish, table
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from gpt_core.models import GPTConfig
from gpt_dag import answer_loss, expressions, gpt_dag
from gpt_dag.baselines import NALU, NAU, NMU, AbacusGPT, FoNE, NumberRows, XVal
from gpt_dag.decimal_text import decimal_text
from gpt_dag.evaluation.intervals import Rate
from gpt_dag.executor import execute
from gpt_dag.losses import rows_right
from gpt_dag.plans import Plans
from gpt_dag.predictor import predictor, tag_loss
from gpt_dag.stream.answers import AnswerRows, with_targets
from gpt_dag.stream.bits import key_of
from gpt_dag.stream.law import Law
from gpt_dag.tokens import WordTokenizer
from gpt_data.loaders.base import to_batch
from gpt_optim import normuon

OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
}
UNITS = {"NALU": NALU, "NAU": NAU, "NMU": NMU}
SUCCESS = 1e-5
"""Of the variance of the answers."""
SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 64}
LAW = {"min_ops": 1, "max_ops": 3, "max_digits": 1, "max_decimals": 1, "styles": ("symbols",), "p_percent": 0.0}
TRAINED, LONGER = range(1, 4), range(4, 6)
CONTEXT, BATCH, DECIMALS = 96, 64, 4
WORDS = WordTokenizer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit-steps", type=int, default=5000)
    parser.add_argument("--unit-seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000, help="of each sequence model; a step is 64 rows")
    parser.add_argument("--rows", type=int, default=200, help="test rows per number of operations")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(1)

    start = time.process_time()
    units = unit_table(options.unit_steps, options.unit_seeds)
    print(table(["unit", *(f"{o} on {where}" for o in OPERATORS for where in ("[2, 6]", "±[1, 6]"))], units))
    print(f"seeds of {options.unit_seeds} that succeed; {time.process_time() - start:.0f} CPU s\n", flush=True)

    rows, figures = [], {}
    for name in options.methods:
        torch.manual_seed(0)
        method = METHODS[name]()
        start = time.process_time()
        for step in range(options.steps):
            ids, plans = draw(key_of(1, step), "train", LAW)
            method.learn(ids, plans, step / options.steps)
        seconds = time.process_time() - start
        rates = {ops: score(method, ops, options.rows) for ops in (*TRAINED, *LONGER)}
        both = [Rate(sum(rates[o].hits for o in group), options.rows * len(group)) for group in (TRAINED, LONGER)]
        rows.append([name, method.parameters, f"{seconds:.0f}", *map(str, both), *(str(rates[o]) for o in TRAINED)])
        figures[name.lower().replace(" ", "_").replace("+", "").replace(",", "")] = both[0].value
        print(
            json.dumps(dict(zip(("method", "parameters", "CPU s", "1-3", "4-5"), rows[-1][:5], strict=True))),
            flush=True,
        )
    print(table(["method", "parameters", "CPU s", "1-3 operations", "4-5", "1", "2", "3"], rows))
    finish(**{f"exact_1_3_{name}": value for name, value in figures.items()})


# --- (a) units


def unit_table(steps: int, seeds: int) -> list[list[str]]:
    rows = []
    for name, kind in UNITS.items():
        cells = [name]
        for operator in OPERATORS.values():
            errors = train_units(kind, operator, steps, seeds)
            cells += [f"{int((error < SUCCESS).sum())}/{seeds}" for error in errors]
        rows.append(cells)
    exact = ["executor (given the operation)"]
    for operator, function in enumerate(OPERATORS.values()):
        for low, signed in ((2.0, False), (1.0, True)):
            x = operands(1, low, 6.0, signed)[0].double()
            ids = torch.full((len(x), 1), operator)
            zero = torch.zeros_like(ids)
            found = execute(x.sign(), x.abs().log(), ids, zero, zero + 1).value[:, -1]
            wanted = function(x[:, 0], x[:, 1])
            error = ((found - wanted) ** 2).mean() / wanted.var()
            exact.append(f"error {float(error):.0e}")
    return [*rows, exact]


def operands(seeds: int, low: float, high: float, signed: bool = False, count: int = 2000) -> Tensor:
    """(S, B, 2)"""
    x = low + (high - low) * torch.rand(seeds, count, 2)
    return x * (1 - 2 * torch.randint(2, x.shape)) if signed else x


def train_units(
    kind: type[nn.Module], operator: Callable[[Tensor, Tensor], Tensor], steps: int, seeds: int
) -> list[Tensor]:
    """Relative errors (S,) on [2, 6] and on ±[1, 6]; all seeds at once."""
    torch.manual_seed(0)
    units: list[Any] = [kind(2, 1) for _ in range(seeds)]
    parameters, _ = stack_module_state(units)
    trained = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    optimizer = torch.optim.Adam(trained.values(), lr=5e-3)
    run = torch.vmap(lambda weights, x: functional_call(units[0], weights, (x,)))
    penalty = torch.vmap(
        lambda weights: functional_call(Regularization(units[0]), {f"unit.{n}": w for n, w in weights.items()}, ())
    )
    for step in range(steps):
        x = operands(seeds, 1.0, 2.0, count=128)
        error = ((run(trained, x)[..., 0] - operator(x[..., 0], x[..., 1])) ** 2).mean(-1)
        strength = 0.1 * min(1.0, max(0.0, (step - steps / 4) / (steps / 4)))  # the papers': off at first, then rising
        (error + strength * penalty(trained)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    errors = []
    for low, signed in ((2.0, False), (1.0, True)):
        x = operands(seeds, low, 6.0, signed)
        wanted = operator(x[..., 0], x[..., 1])
        with torch.no_grad():
            found = run(trained, x)[..., 0]
        errors.append(((found - wanted) ** 2).mean(-1) / wanted.var(-1))
    return errors


class Regularization(nn.Module):
    """A unit's regularizer as something to call."""

    def __init__(self, unit: Any):
        super().__init__()
        self.unit = unit

    def forward(self) -> Tensor:
        return self.unit.regularization()


# --- (b) sequences


def draw(key: int, split: str, law: dict[str, Any], rows: int = BATCH) -> tuple[Any, Plans]:
    """Rows of "expression = answer" as ids, and their plans."""
    return AnswerRows(Law(**law), DECIMALS, CONTEXT).draw(rows, key, split)


def score(method: Any, ops: int, rows: int) -> Rate:
    ids, plans = draw(77, "test", LAW | {"min_ops": ops, "max_ops": ops}, rows)
    with torch.no_grad():
        return Rate(method.right(ids, plans), rows)


class Method(ABC):
    """A model, how it learns from a batch, and how many answers of a batch it gets right."""

    def __init__(self, model: nn.Module, learning_rate: float = 3e-3):
        self.model, self.rate = model, learning_rate
        trained = [p for p in model.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in model.parameters())
        self.optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def learn(self, ids: Any, plans: Plans, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(progress * 50 + 0.02, 0.5 + 0.5 * math.cos(math.pi * progress))
        self.loss(ids, plans).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @abstractmethod
    def loss(self, ids: Any, plans: Plans) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def right(self, ids: Any, plans: Plans) -> int:
        """How many rows are answered exactly."""


class Characters(Method):
    """Says the answer token by token."""

    def batch(self, ids: Any) -> Any:
        return to_batch(with_targets(ids, "answer"))

    def loss(self, ids: Any, plans: Plans) -> Tensor:
        batch, loss = self.batch(ids), answer_loss()
        return loss(self.model.train()(batch.inputs), batch.targets).objective / loss.count(batch.targets)

    def right(self, ids: Any, plans: Plans) -> int:
        batch = self.batch(ids)
        return int(rows_right(self.model.eval()(batch.inputs), batch.targets)[0].sum())


class Reversed(Characters):
    """The same with the lowest digit of every number first."""

    def batch(self, ids: Any) -> Any:
        turned = [turn(row) for row in ids.tolist()]
        return to_batch(with_targets(torch.tensor(turned).numpy(), "answer"))


class Numbers(Method):
    """Says the answer as one number."""

    def rows(self, plans: Plans) -> tuple[NumberRows, list[Fraction]]:
        values = [value for value in plans.fractions() if value is not None]
        return NumberRows.of([str(e) for e in plans.expressions()]), values

    def loss(self, ids: Any, plans: Plans) -> Tensor:
        return self.model.loss(*self.rows(plans))

    def right(self, ids: Any, plans: Plans) -> int:
        rows, values = self.rows(plans)
        found = self.model.answers(rows, DECIMALS)
        pairs = zip(found, values, strict=True)
        return sum(decimal_text(a, DECIMALS) == decimal_text(b, DECIMALS) for a, b in pairs)


def turn(row: list[int]) -> list[int]:
    """Numbers in digits back to front, signs stay where they are."""
    turned, number = [], []
    inside = {*WORDS.encode("0123456789"), WORDS.encode("1.5")[1]}
    for token in [*row, WORDS.pad_id]:
        if token in inside:
            number.insert(0, token)
        else:
            turned += [*number, token]
            number = []
    return turned[:-1]


def with_reader() -> Characters:
    """A GPT with a DAG, and the training of its predictor first: its cost is printed beside."""
    start = time.process_time()
    kwargs = {"vocab_size": WORDS.vocab_size, "mixer": "conv", "n_layer": 4, "n_embd": 64, "window": 2}
    kwargs |= {name: LAW[name] for name in ("max_digits", "max_decimals")}  # what a place means depends on them
    model, loss = predictor(**kwargs), tag_loss()
    data = expressions(CONTEXT, BATCH, seed=0, prefetch=0, **LAW).train
    optimizer = normuon(model, learning_rate=0.02, adamw_learning_rate=5e-3)
    for step in range(300):
        for group in optimizer.param_groups:
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * (0.5 + 0.5 * math.cos(math.pi * step / 300))
        batch = next(data)
        (loss(model(batch.inputs), batch.targets).objective / loss.count(batch.targets)).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"the predictor of the DAG took {time.process_time() - start:.0f} CPU s more", flush=True)
    gpt = gpt_dag(WORDS.vocab_size, CONTEXT, preset="hybrid", plan_source="predictor", predictor_kwargs=kwargs, **SHAPE)
    gpt.dag.source.predictor.load_state_dict(model.state_dict())
    return Characters(gpt)


METHODS: dict[str, Callable[[], Method]] = {
    "plain GPT": lambda: Characters(gpt_dag(WORDS.vocab_size, CONTEXT, 0, preset="hybrid", **SHAPE)),
    "Abacus": lambda: Reversed(
        AbacusGPT(GPTConfig.from_preset("hybrid", vocab_size=WORDS.vocab_size, context_length=CONTEXT, **SHAPE))
    ),
    "xVal": lambda: Numbers(XVal(CONTEXT, scale=2.0, **SHAPE)),
    "FoNE": lambda: Numbers(FoNE(CONTEXT, digits=6, decimals=DECIMALS, **SHAPE)),
    "GPT + DAG": with_reader,
}

if __name__ == "__main__":
    main()
