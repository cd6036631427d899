"""`--math`: word problems (GSM8K, SVAMP) from local files, answered greedily by a GPT, with or without a DAG."""

import argparse
import json
from collections.abc import Sequence

from asking import say

import gpt_data
from gpt_core.distributed import distributed
from gpt_core.generate import Generator
from gpt_dag.evaluation.math_problems import FIELDS, Skipped, math_problems, score_math
from gpt_dag.evaluation.report import table


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="apps/predictor", description=__doc__)
    add = parser.add_argument
    add("--math", required=True, nargs="+", metavar="TASK[=FILE.jsonl]", help=f"tasks: {', '.join(FIELDS)}")
    add("--checkpoint", default="out", help="a run, a checkpoint, or a folder of runs, of which the newest is taken")
    add("--max_examples", type=int, help="of each task, 0: none (default: all)")
    add("--max_new_tokens", type=int, default=32, help="length of an answer (default: 32)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    options = parser.parse_args(argv)
    tasks = {}
    for task in options.math:
        name, _, path = task.partition("=")
        tasks[name] = math_problems(name, path or None, options.max_examples)
    with distributed(options.device) as process:
        generator = Generator.from_run(
            options.checkpoint, load_tokenizer=gpt_data.load_tokenizer, device=process.device, trusted=["gpt_dag"]
        )

    def continue_text(prompt: str) -> str:
        pieces = generator.stream([prompt], max_new_tokens=options.max_new_tokens, temperature=0, stop=["\n"])
        return "".join(piece.text for piece in pieces)

    rows, figures = [], {}
    for name, problems in tasks.items():
        if isinstance(problems, Skipped):
            say(f"{name}: skipped, {problems.reason}")
            continue
        scored = score_math(continue_text, problems)
        rows.append((name, str(scored.exact.n), str(scored.exact), str(scored.close), str(scored.errors)))
        figures[f"math_eval_{name}"] = scored.exact.value
        figures[f"math_eval_{name}_close"] = scored.close.value
        figures[f"math_eval_{name}_errors"] = scored.errors
    if rows:
        say(table(("task", "n", "exact", "within 1e-6", "errors"), rows))
    print(json.dumps(figures))
    return 0
