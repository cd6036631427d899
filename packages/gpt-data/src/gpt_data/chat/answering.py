"""How a model takes part in a conversation, as plain functions of ids: what an evaluator or a server asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..tokenizers import Tokenizer
from .conversation import Message
from .render import prompt
from .templates import BOS, ChatTemplate, find_template


def answering(tokenizer: Tokenizer, calculate: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """Settings for whoever lets a model answer, by the names of gpt_eval.models.GPTModel; {} without a chat template.

    bos_id: of `<|bos|>`. chat(messages): the ids up to where the assistant answers. end_ids: what ends an answer.
    tool(ids): called with the answer so far, what to put into it where it has just closed an expression for the tool;
    there with `calculate`, which gives an expression's value, or None where it has none.
    """
    special = getattr(tokenizer, "special_tokens", {})
    if getattr(tokenizer, "template", None) is None:
        return {"bos_id": special[BOS]} if BOS in special else {}
    template = find_template(None, tokenizer)
    settings: dict[str, Any] = {
        "bos_id": special[BOS],
        "chat": partial(_prompt, tokenizer),
        "end_ids": [special[template.stop], special[BOS]],
    }
    if calculate is not None:
        settings["tool"] = partial(_used_tool, tokenizer, template, special, calculate)
    return settings


def _prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    return prompt({"messages": list(messages)}, tokenizer)


def _used_tool(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    special: Mapping[str, int],
    calculate: Callable[[str], Any],
    ids: Sequence[int],
) -> list[int]:
    """The ids of the tool's answer if the last of `ids` closes an expression that has a value; else none."""
    opening, closing = (special[spelling] for spelling in template.python)
    if not ids or ids[-1] != closing or opening not in ids:
        return []
    start = len(ids) - 1 - list(reversed(ids)).index(opening)
    value = calculate(tokenizer.decode(list(ids[start + 1 : -1])))
    if value is None:
        return []
    before, after = (special[spelling] for spelling in template.output)
    return [before, *tokenizer.encode(str(value)), after]
