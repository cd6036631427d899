"""The 25 instructions: each on texts that follow it and texts that just do not."""

import json
import math
import sys

import pytest

from gpt_eval.ifeval import CHECKS, PunktSentences, RegexSentences, check_instruction, loose_variants, verify
from gpt_eval.ifeval.checks import arguments
from gpt_eval.ifeval.language import detect_language
from gpt_eval.task import Record, Task
from gpt_eval.types import ifeval

PUNKT = {"abbrev_types.txt": "dr\nmr\n", "sent_starters.txt": "the\n", "collocations.tab": "", "ortho_context.tab": ""}
GERMAN = "Der Hund läuft über die Straße und bellt die Katze an, weil sie auf dem Zaun sitzt."
ENGLISH = "the dog runs across the street and barks at the cat because it sits on the fence"

CASES = [  # instruction, arguments, followed, not followed
    ("keywords:existence", {"keywords": ["sun", "m.on"]}, ["The SUN and the moon"], ["sun", "sun mon"]),
    ("keywords:frequency", {"keyword": " ab ", "frequency": 2, "relation": "at least"}, ["abAB"], ["ab"]),
    ("keywords:frequency", {"keyword": "ab", "frequency": 2, "relation": "less than"}, ["ab"], ["abab"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ["concatenate"], ["A Cat!"]),
    ("keywords:letter_frequency", {"letter": "A", "let_frequency": 2, "let_relation": "at least"}, ["aA"], ["a"]),
    ("language:response_language", {"language": "de"}, [GERMAN, "123"], [ENGLISH]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, ["One. Two."], ["Dr. No."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "a***b***"],
        ["a", "a\n***\n\n***\nb"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["a-b"], ["it's me"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Word"},
        ["a\n\nword, b", "a\n\n'\"WORD'x"],
        ["a\n\nwords", "a\n\n\n\nword", "word", "a\n\nword\n\nc"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]"], ["[a\nb] [c]", "[a]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\np. s. y", "P.S. y"], ["PS y", "p.s"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S y", "p. p. s"], ["P.S. y"]),
    ("detectable_content:postscript", {"postscript_marker": "NB:"}, ["a nb: b"], ["a NB b"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n  - b"], ["* a", "**a\n- b", "* a\n* b\n* c"]),
    (
        "detectable_format:constrained_response",
        {},
        ["So: My answer is maybe."],
        ["my answer is yes.", "My answer is yes"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "**a** *b*"],
        ["*a*", "** **"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1 a\nSection2 b"],
        ["Section 1", "Section one Section two", "section 1 section 2"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', "```json\n[1]\n```", "3"], ["{'a': 1}", "x {}"]),
    ("detectable_format:title", {}, ["<<a>>"], ["<< >>", "<<a\nb>>", "<a>"]),
    (
        "combination:two_responses",
        {},
        ["a ****** b", "******a******b"],
        ["a******a", "a******b******c", "a************b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": " Say it. "}, ["  say IT. yes"], ["I say it."]),
    ("startend:end_checker", {"end_phrase": "The end. "}, ['... the END."'], ["The end. no"]),
    ("startend:quotation", {}, [' "a" '], ['"', '"a', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["THE BIG dog", "A-B C"],
        ["THE big dog"],
    ),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper()]),
    ("change_case:english_lowercase", {}, [ENGLISH], [ENGLISH.upper(), GERMAN.lower()]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


@pytest.fixture(scope="module")
def punkt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nltk_data") / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name, text in PUNKT.items():
        (folder / name).write_text(text)
    return folder.parents[2]


def test_all_25_are_there_and_tried():
    assert len(CHECKS) == 25
    assert {name for name, *_ in CASES} == set(CHECKS)


@pytest.mark.parametrize("name, given, followed, not_followed", CASES, ids=[case[0] for case in CASES])
def test_instruction(name, given, followed, not_followed, punkt):
    splitter = PunktSentences(punkt)
    for text in followed:
        assert check_instruction(name, text, given, splitter) == (True, True), text
    for text in not_followed:
        assert check_instruction(name, text, given, splitter)[0] is False, text
    assert check_instruction(name, " \n", given, splitter) == (False, False)


def test_a_language_does_not_change_from_call_to_call():
    mixed = "der the und and la le"
    assert len({detect_language(mixed) for _ in range(20)}) == 1
    assert detect_language("12 34") is None


def test_punkt_knows_its_abbreviations_and_the_regex_does_not(punkt):
    text = "Dr. No met Mr. Bond. The end!"
    assert PunktSentences(punkt).sentences(text) == ["Dr. No met Mr. Bond.", "The end!"]
    assert len(RegexSentences().sentences(text)) == 4
    assert PunktSentences(punkt).words("It's TOP-NOTCH.") == ["It", "'s", "TOP-NOTCH", "."]
    with pytest.raises(ValueError, match=r"no Punkt parameters for English in .*punkt_tab"):
        PunktSentences(punkt / "nowhere")


def test_loose_variants_are_the_eight_without_blanks():
    text = "Sure!\n*body*\nBye."
    assert loose_variants(text) == [
        "Sure!\n*body*\nBye.",
        "*body*\nBye.",
        "Sure!\n*body*",
        "*body*",
        "Sure!\nbody\nBye.",
        "body\nBye.",
        "Sure!\nbody",
        "body",
    ]
    assert loose_variants("one line") == ["one line", "one line"]
    assert loose_variants("**") == ["**"]


def test_what_cannot_be_checked_is_left_out_whatever_the_response():
    given = {"num_sentences": 1, "relation": "at least"}
    for response in ("One.", "", " \n"):
        assert check_instruction("length_constraints:number_sentences", response, given, None) == (None, None)


def test_a_missing_langdetect_shows_before_anything_is_generated(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    row = {"prompt": "p", "instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}
    task = Task("ifeval", "ifeval", "ifeval.jsonl")
    with pytest.raises(ModuleNotFoundError, match=r"gpt-eval\[ifeval\]"):
        ifeval.make_items(task, [row], [0], None, "foundry")
    row["instruction_id_list"] = ["punctuation:no_comma"]
    assert len(ifeval.make_items(task, [row], [0], None, "foundry")) == 1


def test_loose_forgives_an_introduction_and_stars_strict_does_not():
    names, given = ["startend:quotation", "punctuation:no_comma"], [{}, {}]
    verdict = verify('Sure, here it is:\n"text"', names, given)
    assert verdict.strict == (False, False) and verdict.loose == (True, True)
    starred = verify('**"text"**', names, given)
    assert starred.strict == (False, True) and starred.loose == (True, True)


@pytest.mark.parametrize(
    "name, given, words",
    [
        ("keywords:frequency", {"keyword": "a", "relation": "at least"}, "needs frequency"),
        ("keywords:frequency", {"keyword": "a", "frequency": 0, "relation": "at least"}, "needs frequency"),
        ("length_constraints:number_words", {"num_words": "5", "relation": "at least"}, "must be int, got '5'"),
        ("keywords:existence", {"keywords": ["("]}, "regular expression"),
        ("startend:beginning", {}, "unknown instruction"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 2, "let_relation": "at least"},
            "one character, got 'ab'",
        ),
        (
            "keywords:letter_frequency",
            {"letter": " ", "let_frequency": 2, "let_relation": "at least"},
            "one character, got ' '",
        ),
    ],
)
def test_arguments_that_upstream_would_draw_at_random_are_errors(name, given, words):
    with pytest.raises(ValueError, match=words):
        arguments(name, given)


def test_a_marker_that_is_no_regular_expression_is_an_error_of_the_data():
    with pytest.raises(ValueError, match="postscript_marker is used as a regular expression"):
        arguments("detectable_content:postscript", {"postscript_marker": "(P.S."})


def test_other_relations_are_errors():
    given = {"num_words": 5, "relation": "at most"}
    with pytest.raises(ValueError, match='"less than" or "at least", got \'at most\''):
        verify("a b", ["length_constraints:number_words"], [given])


def test_arguments_of_other_instructions_and_whole_floats_are_tolerated():
    given = {"num_words": 5.0, "relation": "at least", "keyword": None, "frequency": None}
    assert arguments("length_constraints:number_words", given) == {"num_words": 5, "relation": "at least"}


def row(*pairs):
    return {"key": 1, "prompt": "Do it.", "instruction_id_list": [p[0] for p in pairs], "kwargs": [p[1] for p in pairs]}


ROWS = [
    row(("punctuation:no_comma", {}), ("startend:quotation", {})),
    row(("punctuation:no_comma", {})),
    row(("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"})),
]


def graded(task, rows, replies):
    items = ifeval.make_items(task, rows, range(len(rows)), None, "harness")
    assert items[0].prompt == ({"role": "user", "content": "Do it."},)
    assert items[0].generation.max_new_tokens == 1280 and items[0].generation.stops == ()
    return [ifeval.grade(task, item, [reply], "harness") for item, reply in zip(items, replies, strict=True)]


def test_the_four_metrics_and_what_is_left_out_without_punkt():
    task = Task("ifeval", "ifeval", "ifeval.jsonl")
    records = graded(task, ROWS, ['Sure, yes:\n"yes, no"', "fine", "One. Two."])
    found = ifeval.summarize(task, records)
    assert found["prompt_level_strict"] == 1 / 2 and found["inst_level_strict"] == 1 / 3
    assert found["prompt_level_loose"] == 1 / 2 and found["inst_level_loose"] == 2 / 3
    assert found["partial"] and found["n_unscored"] == 1 and found["sentence_splitter"] is None
    assert [record.correct for record in records[:2]] == [0.0, 1.0] and math.isnan(records[2].correct)
    assert "number_sentences" in records[2].unscored
    json.dumps(found)


def test_the_fallback_is_by_request_and_named(punkt):
    by_regex = Task("ifeval", "ifeval", "ifeval.jsonl", options={"sentences": "regex"})
    found = ifeval.summarize(by_regex, graded(by_regex, ROWS, ["a", "b", "One. Two."]))
    assert found["sentence_splitter"] == "regex" and found["partial"] and found["n_unscored"] == 0
    by_punkt = Task("ifeval", "ifeval", "ifeval.jsonl", options={"punkt": str(punkt)})
    found = ifeval.summarize(by_punkt, graded(by_punkt, ROWS, ["a", "b", "One. Two."]))
    assert found["sentence_splitter"] == "punkt" and not found["partial"]
    with pytest.raises(ValueError, match="regex"):
        graded(Task("ifeval", "ifeval", "f", options={"sentences": "spacy"}), ROWS, ["", "", ""])


def test_nothing_scorable_gives_no_score():
    task = Task("ifeval", "ifeval", "ifeval.jsonl")
    found = ifeval.summarize(task, graded(task, ROWS[2:], ["One."]))
    assert found["accuracy"] is None and found["prompt_level_strict"] is None


def test_rows_are_checked():
    task = Task("ifeval", "ifeval", "ifeval.jsonl")
    assert all(ifeval.check_row(each, task) is None for each in ROWS)
    assert "unknown instruction 'x:y'" in ifeval.check_row(row(("x:y", {})), task)
    assert "needs language" in ifeval.check_row(row(("language:response_language", {})), task)
    assert "prompt must be text" in ifeval.check_row(ROWS[0] | {"prompt": ""}, task)
    assert "one length" in ifeval.check_row(ROWS[0] | {"kwargs": []}, task)
    assert isinstance(graded(task, ROWS[1:2], ["x"])[0], Record)
