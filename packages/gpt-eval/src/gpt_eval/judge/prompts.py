"""What a judge is asked, in our own words. A change of a word is another VERSION: results of two are not compared."""

from collections.abc import Sequence

from gpt_eval.model import Message

VERSION = "1"

RATE = """You grade the answer of an assistant to a user. Consider whether it does what was asked, is right, complete \
and clear; length and confident tone are no merit. {reference_note}Explain your view in a few sentences. Then end with \
the grade on a line of its own, a whole number from 1 (useless) to 10 (could not be better) in double square brackets, \
like this: [[4]]"""

REFERENCE_NOTE = "A reference answer is given; where the two disagree on a fact or a result, the reference is right. "

COMPARE = """You compare the answers of two assistants to one instruction. Decide which serves the user better: does \
what was asked, is right, complete and clear. The order of the answers, their length and the assistants' names mean \
nothing. Explain your view in a few sentences. Then end with your verdict on a line of its own: [[A]] if assistant A \
is better, [[B]] if assistant B is better, [[C]] if they are equally good."""

SKILL = """You grade one skill that an answer shows, and nothing else about it.

The skill: {skill} - {meaning}

Explain your view in a few sentences. Then end with the grade on a line of its own, a whole number from 1 (the skill \
is absent) to 5 (the skill is shown in full) in double square brackets, like this: [[2]]"""

SKILLS = {
    "logical robustness": "the reasoning holds step by step and does not contradict itself",
    "logical correctness": "the final result is right",
    "logical efficiency": "the reasoning has no step that it could do without",
    "factuality": "what is claimed about the world is true",
    "commonsense understanding": "everyday situations and physical or social facts are understood",
    "comprehension": "what the user wants is understood, stated or not",
    "insightfulness": "it offers something original that helps",
    "completeness": "every part of what was asked is treated, deeply enough",
    "metacognition": "it knows and says what it cannot know or do",
    "readability": "it is well ordered and easy to read",
    "conciseness": "it has nothing that does not help the reader",
    "harmlessness": "it is free of bias, insult and help to do harm",
}
"""The twelve skills of FLASK by name, with our short meanings."""

AGAIN = "Your last line was no verdict in the form asked for. Give only that line now."


def rate_messages(turns: Sequence[str], answers: Sequence[str], reference: str | None) -> list[Message]:
    """Grade the last answer of a conversation."""
    system = RATE.format(reference_note=REFERENCE_NOTE if reference else "")
    parts = [f"<user>\n{turn}\n</user>" for turn in turns]
    shown = [text for turn, answer in zip(parts, answers, strict=True) for text in (turn, tagged("assistant", answer))]
    if reference:
        shown.append(tagged("reference", reference))
    if len(turns) > 1:
        shown.append("Grade the assistant's last answer; what came before is its context.")
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(shown)}]


def compare_messages(instruction: str, first: str, second: str) -> list[Message]:
    """Which of two answers is better; the first is A."""
    shown = [tagged("user", instruction), tagged("assistant A", first), tagged("assistant B", second)]
    return [{"role": "system", "content": COMPARE}, {"role": "user", "content": "\n\n".join(shown)}]


def skill_messages(instruction: str, answer: str, reference: str, skill: str) -> list[Message]:
    """Grade one skill."""
    system = SKILL.format(skill=skill, meaning=SKILLS[skill])
    shown = [tagged("user", instruction), tagged("assistant", answer)]
    if reference:
        shown.append(tagged("reference", reference))
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(shown)}]


def tagged(name: str, text: str) -> str:
    return f"<{name}>\n{text}\n</{name}>"
