"""ChatCORE: the mean of centered accuracies of chat tasks, in the two lists that nanochat has had.

`chatcore6` is the list until July 2026 with SpellingBee, for which our own generator stands in; `chatcore5` the one
since. Judge scores never enter either: `judged` and `ifeval` have no average.
"""

from collections.abc import Mapping

from gpt_eval.aggregate import Benchmark, Category, Rule
from gpt_eval.data.bundle import Bundle
from gpt_eval.suites.tables import builtin
from gpt_eval.task import Task

CHATCORE5 = ("chat_arc_easy", "chat_arc_challenge", "chat_mmlu", "chat_gsm8k", "chat_human_eval")
CHATCORE6 = (*CHATCORE5, "spellingbee_local")
SUITES: Mapping[str, tuple[str, ...]] = {
    "chatcore": CHATCORE5,
    "chatcore5": CHATCORE5,
    "chatcore6": CHATCORE6,
    "ifeval": ("ifeval",),
    "judged": ("mt_bench", "alpaca_local", "flask"),
}
TITLES = {"chatcore": "ChatCORE", "chatcore5": "ChatCORE-5", "chatcore6": "ChatCORE-6 (local SpellingBee)"}


def suite(name: str, bundle: Bundle) -> tuple[list[Task], Rule]:
    """The tasks of a chat suite, and ChatCORE's plain mean, which is partial unless all of them ran whole."""
    tasks = [builtin()[task].task for task in SUITES[name]]
    if name not in TITLES:
        return tasks, Rule()
    benchmarks = tuple(Benchmark(task.name, task.num_fewshot, task.baseline) for task in tasks)
    return tasks, Rule((Category(TITLES[name], benchmarks, complete=False),), source="chat.yaml of gpt-eval (nanochat)")
