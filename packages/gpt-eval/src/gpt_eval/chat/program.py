"""Programs from completions of HumanEval: by a base model that goes on from the prompt, or by a chat model's reply."""

import re

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a base model's function body ends (HumanEval, Chen et al. 2021)."""

FENCED = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)


def cut(text: str, stops: tuple[str, ...] = STOPS) -> str:
    """The text before the first of the stop strings."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def base_program(prompt: str, completion: str) -> str:
    """The prompt and what the model continued it with, up to a stop string."""
    return prompt + cut(completion)


def chat_program(prompt: str, reply: str) -> str:
    """The prompt's leading imports and the reply's first fenced block, or all of a reply without one."""
    return f"{leading_imports(prompt)}\n\n{first_block(reply)}\n"


def leading_imports(prompt: str) -> str:
    """The import lines before the first line of other code."""
    found = []
    for line in map(str.strip, prompt.split("\n")):
        if line.startswith(("import ", "from ")):
            found.append(line)
        elif line and not line.startswith("#"):
            break
    return "\n".join(found)


def first_block(reply: str) -> str:
    found = FENCED.search(reply)
    return (found.group(1) if found else reply).strip()
