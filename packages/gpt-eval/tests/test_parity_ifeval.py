"""IFEval's 25 checks against those of lm-evaluation-harness, on random texts. Needs lm_eval, which is not declared.

    PYTHONPATH=packages/gpt-eval/src PYTHON_OF_LM_EVAL -m pytest -n0 packages/gpt-eval/tests/test_parity_ifeval.py

Both get the same splitter of sentences and words, so that no download is needed; the rest of theirs runs as it is.
"""

import logging
import random

import pytest

from gpt_eval.ifeval import CHECKS, RegexSentences, verify

SPLITTER = RegexSentences()
RELATIONS = ("less than", "at least")
PIECES = (
    *(
        "Hello",
        "world",
        " ",
        "\n",
        "\n\n",
        "*",
        "**",
        "***",
        "******",
        "****",
        "* *",
        '"',
        ",",
        ".",
        "! ",
        "?",
        "\t",
        "1",
    ),
    *("- item\n", "* item\n", "<<Title>>", "<<>>", "My answer is yes.", "P.S. x", "P.P.S foo", "p. s. ", "P.P.S."),
    *("[name]", "[]", "Section 1", "SECTION 2 ", '{"a": 1}', "```json\n", "```", "'quote'", "THE BIG", " B ", "banana"),
    *("the small cat is on the table", "Der Hund ist sehr groß", "end phrase", "*bold* text", "**very bold**"),
)


def arguments(rng: random.Random) -> dict[str, dict]:
    """One set of arguments for every instruction."""
    relation, few = rng.choice(RELATIONS), rng.randint(1, 4)
    paragraphs = rng.randint(1, 3)
    first = {"num_paragraphs": paragraphs, "nth_paragraph": rng.randint(1, paragraphs), "first_word": "hello"}
    return {
        "keywords:existence": {"keywords": rng.sample(["banana", "w.rld", "cat"], 2)},
        "keywords:frequency": {"keyword": rng.choice(["banana ", "the"]), "frequency": few, "relation": relation},
        "keywords:forbidden_words": {"forbidden_words": ["banana", "small"]},
        "keywords:letter_frequency": {"letter": rng.choice("aeB"), "let_frequency": few, "let_relation": relation},
        "language:response_language": {"language": rng.choice(["en", "de"])},
        "length_constraints:number_sentences": {"num_sentences": few, "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": few},
        "length_constraints:number_words": {"num_words": 3 * few, "relation": relation},
        "length_constraints:nth_paragraph_first_word": first,
        "detectable_content:number_placeholders": {"num_placeholders": few},
        "detectable_content:postscript": {"postscript_marker": rng.choice(["P.S.", "P.P.S", "banana"])},
        "detectable_format:number_bullet_lists": {"num_bullets": few},
        "detectable_format:constrained_response": {},
        "detectable_format:number_highlighted_sections": {"num_highlights": few},
        "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": few},
        "detectable_format:json_format": {},
        "detectable_format:title": {},
        "combination:two_responses": {},
        "combination:repeat_prompt": {"prompt_to_repeat": rng.choice(["hello", "the small cat"])},
        "startend:end_checker": {"end_phrase": rng.choice(["end phrase", "table "])},
        "startend:quotation": {},
        "change_case:capital_word_frequency": {"capital_frequency": few, "capital_relation": relation},
        "change_case:english_capital": {},
        "change_case:english_lowercase": {},
        "punctuation:no_comma": {},
    }


def response(rng: random.Random) -> str:
    """Pieces that the instructions look for, in some order; now and then in one case, in quotes, or all JSON."""
    text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 9)))
    return rng.choice(
        [text, text, text.upper(), text.lower(), f'"{text}"', '```json\n{"a": 1}\n```', f"Hello\n\n{text}"]
    )


@pytest.fixture(scope="module")
def theirs():
    """Their two graders; imports without their download of Punkt."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    nltk, langdetect = pytest.importorskip("nltk"), pytest.importorskip("langdetect")
    langdetect.DetectorFactory.seed = 0
    logging.disable(logging.CRITICAL)  # they log an error for every text without a language
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk, "download", lambda *_, **__: True)
        patch.setattr(nltk.data, "find", lambda *_, **__: "")
        from lm_eval.tasks.ifeval import instructions_registry, instructions_util, utils

        patch.setattr(instructions_util, "count_sentences", lambda text: len(SPLITTER.sentences(text)))
        patch.setattr(instructions_util.nltk, "word_tokenize", SPLITTER.words)
        assert set(instructions_registry.INSTRUCTION_DICT) == set(CHECKS)

        def grade(text: str, name: str, given: dict) -> tuple[bool, bool]:
            row = utils.InputExample(key=0, instruction_id_list=[name], prompt="", kwargs=[given])
            strict = utils.test_instruction_following_strict(row, text).follow_instruction_list
            return bool(strict[0]), bool(utils.test_instruction_following_loose(row, text).follow_instruction_list[0])

        yield grade
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", CHECKS)
def test_strict_and_loose_verdicts_are_theirs(theirs, name):
    rng = random.Random(name)
    seen = set()
    for _ in range(30 if "english" in name or "language" in name else 500):
        text, given = response(rng), arguments(rng)[name]
        verdict = verify(text, [name], [given], SPLITTER)
        expected = theirs(text, name, given)
        assert (verdict.strict[0], verdict.loose[0]) == expected, (given, text)
        seen.add(expected)
    assert {strict for strict, _ in seen} == {True, False}
