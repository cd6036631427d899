"""Exact answers of the predictor after CPU minutes, and like for like against nanoGPT-DAG's own predictor.

    uv run benchmarks/bench_dag_accuracy.py                          both; about 6 CPU minutes on one thread
    uv run benchmarks/bench_dag_accuracy.py --exclude FILE.jsonl     expressions that are never trained on

1. apps/predictor's default configuration, trained as the app trains it (expressions of at most 4 operations), scored on
   expressions of the test split drawn with another seed: equal fractions, the network alone. CPU time is that of all
   threads, data generation and validation included.
2. The original's law (4 slots, nested to the right, identity padding): the same architecture, and the original's
   predictor and losses for as many CPU seconds on the same tokens, each with its own targets. The scores are the
   original's.
"""

import argparse
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch
from _bench import finish, table

from gpt_core.checkpoint import find_checkpoint, load_model
from gpt_core.config import load_config
from gpt_core.distributed import distributed
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run
from gpt_dag.evaluation import Rate, draw_items, score
from gpt_dag.predictor import PredictorOnlyModel, read
from gpt_dag.predictor.legacy import (
    LegacyPredictor,
    SlotScores,
    hard_values,
    legacy_loss,
    legacy_slots,
    majority,
    slot_scores,
)
from gpt_dag.stream import Law, Sample, sample
from gpt_dag.tokens import WordTokenizer

CONFIGS = Path(__file__).parents[1] / "apps/predictor/configs"
SEED, EACH = 2025, 250
LEGACY = Law(max_ops=4, shape="right")
WIDTH, BATCH, BLOCK = 96, 64, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exclude", help="jsonl with `symbolic`: expressions that are never trained on")
    parser.add_argument("--max_steps", type=int, help="of both trainings (default: the configurations')")
    parser.add_argument("--legacy_embd", type=int, default=96, help="width of the original's predictor (default: 96)")
    options = parser.parse_args()
    torch.set_num_threads(1)

    model, seconds = train("predictor", options)
    rates = exact_answers(model)
    print(table(("expressions", "exact"), [(name, str(rate)) for name, rate in rates.items()]))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {seconds / 60:.2f} CPU minutes, torch {torch.__version__}\n")

    ours, ours_seconds = train("predictor-right", options)
    held_out = sample(LEGACY, 1000, SEED, split="test", width=WIDTH)
    theirs, theirs_seconds, examples = train_legacy(ours_seconds, options.legacy_embd)
    rows = [
        ("always identity, +, first number", 0, 0.0, majority(held_out.plans)),
        ("nanoGPT-DAG's predictor", count(theirs), theirs_seconds, scores_of_legacy(theirs, held_out)),
        ("ours", count(ours), ours_seconds, scores_of_ours(ours, held_out)),
    ]
    header = ("legacy law, 1000 held out", "parameters", "CPU s", *SlotScores._fields)
    print(table(header, [(name, n, round(spent, 1), *scores) for name, n, spent, scores in rows]))
    print(f"the original's predictor saw {examples:,} examples")
    legacy = {f"legacy_{name}": value for name, value in rows[2][3]._asdict().items()}
    original = {f"original_{name}": value for name, value in rows[1][3]._asdict().items()}
    finish(
        **{name: rate.value for name, rate in rates.items()},
        **{f"{name}_low": rate.interval[0] for name, rate in rates.items()},
        cpu_minutes=seconds / 60,
        params=parameters,
        legacy_cpu_minutes=ours_seconds / 60,
        legacy_params=count(ours),
        **legacy,
        original_cpu_minutes=theirs_seconds / 60,
        original_params=count(theirs),
        **original,
    )


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def train(config: str, options: argparse.Namespace) -> tuple[PredictorOnlyModel, float]:
    """The trained model and its CPU seconds: everything that `apps/predictor CONFIG` does until the last checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [config, "--general.out_dir", folder, "--run_name=run", "--logging.style=quiet", "--device=cpu"]
        argv += [f"--data.module_kwargs.exclude={options.exclude}"] if options.exclude else []
        argv += [f"--max_steps={options.max_steps}"] if options.max_steps is not None else []
        loaded = load_config(argv, schema=SCHEMA, config_dirs=[CONFIGS])
        started = time.process_time()
        with distributed("cpu") as ranks:
            folder = run(loaded, ranks, datetime.now(), ["bench_dag_accuracy.py", *argv])
        seconds = time.process_time() - started
        model = load_model(find_checkpoint(folder))
    assert isinstance(model, PredictorOnlyModel)
    return model, seconds


def exact_answers(model: PredictorOnlyModel) -> dict[str, Rate]:
    """By range of operations, each number of them equally often; and mixed, as one draw."""

    def answers(texts):
        return [reading.answer for reading in read(model, WordTokenizer(), texts)]

    by_length = {n: score(answers, draw_items(Law(n, n), EACH, SEED + n)).of() for n in range(1, 9)}
    mixed = score(answers, draw_items(Law(1, 8), 4 * EACH, SEED)).of()
    return {"exact_1_4": total(by_length, 1, 4), "exact_5_8": total(by_length, 5, 8), "exact_mixed": mixed}


def total(rates: dict[int, Rate], low: int, high: int) -> Rate:
    chosen = [rate for n, rate in rates.items() if low <= n <= high]
    return Rate(sum(rate.hits for rate in chosen), sum(rate.n for rate in chosen))


def train_legacy(seconds: float, n_embd: int) -> tuple[LegacyPredictor, float, int]:
    """The original's predictor on the same stream for so many CPU seconds: AdamW 1e-3, cosine over the time, clip 1."""
    torch.manual_seed(1337)
    model = LegacyPredictor(WordTokenizer.vocab_size, WIDTH, LEGACY.max_ops, n_embd)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    started, examples = time.process_time(), 0
    while (spent := time.process_time() - started) < seconds:
        if examples % BLOCK == 0:
            numbers = torch.arange(examples, examples + BLOCK)
            block = sample(LEGACY, numbers, 1337, width=WIDTH)
            ids = block.lay_out(WIDTH).ids
        rows = slice(examples % BLOCK, examples % BLOCK + BATCH)
        loss = legacy_loss(model(ids[rows]), legacy_slots(block.plans[rows]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (0.505 + 0.495 * torch.cos(torch.tensor(torch.pi * spent / seconds)).item())
        optimizer.step()
        optimizer.zero_grad()
        examples += BATCH
    return model.eval(), time.process_time() - started, examples


@torch.no_grad()
def scores_of_legacy(model: LegacyPredictor, held_out: Sample) -> SlotScores:
    slots = model(held_out.lay_out(WIDTH).ids)
    return slot_scores(slots, hard_values(slots), held_out.plans)


def scores_of_ours(model: PredictorOnlyModel, held_out: Sample) -> SlotScores:
    prediction = model.predict_plan(held_out.lay_out(WIDTH).ids)
    result = model.execute(prediction.plans).result
    value = torch.where(result.invalid | prediction.invalid, torch.nan, result.value)
    return slot_scores(legacy_slots(prediction.plans), value, held_out.plans)


if __name__ == "__main__":
    sys.exit(main())
