"""Phase 2: does a DAG help a GPT to answer? The same small GPT with and without one, on "expression = answer" rows.

    uv run benchmarks/bench_dag_gpt.py --plot docs/dag_gpt.png      # 25 CPU minutes
    uv run benchmarks/bench_dag_gpt.py --steps 60 --seeds 1         # to look

All are trained on 1 to 3 operations, the last two with one seed:
  plain               dag_depth=0
  predictor           reads the expression with a predictor that was trained before (phase 1), here as well
  plain, same time    for as many CPU seconds as "predictor" took, its predictor's training included
  controller          dag_depth=2, chooses operands and operations itself, from the loss of the answers alone
  plain, 4 x time     four times as long as "plain, same time"

An answer is right if the greedily generated text is: every digit, and its end. Test rows are from a split that no
training saw, 4 to 6 operations are more than any training saw. Intervals are Wilson's, over all seeds together.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from _bench import finish, table
from torch import nn

from gpt_core.checkpoint import save_model
from gpt_dag import answer_loss, answers, expressions, gpt_dag
from gpt_dag.evaluation.intervals import Rate
from gpt_dag.losses import rows_right
from gpt_dag.predictor import predictor, tag_loss
from gpt_dag.stream.answers import AnswerRows, with_targets
from gpt_dag.stream.law import Law
from gpt_dag.tokens import WordTokenizer
from gpt_data.loaders.base import to_batch
from gpt_optim import adamw, normuon

LAW = {"min_ops": 1, "max_ops": 3, "max_digits": 1, "max_decimals": 1}
"""Numbers from -9.9 to 9.9, in all styles; few enough digits for the plain GPT to learn something in minutes."""
CONTEXT, BATCH, DECIMALS = 128, 64, 4
MODEL = {"preset": "hybrid", "n_layer": 2, "n_head": 4, "n_embd": 64}
READER = {"mixer": "conv", "n_layer": 4, "n_embd": 64, "window": 2}
OPERATIONS = range(1, 7)
TRAINED, LONGER = range(1, 4), range(4, 7)
TEST_KEY = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of each GPT; a step is 64 rows")
    parser.add_argument("--reader-steps", type=int, default=500, help="of the predictor")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200, help="test rows per number of operations")
    parser.add_argument("--folder", type=Path, default=Path("out/bench-dag-gpt"), help="of the predictor and results")
    parser.add_argument("--plot", type=Path, help="where to draw the picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)

    test = {ops: test_rows(ops, options.rows) for ops in OPERATIONS}
    reader, reader_seconds, reader_exact = train_reader(options)
    ways: dict[str, dict[str, Any]] = {
        "plain": {"dag_depth": 0},
        "predictor": {"plan_source": "predictor", "predictor": str(reader)},
        "plain, same time": {"dag_depth": 0},
        "controller": {"dag_depth": 2},
        "plain, 4 x time": {"dag_depth": 0},
    }
    results: list[dict[str, Any]] = []

    def add(way: str, steps: int, seed: int) -> float:
        """Returns CPU seconds."""
        results.append(measure(way, ways[way], steps, seed, test))
        (options.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        return results[-1]["cpu_seconds"]

    longer = options.steps
    for seed in range(options.seeds):
        plain, own = add("plain", options.steps, seed), add("predictor", options.steps, seed)
        longer = round(options.steps * (own + reader_seconds) / plain)
        add("plain, same time", longer, seed)
    add("controller", options.steps, 0)
    add("plain, 4 x time", 4 * longer, 0)
    order = tuple(ways)
    report(order, results, options.rows)
    if options.plot:
        draw(order, results, options)
    finish(
        reader_cpu_seconds=reader_seconds,
        reader_exact=reader_exact,
        **{f"{way.replace(', ', '_').replace(' ', '_')}_1_3": rate(results, way, TRAINED).value for way in order},
        **{f"{way.replace(', ', '_').replace(' ', '_')}_4_6": rate(results, way, LONGER).value for way in order},
    )


def test_rows(ops: int, rows: int) -> Any:
    """A batch of rows of exactly so many operations, from the test split."""
    law = Law(**LAW | {"min_ops": ops, "max_ops": ops}, p_percent=0.0)
    ids, _ = AnswerRows(law, DECIMALS, CONTEXT).draw(rows, TEST_KEY, "test")
    return to_batch(with_targets(ids, "answer"))


def train_reader(options: argparse.Namespace) -> tuple[Path, float, float]:
    """Phase 1 on the same expressions: the predictor's checkpoint, what it cost, and its accuracy on new ones."""
    torch.manual_seed(0)
    kwargs = {"vocab_size": WordTokenizer.vocab_size, "max_digits": LAW["max_digits"], **READER}
    kwargs["max_decimals"] = LAW["max_decimals"]
    model, loss = predictor(**kwargs), tag_loss()
    splits = expressions(CONTEXT, BATCH, seed=0, **LAW, p_percent=0.0, prefetch=0)
    optimizer = normuon(model, learning_rate=0.02, adamw_learning_rate=5e-3)
    seconds = train(model, loss, splits.train, optimizer, options.reader_steps, "reader")
    batches = [next(splits.val) for _ in range(8)]
    with torch.no_grad():
        sums = [loss(model.eval()(batch.inputs), batch.targets, accuracy=True) for batch in batches]
    exact = float(sum(s.correct for s in sums) / sum(s.items for s in sums))
    folder = options.folder / "reader/checkpoints/step_000001"
    folder.mkdir(parents=True, exist_ok=True)
    description = {"module": "gpt_dag.predictor.predictor", "module_kwargs": kwargs}
    save_model(folder, model, {"step": 1, "model": description})
    print(f"predictor: {count(model):,} parameters, {seconds:.0f} CPU s, all tags of {exact:.1%} of expressions right")
    return options.folder / "reader", seconds, exact


def measure(way: str, kwargs: dict[str, Any], steps: int, seed: int, test: dict[int, Any]) -> dict[str, Any]:
    """Train one GPT and count its right answers by number of operations."""
    torch.manual_seed(seed)
    model, loss = gpt_dag(WordTokenizer.vocab_size, CONTEXT, **MODEL, **kwargs), answer_loss()
    splits = answers(CONTEXT, BATCH, seed=seed, **LAW, prefetch=0, answer_decimals=DECIMALS)
    optimizer = adamw(model, learning_rate=3e-3, weight_decay=0.01, beta2=0.98)
    seconds = train(model, loss, splits.train, optimizer, steps, f"{way}, seed {seed}")
    right = {ops: correct(model.eval(), batch) for ops, batch in test.items()}
    own = count(model, trained=True)
    result = {"way": way, "seed": seed, "steps": steps, "cpu_seconds": seconds, "parameters": own, "right": right}
    result["rows"] = {ops: len(batch.inputs) for ops, batch in test.items()}
    print(json.dumps(result), flush=True)
    return result


def train(model: nn.Module, loss: Any, data: Any, optimizer: Any, steps: int, name: str) -> float:
    """Cosine schedule with a short warm-up, clipped gradients. Returns CPU seconds, those of making data included."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    peaks = [group["lr"] for group in optimizer.param_groups]
    model.train()
    start = time.process_time()
    for step in range(steps):
        scale = min((step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * scale
        batch = next(data)
        sums = loss(model(batch.inputs), batch.targets)
        (sums.objective / loss.count(batch.targets)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps - 1:
            mean = float(sums.loss) / float(loss.count(batch.targets))
            print(
                f"  {name}: step {step}/{steps}, loss {mean:.3f}, {time.process_time() - start:.0f} CPU s", flush=True
            )
    return time.process_time() - start


@torch.no_grad()
def correct(model: nn.Module, batch: Any) -> int:
    return int(rows_right(model(batch.inputs), batch.targets)[0].sum())


def count(model: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def rate(results: list[dict[str, Any]], way: str, operations: range) -> Rate:
    """Over all seeds together."""
    chosen = [r for r in results if r["way"] == way]
    hits = sum(r["right"][ops] for r in chosen for ops in operations)
    return Rate(hits, sum(r["rows"][ops] for r in chosen for ops in operations))


def report(order: tuple[str, ...], results: list[dict[str, Any]], rows: int) -> None:
    groups = {"1-3": TRAINED, "4-6": LONGER}
    lines = []
    for way in order:
        chosen = [r for r in results if r["way"] == way]
        seconds = [r["cpu_seconds"] for r in chosen]
        each = [sum(r["right"][ops] for ops in TRAINED) / (len(TRAINED) * rows) for r in chosen]
        spread = f"{100 * min(each):.1f} to {100 * max(each):.1f} %"
        figures = [str(rate(results, way, group)) for group in groups.values()]
        cost = f"{sum(seconds) / len(seconds):.0f}"
        lines.append(
            [way, chosen[0]["parameters"], round(sum(r["steps"] for r in chosen) / len(chosen)), cost, *figures, spread]
        )
    seeds = ", ".join(f"{way}: {sum(r['way'] == way for r in results)}" for way in order)
    print(f"seeds: {seeds}")
    header = ["GPT", "trained parameters", "steps", "CPU s", *(f"{g} operations" for g in groups), "1-3, by seed"]
    print(table(header, lines))
    by_ops = [[way, *(str(rate(results, way, range(ops, ops + 1))) for ops in OPERATIONS)] for way in order]
    print(table(["GPT", *(f"{ops}" for ops in OPERATIONS)], by_ops))


def draw(order: tuple[str, ...], results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=100)
    for way in order:
        rates = [rate(results, way, range(ops, ops + 1)) for ops in OPERATIONS]
        middle = [100 * (r.value or 0) for r in rates]
        low, high = zip(*(r.interval for r in rates), strict=True)
        line = axes.plot(OPERATIONS, middle, marker="o", label=way)[0]
        axes.fill_between(
            OPERATIONS, [100 * x for x in low], [100 * x for x in high], alpha=0.2, color=line.get_color()
        )
    axes.axvline(3.5, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="operations (trained on 1 to 3)", ylabel="exact answers, %", ylim=(-2, 102))
    axes.set_title("Exact answers of a small GPT with and without a DAG, 95 % intervals", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(options.plot)


if __name__ == "__main__":
    main()
