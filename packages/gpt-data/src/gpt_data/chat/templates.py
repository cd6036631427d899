"""How a conversation is written in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..tokenizers import Tokenizer
from ..tokenizers.special import SpecialTokenizer

BOS = "<|bos|>"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatTemplate:
    """The tokens around the messages of a conversation, which begins with `<|bos|>`.

    A message is `starts[role]`, the text `header`, its content, `ends[role]`, the text `trailer`.
    """

    name: str
    special_tokens: tuple[str, ...]
    """In the order of their ids, which begin where the vocabulary of the base ends: 50257 for GPT-2."""
    starts: Mapping[str, str]
    """Role -> token that opens its messages. A system message without one becomes the beginning of the first user's."""
    ends: Mapping[str, str]
    header: str
    """With `{role}` for the role."""
    trailer: str
    python: tuple[str, str]
    """Tokens around an expression that the assistant has computed by a tool."""
    output: tuple[str, str]
    """Tokens around what the tool answers."""

    @property
    def stop(self) -> str:
        """The token that ends an answer."""
        return self.ends["assistant"]


def _same(token: str) -> dict[str, str]:
    return dict.fromkeys(ROLES, token)


CHATML = ChatTemplate(
    name="chatml",
    special_tokens=(
        BOS,
        "<|im_start|>",
        "<|im_end|>",
        "<|python_start|>",
        "<|python_end|>",
        "<|output_start|>",
        "<|output_end|>",
        "<|reserved_0|>",
        "<|reserved_1|>",
    ),
    starts=_same("<|im_start|>"),
    ends=_same("<|im_end|>"),
    header="{role}\n",
    trailer="\n",
    python=("<|python_start|>", "<|python_end|>"),
    output=("<|output_start|>", "<|output_end|>"),
)

ROLE_TOKENS = ChatTemplate(
    name="roles",
    special_tokens=(
        BOS,
        "<|user_start|>",
        "<|user_end|>",
        "<|assistant_start|>",
        "<|assistant_end|>",
        "<|python|>",
        "<|python_end|>",
        "<|output_start|>",
        "<|output_end|>",
    ),
    starts={"user": "<|user_start|>", "assistant": "<|assistant_start|>"},
    ends={"user": "<|user_end|>", "assistant": "<|assistant_end|>"},
    header="",
    trailer="",
    python=("<|python|>", "<|python_end|>"),
    output=("<|output_start|>", "<|output_end|>"),
)

TEMPLATES = {template.name: template for template in (CHATML, ROLE_TOKENS)}
DEFAULT_TEMPLATE = "chatml"


def find_template(template: str | ChatTemplate | None, tokenizer: Tokenizer) -> ChatTemplate:
    """The template with this name; None: the one whose tokens `tokenizer` has. ValueError says what there is."""
    if isinstance(template, ChatTemplate):
        return template
    name = template if template is not None else getattr(tokenizer, "template", None)
    if name is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name!r} has the tokens of no chat template. Give it some: "
            f"gpt_data.chat.add_special_tokens(tokenizer, {DEFAULT_TEMPLATE!r})."
        )
    if name not in TEMPLATES:
        raise ValueError(f"there is no chat template {name!r}, expected one of {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]


def add_special_tokens(tokenizer: Tokenizer, template: str | ChatTemplate = DEFAULT_TEMPLATE) -> SpecialTokenizer:
    """`tokenizer` with the tokens of `template` after its own; text becomes the same ids as before.

    The template's name is saved and loaded with it. One that has these tokens already is returned as it is; one with
    those of another template is a ValueError.
    """
    found = find_template(template, tokenizer)
    if isinstance(tokenizer, SpecialTokenizer):
        if tokenizer.template == found.name and tokenizer.spellings == found.special_tokens:
            return tokenizer
        raise ValueError(
            f"the tokenizer {tokenizer.name!r} has the tokens of {tokenizer.template!r}, {found.name!r} was asked for. "
            "Start from its `base`."
        )
    return SpecialTokenizer(tokenizer, found.special_tokens, found.name)
