"""What the local backends share about token ids: what can be done with them, a tokenizer's identity, prompts."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from gpt_eval.model import Capability, Message, Prompt

WITHOUT_CHAT: frozenset[Capability] = frozenset({"score", "generate"})
ALL: frozenset[Capability] = WITHOUT_CHAT | frozenset[Capability]({"chat", "chat_score"})


def tokenizer_hash(decode: Callable[[Sequence[int]], str], vocab_size: int) -> str:
    """sha256 over the text of every single token: equal for tokenizers with equal tokens under equal numbers."""
    texts = [decode([i]) for i in range(vocab_size)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def has_prefix_space(encode: Callable[[str], list[int]]) -> bool:
    """Whether a word's leading space belongs to its token, as in byte-level BPE: " a" is one token."""
    return len(encode(" a")) == 1


def prompt_ids(prompt: Prompt, chat_ids: Callable[[Sequence[Message]], Sequence[int]]) -> Sequence[int]:
    """Token ids of a prompt: itself, or a conversation rendered."""
    messages = [message for message in prompt if isinstance(message, Mapping)]
    return chat_ids(messages) if messages else [token for token in prompt if isinstance(token, int)]
