"""Rows of public data sets as rows of the gauntlet: pure functions, one per data set, after the published files' style.

Each takes a row as its hub has it and returns our rows (coqa has one per turn, some sets drop rows). `hub.py` says
which data set a task is from. Where the published file was cut down to fewer answers by an unknown choice, the last
wrong ones are left out here (`fewer`): close to the published benchmark, not equal to it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

LETTERS = "ABCDEFGHIJ"

Converted = list[dict[str, Any]]


def fewer(choices: Sequence[str], gold: int, count: int) -> tuple[list[str], int]:
    """At most `count` choices with the gold one among them, and its new number; the last wrong ones go."""
    wrong = [place for place in range(len(choices)) if place != gold][: count - 1]
    kept = sorted([*wrong, gold])
    return [choices[place] for place in kept], kept.index(gold)


def lettered(choices: Sequence[str], mark: str = ".") -> str:
    """A line per choice: "A. text"."""
    return "\n".join(f"{letter}{mark} {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _choice(query: str, choices: Sequence[str], gold: int, **more: Any) -> Converted:
    return [{"query": query, "choices": list(choices), "gold": gold, **more}]


def _letters(query: str, choices: Sequence[str], gold: int, end: str = "\nAnswer:", **more: Any) -> Converted:
    """Choices are listed in the query, and the answer is a letter."""
    return _choice(f"{query}\n{lettered(choices)}{end}", LETTERS[: len(choices)], gold, **more)


def hellaswag(row: Mapping[str, Any]) -> Converted:
    """Rowan/hellaswag: marks in brackets go, " [title]" ends a sentence, the second clause begins with a capital."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _choice(_unmarked(context), [_unmarked(ending) for ending in row["endings"]], int(row["label"]))


def _unmarked(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def piqa(row: Mapping[str, Any]) -> Converted:
    return _choice(f"Question: {row['goal']}\n", [row["sol1"], row["sol2"]], int(row["label"]))


def siqa(row: Mapping[str, Any]) -> Converted:
    """Three answers become two."""
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    choices, gold = fewer(answers, int(row["label"]) - 1, 2)
    return _choice(f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer:", choices, gold)


def openbook_qa(row: Mapping[str, Any]) -> Converted:
    choices = row["choices"]
    return _choice(row["question_stem"], choices["text"], choices["label"].index(row["answerKey"].strip()))


def commonsense_qa(row: Mapping[str, Any]) -> Converted:
    """Five answers become four, listed with letters."""
    gold = row["choices"]["label"].index(row["answerKey"])
    choices, gold = fewer(row["choices"]["text"], gold, 4)
    return _letters(f"Question: {row['question'].strip()}\nChoices:", choices, gold)


def arc(row: Mapping[str, Any]) -> Converted:
    """allenai/ai2_arc: five answers become four, questions with three are left out."""
    gold = row["choices"]["label"].index(row["answerKey"])
    choices, gold = fewer(row["choices"]["text"], gold, 4)
    return _choice(f"Question: {row['question']}", choices, gold) if len(choices) == 4 else []


def mmlu(row: Mapping[str, Any]) -> Converted:
    return _letters(row["question"].strip(), row["choices"], int(row["answer"]), end="", category=row["subject"])


def boolq(row: Mapping[str, Any]) -> Converted:
    """aps/super_glue: the answers stand as no, yes."""
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}?"
    return _choice(query, ["no", "yes"], int(row["label"]))


def copa(row: Mapping[str, Any]) -> Converted:
    """aps/super_glue: the premise goes on with "because" or "therefore", the answers begin with a small letter."""
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = [text[0].lower() + text[1:] for text in (row["choice1"], row["choice2"])]
    return _choice(f"{row['premise'].strip()[:-1]}, {connector}", choices, int(row["label"]))


def winograd(row: Mapping[str, Any]) -> Converted:
    """lighteval/winograd_wsc: each option in place of the pronoun."""
    before, place = row["text"][: row["pronoun_loc"]], row["pronoun_loc"] + len(row["pronoun"])
    options = [before + _in_sentence(before, option) for option in row["options"]]
    return _schema(options, row["text"][place:].strip(), int(row["label"]))


def _in_sentence(before: str, option: str) -> str:
    """An article is small where the sentence has begun."""
    first, _, rest = option.partition(" ")
    return f"{first.lower()} {rest}" if before and first in ("The", "A", "An", "His", "Her", "My", "Our") else option


def winogrande(row: Mapping[str, Any]) -> Converted:
    before, after = row["sentence"].split("_", 1)
    options = [before + row["option1"], before + row["option2"]]
    return _schema(options, after.strip(), int(row["answer"]) - 1)


def _schema(options: Sequence[str], continuation: str, gold: int) -> Converted:
    return [{"context_options": list(options), "continuation": continuation, "gold": gold}]


def lambada(row: Mapping[str, Any]) -> Converted:
    context, _, word = row["text"].rpartition(" ")
    return [{"context": context, "continuation": word}]


def squad(row: Mapping[str, Any]) -> Converted:
    context = f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer:"
    return [{"context": context, "continuation": row["answers"]["text"][0]}]


def coqa(row: Mapping[str, Any]) -> Converted:
    """A row per question, with the story and the turns before it."""
    text, rows = f"Below is a story followed by a series of related questions.\n\nStory: {row['story']}\n", []
    for question, answer in zip(row["questions"]["input_text"], row["answers"]["input_text"], strict=True):
        text += f"\nQuestion: {question}\nAnswer:"
        rows.append({"context": text, "continuation": answer})
        text += f" {answer}"
    return rows


def triviaqa(row: Mapping[str, Any]) -> Converted:
    answer = row["answer"]
    context = f"Question: {row['question']}\nAnswer:"
    return [{"context": context, "answer": answer["value"], "aliases": list(answer["aliases"])}]


def gsm8k(row: Mapping[str, Any]) -> Converted:
    reasoning, _, answer = row["answer"].rpartition("\n#### ")
    return [{"context": row["question"], "chain_of_thought": reasoning, "answer": answer.strip().replace(",", "")}]


def math(row: Mapping[str, Any]) -> Converted:
    """EleutherAI/hendrycks_math: the answer is the last box of the solution; the category its subject."""
    answer = last_boxed(row["solution"])
    category = row["type"].lower().replace(" & ", " and ").replace(" ", "_")
    fields = {"context": row["problem"], "answer": answer, "chain_of_thought": row["solution"], "category": category}
    return [fields] if answer else []


def last_boxed(text: str) -> str:
    r"""The inside of the last \boxed{...}, whose braces may nest; empty where there is none."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return ""
    begin, depth = start + len(r"\boxed{"), 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return ""


def svamp(row: Mapping[str, Any]) -> Converted:
    question = f"{row['Body'].strip()} {row['Question'].strip()}"
    number = float(row["Answer"])
    answer = str(int(number)) if number.is_integer() else str(number)
    return [{"context": question, "chain_of_thought": row["Equation"], "answer": answer}]


def logi_qa(row: Mapping[str, Any]) -> Converted:
    options = [re.sub(r"^[A-D]\.\s*", "", option) for option in row["options"]]
    query = f"Context: {row['context'].strip()}\nQuestion: {row['question'].strip()}\nChoices: {lettered(options)}\n"
    return _choice(query, LETTERS[:4], "abcd".index(row["label"].strip().lower()))


def math_qa(row: Mapping[str, Any]) -> Converted:
    """regisss/math_qa: five answers in one string, "a ) 38 , b ) 27.675 , ..."; four are kept."""
    options = [part.strip(" ,'\"[]") for part in re.split(r"(?:^|,|\[|')\s*[a-e] \) ", row["options"])[1:]]
    choices, gold = fewer(options, "abcde".index(row["correct"]), 4)
    return _letters(f"Question: {row['Problem']}", choices, gold, end="\nAnswer: ") if len(options) == 5 else []


def pubmed_qa(row: Mapping[str, Any]) -> Converted:
    """bigbio/pubmed_qa: sections with their labels, and the three answers listed."""
    parts = "\n".join(f"{label}. {text}" for label, text in zip(row["LABELS"], row["CONTEXTS"], strict=True))
    context = f"Context: {parts}\nQuestion: {row['QUESTION']}\n{lettered(['yes', 'no', 'maybe'])}\nAnswer: "
    return [{"context": context, "continuation": row["final_decision"]}]


def agi_eval(row: Mapping[str, Any]) -> Converted:
    """hails/agieval-*: choices such as "(A)text"; four are kept and listed as "A.) text", the answer is a letter."""
    query = row["query"].partition(" Answer Choices:")[0].replace("Q: ", "\nQ: ", 1).strip()
    options = [re.sub(r"^\([A-E]\)\s*", "", choice) for choice in row["choices"]]
    choices, gold = fewer(options, int(row["gold"][0]), 4)
    return _choice(f"{query}\nChoices:\n{lettered(choices, '.)')}\nAnswer:", LETTERS[: len(choices)], gold)


def bigbench_choice(row: Mapping[str, Any]) -> Converted:
    """hails/bigbench: the targets with their scores; at most four are kept."""
    choices, gold = fewer(row["multiple_choice_targets"], list(row["multiple_choice_scores"]).index(1), 4)
    return _choice(row["inputs"], choices, gold)


def bigbench_text(row: Mapping[str, Any]) -> Converted:
    """hails/bigbench: the first target continues the input."""
    return [{"context": row["inputs"], "continuation": row["targets"][0]}]


def winogender(row: Mapping[str, Any]) -> Converted:
    question = f'Q: Who does the pronoun "{row["pronoun"]}" refer to in the previous sentence? A:'
    query = f'Sentence: "{row["sentence"]}"\n{question}'
    return _choice(query, [f"the {row['occupation']}", f"the {row['participant']}"], int(row["label"]))


def bbq(row: Mapping[str, Any]) -> Converted:
    """oskarvanderwal/bbq: three answers become two."""
    choices, gold = fewer([row["ans0"], row["ans1"], row["ans2"]], int(row["label"]), 2)
    query = f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer:"
    return _choice(query, choices, gold, category=row["category"])


def human_eval(row: Mapping[str, Any]) -> Converted:
    fields = {name: row[name] for name in ("task_id", "prompt", "canonical_solution", "test", "entry_point")}
    return [fields | {"language": "python"}]
