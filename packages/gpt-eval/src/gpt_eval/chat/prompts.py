"""Items that are one turn of a conversation, and what identifies a prompt."""

import hashlib
import json
from typing import Any

from gpt_eval.task import Generation, Item, Row


def chat_item(index: int, text: str, settings: Generation, *, gold: Any, row: Row, unscored: str | None = None) -> Item:
    """One user turn to answer."""
    prompt = ({"role": "user", "content": text},)
    return Item(index=index, gold=gold, prompt=prompt, generation=settings, detail=row, unscored=unscored)


def prompt_sha256(item: Item) -> str:
    """Of the conversation or the token ids, and of the requests where continuations are scored."""
    prompt = [dict(turn) if not isinstance(turn, int) else turn for turn in item.prompt or ()]
    asked = [[[*context], [*continuation]] for context, continuation in item.requests]
    return hashlib.sha256(json.dumps([prompt, asked], sort_keys=True, default=int).encode()).hexdigest()
