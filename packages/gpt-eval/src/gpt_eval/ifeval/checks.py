"""The 25 instructions of IFEval, each a function of the whole response. Zhou et al. 2023, arXiv:2311.07911.

The conditions are those of the checker in lm-evaluation-harness (4e7e0d4), quirks included: keywords are regular
expressions, a `*` list item may not start with two stars, highlights are counted in two passes.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt_eval.ifeval.language import Unscorable, detect_language
from gpt_eval.ifeval.sentences import Sentences


@dataclass(frozen=True)
class Check:
    """One kind of instruction."""

    holds: Callable[..., bool]
    """(response, **required) -> whether it was followed; with `splitter=` besides where `splits`."""
    required: Mapping[str, type]
    """Its arguments in the data; one that is missing is an error (upstream draws a random one)."""
    splits: bool = False
    """Counts sentences or words of NLTK, so it needs a splitter."""


CHECKS: dict[str, Check] = {}
PATTERNS = ("keywords", "keyword", "forbidden_words", "section_spliter", "postscript_marker")


def check(name: str, splits: bool = False, **required: type) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Enters a function in `CHECKS` under its instruction id."""

    def enter(function: Callable[..., bool]) -> Callable[..., bool]:
        CHECKS[name] = Check(function, required, splits)
        return function

    return enter


def compare(count: int, relation: str, threshold: int) -> bool:
    """ "less than" is strict, "at least" is not. Raises ValueError for another relation."""
    if relation == "less than":
        return count < threshold
    if relation == "at least":
        return count >= threshold
    raise ValueError(f'relation must be "less than" or "at least", got {relation!r}')


@check("keywords:existence", keywords=list)
def keywords_exist(response: str, keywords: list[str]) -> bool:
    return all(re.search(keyword, response, re.IGNORECASE) for keyword in keywords)


@check("keywords:frequency", keyword=str, frequency=int, relation=str)
def keyword_frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return compare(len(re.findall(keyword.strip(), response, re.IGNORECASE)), relation, frequency)


@check("keywords:forbidden_words", forbidden_words=list)
def no_forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", response, re.IGNORECASE) for word in forbidden_words)


@check("keywords:letter_frequency", letter=str, let_frequency=int, let_relation=str)
def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compare(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


@check("language:response_language", language=str)
def response_language(response: str, language: str) -> bool:
    found = detect_language(response)
    return found is None or found == language


@check("length_constraints:number_sentences", splits=True, num_sentences=int, relation=str)
def number_of_sentences(response: str, num_sentences: int, relation: str, splitter: Sentences) -> bool:
    return compare(len(splitter.sentences(response)), relation, num_sentences)


@check("length_constraints:number_paragraphs", num_paragraphs=int)
def number_of_paragraphs(response: str, num_paragraphs: int) -> bool:
    pieces = re.split(r"\s?\*\*\*\s?", response)
    if any(not piece.strip() for piece in pieces[1:-1]):
        return False
    ends = {0, len(pieces) - 1}
    return len(pieces) - sum(not pieces[end].strip() for end in ends) == num_paragraphs


@check("length_constraints:number_words", num_words=int, relation=str)
def number_of_words(response: str, num_words: int, relation: str) -> bool:
    return compare(len(re.findall(r"\w+", response)), relation, num_words)


@check("length_constraints:nth_paragraph_first_word", num_paragraphs=int, nth_paragraph=int, first_word=str)
def first_word_of_paragraph(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    pieces = response.split("\n\n")
    count = sum(bool(piece.strip()) for piece in pieces)
    if nth_paragraph > count or not pieces[nth_paragraph - 1].strip():
        return False
    word = pieces[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


@check("detectable_content:number_placeholders", num_placeholders=int)
def number_of_placeholders(response: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


@check("detectable_content:postscript", postscript_marker=str)
def has_postscript(response: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, marker.lower()), response.lower()) is not None


@check("detectable_format:number_bullet_lists", num_bullets=int)
def number_of_bullets(response: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


@check("detectable_format:constrained_response")
def constrained_response(response: str) -> bool:
    return any(f"My answer is {answer}." in response for answer in ("yes", "no", "maybe"))


@check("detectable_format:number_highlighted_sections", num_highlights=int)
def number_of_highlights(response: str, num_highlights: int) -> bool:
    single = [span for span in re.findall(r"\*[^\n\*]*\*", response) if span.strip("*").strip()]
    double = [span for span in re.findall(r"\*\*[^\n\*]*\*\*", response) if span[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


@check("detectable_format:multiple_sections", section_spliter=str, num_sections=int)
def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{section_spliter.strip()}\s?\d+\s?", response)) >= num_sections


@check("detectable_format:json_format")
def is_json(response: str) -> bool:
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


@check("detectable_format:title")
def has_title(response: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", response))


@check("combination:two_responses")
def two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    if not all(parts[1:-1]):
        return False
    answers = [part for part in parts if part]
    return len(answers) == 2 and answers[0] != answers[1]


@check("combination:repeat_prompt", prompt_to_repeat=str)
def repeats_prompt(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


@check("startend:end_checker", end_phrase=str)
def ends_with(response: str, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@check("startend:quotation")
def is_quoted(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@check("change_case:capital_word_frequency", splits=True, capital_frequency=int, capital_relation=str)
def capital_words(response: str, capital_frequency: int, capital_relation: str, splitter: Sentences) -> bool:
    return compare(sum(word.isupper() for word in splitter.words(response)), capital_relation, capital_frequency)


@check("change_case:english_capital")
def english_capitals(response: str) -> bool:
    return response.isupper() and detect_language(response) in ("en", None)


@check("change_case:english_lowercase")
def english_lowercase(response: str) -> bool:
    return response.islower() and detect_language(response) in ("en", None)


@check("punctuation:no_comma")
def no_comma(response: str) -> bool:
    return "," not in response


def arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction from its row: those it needs, all of them there and of their type.

    Hubs store one schema for all instructions, so null, false, 0 and empty values mean "not given".
    Raises ValueError otherwise.
    """
    if name not in CHECKS:
        raise ValueError(f"unknown instruction {name!r}; known are {', '.join(CHECKS)}")
    required = CHECKS[name].required
    missing = [key for key in required if not given.get(key)]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(missing)}, got { ({k: v for k, v in given.items() if v}) }")
    found: dict[str, Any] = {}
    for key, kind in required.items():
        value: Any = given[key]
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # a column with nulls becomes floats on its way through some tables
        if not isinstance(value, kind):
            raise ValueError(f"{name}: {key} must be {kind.__name__}, got {value!r}")
        if key == "letter" and len(str(value).strip()) != 1:
            raise ValueError(f"{name}: letter must be one character, got {value!r}")
        found[key] = value
        if key in PATTERNS:
            _check_pattern(name, key, given[key])
    return found


def _check_pattern(name: str, key: str, patterns: str | list[str]) -> None:
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{name}: {key} is used as a regular expression and {pattern!r} is none: {error}"
            ) from None


def holds(name: str, response: str, given: Mapping[str, Any], splitter: Sentences | None) -> bool:
    """Whether a response follows an instruction. Raises Unscorable for a count of sentences without a splitter."""
    kind, args = CHECKS[name], arguments(name, given)
    if not kind.splits:
        return kind.holds(response, **args)
    if splitter is None:
        raise Unscorable(f"{name} needs Punkt's parameters (option punkt: FOLDER) or the option sentences: regex")
    return kind.holds(response, **args, splitter=splitter)
