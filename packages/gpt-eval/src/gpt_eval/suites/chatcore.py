"""ChatCORE: the mean of centered accuracies of chat tasks, in the two lists that nanochat has had.

`chatcore6` is the list until July 2026 with SpellingBee, for which our own generator stands in; `chatcore5` the one
since. Each is null unless all of its tasks ran whole, and judge scores never enter it.
"""

from collections.abc import Mapping
from typing import Any

CHATCORE5 = ("chat_arc_easy", "chat_arc_challenge", "chat_mmlu", "chat_gsm8k", "chat_human_eval")
CHATCORE6 = (*CHATCORE5, "spellingbee_local")
SUITES: Mapping[str, tuple[str, ...]] = {"chatcore": CHATCORE5, "chatcore5": CHATCORE5, "chatcore6": CHATCORE6}


def chatcore(centered: Mapping[str, float | None], suite: str = "chatcore5", partial: bool = False) -> dict[str, Any]:
    """{"score", "mean", "coverage", "label"} of a suite.

    centered: centered accuracy by task name; None or missing for a task that did not run.
    partial: a task ran on some of its rows only.
    The score is None unless everything ran; `mean` is that of what did, to look at, and `label` says so.
    """
    names = SUITES[suite]
    done = [value for name in names if (value := centered.get(name)) is not None]
    whole = len(done) == len(names) and not partial
    mean = sum(done) / len(done) if done else None
    title = "ChatCORE" if suite == "chatcore" else f"ChatCORE-{len(names)}"
    label = title if whole else f"{title} (partial {len(done)}/{len(names)})"
    return {
        "score": mean if whole else None,
        "mean": mean,
        "coverage": f"{len(done)}/{len(names)}",
        "label": label,
    }
