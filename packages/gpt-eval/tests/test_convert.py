"""Rows as the hubs have them, written by hand after their cards, become rows of the gauntlet that its types accept."""

import importlib

import pytest

from gpt_eval.data import convert
from gpt_eval.data.hub import HUB
from gpt_eval.suites.tables import builtin

LABELLED = {"text": ["one", "two", "three", "four", "five"], "label": ["A", "B", "C", "D", "E"]}
FOUR = {"text": ["one", "two", "three", "four"], "label": ["1", "2", "3", "4"]}
BIG = {
    "idx": 0,
    "inputs": "Q: which?\nA:",
    "targets": ["c"],
    "multiple_choice_targets": ["a", "b", "c", "d", "e"],
    "multiple_choice_scores": [0, 0, 1, 0, 0],
}

CASES = {
    convert.piqa: (
        {"goal": "How?", "sol1": "so", "sol2": "thus", "label": 1},
        {"query": "Question: How?\n", "choices": ["so", "thus"], "gold": 1},
    ),
    convert.siqa: (
        {"context": "C.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
        {"query": "Context: C.\nQuestion: Why?\nAnswer:", "choices": ["a", "c"], "gold": 1},
    ),
    convert.openbook_qa: (
        {"question_stem": "The sun", "choices": FOUR, "answerKey": "2 "},
        {"query": "The sun", "choices": FOUR["text"], "gold": 1},
    ),
    convert.commonsense_qa: (
        {"question": "Where? ", "choices": LABELLED, "answerKey": "E"},
        {
            "query": "Question: Where?\nChoices:\nA. one\nB. two\nC. three\nD. five\nAnswer:",
            "choices": ["A", "B", "C", "D"],
            "gold": 3,
        },
    ),
    convert.arc: (
        {"question": "Which?", "choices": FOUR, "answerKey": "4"},
        {"query": "Question: Which?", "choices": FOUR["text"], "gold": 3},
    ),
    convert.mmlu: (
        {"question": "Which?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "logic"},
        {
            "query": "Which?\nA. w\nB. x\nC. y\nD. z",
            "choices": ["A", "B", "C", "D"],
            "gold": 2,
            "category": "logic",
        },
    ),
    convert.copa: (
        {
            "premise": "The man turned on the faucet.",
            "choice1": "The toilet filled.",
            "choice2": "Water flowed.",
            "question": "effect",
            "label": 1,
        },
        {
            "query": "The man turned on the faucet, therefore",
            "choices": ["the toilet filled.", "water flowed."],
            "gold": 1,
        },
    ),
    convert.winograd: (
        {
            "text": "The city council refused because they feared violence.",
            "pronoun": "they",
            "pronoun_loc": 33,
            "options": ["The city council", "The demonstrators"],
            "label": 0,
        },
        {
            "context_options": [
                "The city council refused because the city council",
                "The city council refused because the demonstrators",
            ],
            "continuation": "feared violence.",
            "gold": 0,
        },
    ),
    convert.winogrande: (
        {"sentence": "Sarah beat Maria so _ won.", "option1": "Sarah", "option2": "Maria", "answer": "2"},
        {
            "context_options": ["Sarah beat Maria so Sarah", "Sarah beat Maria so Maria"],
            "continuation": "won.",
            "gold": 1,
        },
    ),
    convert.lambada: (
        {"text": "He cared about the signs"},
        {"context": "He cared about the", "continuation": "signs"},
    ),
    convert.squad: (
        {"context": "C.", "question": "Q?", "answers": {"text": ["a", "b"], "answer_start": [1, 2]}},
        {"context": "Context: C.\nQuestion: Q?\nAnswer:", "continuation": "a"},
    ),
    convert.triviaqa: (
        {"question": "Which?", "answer": {"value": "Onion", "aliases": ["Onion", "Onions"]}},
        {"context": "Question: Which?\nAnswer:", "answer": "Onion", "aliases": ["Onion", "Onions"]},
    ),
    convert.gsm8k: (
        {"question": "How many?", "answer": "2*500=<<2*500=1000>>1000\n#### 1,000"},
        {"context": "How many?", "chain_of_thought": "2*500=<<2*500=1000>>1000", "answer": "1000"},
    ),
    convert.math: (
        {"problem": "P", "solution": r"x \boxed{1} so \boxed{\frac{1}{2}}.", "type": "Counting & Probability"},
        {
            "context": "P",
            "answer": r"\frac{1}{2}",
            "chain_of_thought": r"x \boxed{1} so \boxed{\frac{1}{2}}.",
            "category": "counting_and_probability",
        },
    ),
    convert.svamp: (
        {"Body": "Tom has 3 pens.", "Question": "How many?", "Equation": "( 3 + 0.5 )", "Answer": "3.0"},
        {"context": "Tom has 3 pens. How many?", "chain_of_thought": "( 3 + 0.5 )", "answer": "3"},
    ),
    convert.logi_qa: (
        {"label": "b", "context": "C.", "question": "Q?", "options": ["A. w", "B. x", "C. y", "D. z"]},
        {
            "query": "Context: C.\nQuestion: Q?\nChoices: A. w\nB. x\nC. y\nD. z\n",
            "choices": ["A", "B", "C", "D"],
            "gold": 1,
        },
    ),
    convert.math_qa: (
        {"Problem": "p", "options": "a ) 38 , b ) 27,675 , c ) 30 , d ) data inadequate , e ) none", "correct": "a"},
        {
            "query": "Question: p\nA. 38\nB. 27,675\nC. 30\nD. data inadequate\nAnswer: ",
            "choices": ["A", "B", "C", "D"],
            "gold": 0,
        },
    ),
    convert.pubmed_qa: (
        {"QUESTION": "Q?", "CONTEXTS": ["x", "y"], "LABELS": ["BACKGROUND", "RESULTS"], "final_decision": "yes"},
        {
            "context": "Context: BACKGROUND. x\nRESULTS. y\nQuestion: Q?\nA. yes\nB. no\nC. maybe\nAnswer: ",
            "continuation": "yes",
        },
    ),
    convert.agi_eval: (
        {
            "query": "Passage: P. Q: Which? Answer Choices: (A)w (B)x (C)y (D)z (E)v\nA: Among A through E, it is",
            "choices": ["(A)w", "(B)x", "(C)y", "(D)z", "(E)v"],
            "gold": [4],
        },
        {
            "query": "Passage: P. \nQ: Which?\nChoices:\nA.) w\nB.) x\nC.) y\nD.) v\nAnswer:",
            "choices": ["A", "B", "C", "D"],
            "gold": 3,
        },
    ),
    convert.bigbench_choice: (BIG, {"query": BIG["inputs"], "choices": ["a", "b", "c", "d"], "gold": 2}),
    convert.bigbench_text: (BIG, {"context": BIG["inputs"], "continuation": "c"}),
    convert.winogender: (
        {
            "sentence": "The guide told the visitor that she was late.",
            "pronoun": "she",
            "occupation": "guide",
            "participant": "visitor",
            "label": 0,
        },
        {
            "query": 'Sentence: "The guide told the visitor that she was late."\n'
            'Q: Who does the pronoun "she" refer to in the previous sentence? A:',
            "choices": ["the guide", "the visitor"],
            "gold": 0,
        },
    ),
    convert.bbq: (
        {"context": "C.", "question": "Q?", "ans0": "a", "ans1": "b", "ans2": "c", "label": 0, "category": "Age"},
        {"query": "Context: C.\nQuestion: Q?\nAnswer:", "choices": ["a", "b"], "gold": 0, "category": "Age"},
    ),
    convert.human_eval: (
        {
            "task_id": "H/0",
            "prompt": "def f():",
            "canonical_solution": " pass",
            "test": "t",
            "entry_point": "f",
            "x": 1,
        },
        {
            "task_id": "H/0",
            "prompt": "def f():",
            "canonical_solution": " pass",
            "test": "t",
            "entry_point": "f",
            "language": "python",
        },
    ),
    convert.hellaswag: (
        {"activity_label": "L", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["w", "x", "y", "z"], "label": "2"},
        {"query": "L: A man sits. He", "choices": ["w", "x", "y", "z"], "gold": 2},
    ),
    convert.boolq: (
        {"passage": "P.", "question": "is it", "label": 0},
        {"query": "Passage: P.\nQuestion: is it?", "choices": ["no", "yes"], "gold": 0},
    ),
}


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_a_row_is_converted(function):
    given, expected = CASES[function]
    assert function(given) == [expected]


def test_a_conversation_becomes_a_row_per_question():
    row = {
        "story": "S.",
        "questions": {"input_text": ["Who?", "Where?"]},
        "answers": {"input_text": ["Ann", "here"]},
    }
    first, second = convert.coqa(row)
    assert first["continuation"] == "Ann" and first["context"].endswith("Story: S.\n\nQuestion: Who?\nAnswer:")
    assert second == {
        "context": first["context"] + " Ann\nQuestion: Where?\nAnswer:",
        "continuation": "here",
    }


def test_questions_with_another_number_of_answers_are_left_out_or_cut():
    three = {"question": "Which?", "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "C"}
    assert convert.arc(three) == []
    (cut,) = convert.arc({"question": "Which?", "choices": LABELLED, "answerKey": "E"})
    assert cut["choices"] == ["one", "two", "three", "five"] and cut["gold"] == 3
    assert convert.last_boxed("no box") == "" and convert.math({"solution": "", "type": "x", "problem": "p"}) == []


@pytest.mark.parametrize("name", HUB)
def test_every_task_of_the_hub_gets_rows_that_its_type_accepts(name):
    task = builtin()[name].task
    given = {**CASES.get(HUB[name].convert, ({},))[0]}
    if HUB[name].convert is convert.coqa:
        given = {"story": "S", "questions": {"input_text": ["Q"]}, "answers": {"input_text": ["A"]}}
    kind = importlib.import_module(f"gpt_eval.types.{task.type}")
    for row in HUB[name].convert(given):
        assert kind.check_row(row, task) is None
