"""Questions to models that answer in conversations: how they are asked, and how a short answer is read from a text."""

from gpt_eval.chat.calculator import calculate
from gpt_eval.chat.extract import gsm8k_answer
from gpt_eval.chat.multiple_choice import letters_of, render_question
from gpt_eval.chat.program import base_program, chat_program

__all__ = [
    "base_program",
    "calculate",
    "chat_program",
    "gsm8k_answer",
    "letters_of",
    "render_question",
]
