"""Conversations as token ids: templates, their special tokens, loss masks, and the rows of known data sets."""

from .answering import answering as answering
from .render import Rendered as Rendered
from .render import prompt as prompt
from .render import render as render
from .tasks import gsm8k as gsm8k
from .tasks import mmlu as mmlu
from .tasks import smoltalk as smoltalk
from .templates import TEMPLATES as TEMPLATES
from .templates import ChatTemplate as ChatTemplate
from .templates import add_special_tokens as add_special_tokens
from .templates import find_template as find_template
