"""Rows of SmolTalk, MMLU and GSM8K as conversations (spec/scaling_midtrain_chat §4d)."""

import pytest

from gpt_data.chat import add_special_tokens, gsm8k, mmlu, render, smoltalk
from gpt_data.tokenizers import ByteTokenizer

CLIPS = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many?",
    "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nTogether 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
CELL = {"question": "What makes energy?", "subject": "biology", "choices": ["wall", "mitochondria"], "answer": 1}


def exchange(made):
    asked, answered = made["messages"]
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    return asked["content"], answered["content"]


def test_gsm8k_has_seven_parts():
    asked, answered = exchange(gsm8k(CLIPS))
    assert asked == CLIPS["question"]
    assert [(part["type"], part["text"]) for part in answered] == [
        ("text", "In May she sold 48/2 = "),
        ("python", "48/2"),
        ("output", "24"),
        ("text", "24 clips.\nTogether 48+24 = "),
        ("python", "48+24"),
        ("output", "72"),
        ("text", "72 clips.\n#### 72"),
    ]


def test_what_the_tool_answers_is_not_learned():
    tokenizer = add_special_tokens(ByteTokenizer(), "chatml")
    rendered = render(gsm8k(CLIPS), tokenizer)
    begin, end = (tokenizer.special_tokens[f"<|output_{side}|>"] for side in ("start", "end"))
    ids = rendered.ids.tolist()
    assert ids.count(begin) == 2
    at = 0
    for _ in range(2):
        at = ids.index(begin, at)
        stop = ids.index(end, at)
        assert not rendered.mask[at : stop + 1].any() and rendered.mask[stop + 1] and rendered.mask[at - 1]
        at = stop
    assert "#### 72<|im_end|>" in tokenizer.decode([i for i, m in zip(ids, rendered.mask, strict=True) if m])


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("x", ["text x"]),
        ("<<1+1=2>>2", ["python 1+1", "output 2", "text 2"]),
        ("<<a=b=c>><<5>>", ["python a=b", "output c", "python 5"]),
    ],
)
def test_gsm8k_calculations_are_cut_at_the_last_equals_sign(answer, parts):
    made = exchange(gsm8k({"question": "?", "answer": answer}))[1]
    assert [f"{part['type']} {part['text']}" for part in made] == parts


def test_mmlu_has_the_letter_after_the_choice_and_answers_with_it():
    asked, answered = exchange(mmlu(CELL))
    lines = asked.split("\n")
    assert lines[:4] == ["Multiple Choice question: What makes energy?", "- wall=A", "- mitochondria=B", ""]
    assert lines[4:] == ["Respond only with the letter of the correct answer."] and answered == "B"
    assert mmlu({"train": CELL}) == mmlu(CELL), "auxiliary_train on the hub"


def test_mmlu_as_it_was():
    assert exchange(mmlu(CELL, style="legacy")) == (
        "Subject: biology\n\nWhat makes energy?\n\nA. wall\nB. mitochondria",
        "B : mitochondria",
    )
    assert exchange(mmlu({**CELL, "subject": ""}, style="legacy"))[0].startswith("What makes")


def test_smoltalk_is_taken_as_it_is():
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert smoltalk({"messages": messages, "source": "x"}) == {"messages": messages}


@pytest.mark.parametrize(
    ("convert", "row", "problem"),
    [
        (smoltalk, {"messages": [{"role": "user", "content": "a"}]}, "the assistant says nothing"),
        (
            smoltalk,
            {"messages": [{"role": "user", "content": "a"}] * 2},
            "message 1 is of 'user', expected 'assistant'",
        ),
        (smoltalk, {"text": "a"}, "a conversation is"),
        (gsm8k, {"question": "a"}, "needs a text 'answer', got None"),
        (gsm8k, {"question": " ", "answer": "b"}, "needs a text 'question', got ' '"),
        (mmlu, {**CELL, "answer": 2}, "must be the number of one of 2 choices, got 2"),
        (mmlu, {**CELL, "answer": "B"}, "must be the number of one of 2 choices, got 'B'"),
        (mmlu, {**CELL, "choices": ["one"]}, "needs 2 to 10 choices"),
        (mmlu, {**CELL, "choices": "one, two"}, "needs 2 to 10 choices"),
        (mmlu, {"train": None}, "needs a text 'question', got None"),
    ],
)
def test_a_malformed_row_is_explained(convert, row, problem):
    with pytest.raises(ValueError, match=problem):
        convert(row)


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="style is 'bare', expected 'letter' or 'legacy'"):
        mmlu(CELL, style="bare")
