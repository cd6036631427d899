"""Strict loading: every fault of a file is named with its file and line."""

import json

import pytest

from gpt_eval import BundleError, EvaluationError, Task
from gpt_eval.data.bundle import Bundle
from gpt_eval.data.index import parse_entry, read_index

GOOD = {"query": "Who?", "choices": ["a", "b"], "gold": 1}
PICK = Task(name="pick", type="multiple_choice", file="pick.jsonl")
SAY = Task(name="say", type="language_modeling", file="say.jsonl")
CHOOSE = Task(name="choose", type="schema", file="choose.jsonl")
TELL = Task(name="tell", type="generation", file="tell.jsonl")


def write(folder, task, *lines):
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / task.file).write_bytes(b"\n".join(data) + b"\n")
    return Bundle(folder)


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        (PICK, GOOD | {"gold": 2}, r"gold is 2, expected 0\.\.1"),
        (PICK, GOOD | {"gold": -1}, r"gold is -1, expected 0\.\.1"),
        (PICK, GOOD | {"gold": "1"}, r"gold is '1' \(str\), expected a whole number"),
        (PICK, GOOD | {"gold": True}, r"gold is True \(bool\), expected a whole number"),
        (PICK, GOOD | {"gold": 1.0}, r"gold is 1.0 \(float\)"),
        (PICK, GOOD | {"choices": ["a", "b", "c"]}, r"choices has 3 entries, the first row has 2"),
        (PICK, GOOD | {"choices": ["a", " "]}, r"choices\[1\] is empty"),
        (PICK, GOOD | {"choices": ["a", 3]}, r"choices\[1\] is 3 \(int\), expected a string"),
        (PICK, GOOD | {"choices": ["a"], "gold": 0}, r"choices has 1 entries, expected at least 2"),
        (PICK, GOOD | {"choices": "ab"}, r"choices is 'ab' \(str\), expected a list"),
        (PICK, {"query": "Who?", "gold": 0}, r"no field 'choices'; got 'query', 'gold'"),
        (PICK, GOOD | {"query": "a\0b"}, r"query has a NUL character at 1"),
        (PICK, b'{"query": "\\ud800", "choices": ["a", "b"], "gold": 0}', r"query has half of a surrogate pair"),
        (PICK, b'{"query": "Who?", "choices": ["a", "b"], "gold": 0, "gold": 1}', r"the key 'gold' comes twice"),
        (PICK, b'{"query": "Who?", "choices": ["a", "b"], "gold": NaN}', r"NaN is not JSON"),
        (PICK, b'{"query": "Who?"', r"not JSON, .* at column"),
        (PICK, b'["query"]', r"got list, expected a JSON object"),
        (PICK, b"", r"an empty line"),
        (PICK, b'{"query": "\xff"}', r"byte 11 is not UTF-8"),
        (PICK, b"[" * 100_000, r"nested too deeply|not JSON"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(tmp_path, task, line, message):
    bundle = write(tmp_path, task, GOOD, GOOD, line, GOOD)
    with pytest.raises(BundleError, match=rf"pick\.jsonl:3: .*{message}"):
        bundle.rows(task)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (SAY, {"context": "a", "continuation": " "}, "continuation is empty"),
        (SAY, {"context": None, "continuation": "b"}, r"context is None \(NoneType\), expected a string"),
        (CHOOSE, {"context_options": ["a", "b"], "continuation": "", "gold": 0}, "continuation is empty"),
        (CHOOSE, {"context_options": ["a", "b"], "continuation": "c", "gold": 2}, r"gold is 2, expected 0\.\.1"),
        (TELL, {"context": "a", "answer": ""}, "answer is empty"),
        (TELL, {"context": "a", "answer": 3}, r"answer is 3 \(int\)"),
        (TELL, {"context": "a", "answer": "b", "aliases": "b"}, r"aliases is 'b' \(str\), expected a list"),
        (TELL, {"context": "a", "answer": "b", "aliases": [1]}, "aliases has an entry that is not a string"),
    ],
)
def test_every_type_checks_its_rows(tmp_path, task, row, message):
    with pytest.raises(BundleError, match=rf"{task.file}:1: {message}"):
        write(tmp_path, task, row).rows(task)


def test_any_order_of_keys_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    lines = b'\xef\xbb\xbf{"gold": 1, "choices": ["a", "b\xe2\x80\xa8c"], "query": ""}\r\n' + json.dumps(GOOD).encode()
    bundle = write(tmp_path, PICK, lines + b"\n\n")
    assert bundle.rows(PICK) == [{"gold": 1, "choices": ["a", "b\u2028c"], "query": ""}, GOOD]


def test_an_empty_file_a_missing_one_and_a_missing_folder(tmp_path):
    (tmp_path / "pick.jsonl").write_text("\n")
    with pytest.raises(BundleError, match=r"pick.jsonl: no rows"):
        Bundle(tmp_path).rows(PICK)
    with pytest.raises(BundleError, match=r"say.jsonl: No such file.*apps/evaluate fetch"):
        Bundle(tmp_path).rows(SAY)
    with pytest.raises(BundleError, match=r"nowhere: no such folder"):
        Bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"expected a path inside the bundle"):
        Bundle(tmp_path).rows(Task(name="x", type="multiple_choice", file="../x.jsonl"))


def test_rows_may_have_different_numbers_of_choices_where_the_index_says_so(tmp_path):
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl", options={"variable_choices": True})
    assert len(write(tmp_path, task, GOOD, GOOD | {"choices": ["a", "b", "c"]}).rows(task)) == 2


def test_a_stale_index_is_refused(tmp_path):
    bundle = write(tmp_path, PICK, GOOD)
    digest = bundle.sha256(PICK)
    entry = 'tasks:\n  - {name: pick, file: pick.jsonl, type: mc, sha256: "%s", rows: %d}\n'
    (tmp_path / "index.yaml").write_text(entry % (digest, 1))
    assert Bundle(tmp_path).rows(PICK) == [GOOD]
    (tmp_path / "index.yaml").write_text(entry % (digest, 2))
    with pytest.raises(BundleError, match=r"1 rows, index.yaml says 2; the index is stale"):
        Bundle(tmp_path).rows(PICK)
    (tmp_path / "index.yaml").write_text(entry % ("0" * 64, 1))
    with pytest.raises(BundleError, match=rf"sha256 is {digest}, index.yaml says 000.*has changed"):
        Bundle(tmp_path).rows(PICK)
    with pytest.raises(BundleError, match=r"sha256"):
        Bundle(tmp_path).sha256(PICK)


def test_what_any_entry_says_of_a_file_must_be_right(tmp_path):
    write(tmp_path, PICK, GOOD)
    entry = "  - {name: %s, file: %s, type: mc%s}\n"
    stale = entry % ("pick", "./pick.jsonl", ', sha256: "%s"' % ("0" * 64))
    (tmp_path / "index.yaml").write_text("tasks:\n" + stale + entry % ("again", "pick.jsonl", ""))
    with pytest.raises(BundleError, match=r"has changed since it was indexed"):
        Bundle(tmp_path).rows(PICK)


def test_a_number_of_thousands_of_digits_is_named(tmp_path):
    (tmp_path / "pick.jsonl").write_text('{"query": "a", "choices": ["x", "y"], "gold": ' + "9" * 5000 + "}")
    with pytest.raises(BundleError, match=r"pick.jsonl:1: Exceeds the limit"):
        Bundle(tmp_path).rows(PICK)


@pytest.mark.parametrize("wrong", [{"baseline": 25}, {"baseline": 1.0}, {"num_fewshot": -1}, {"num_fewshot": 2.0}])
def test_a_task_with_impossible_numbers_is_refused_when_it_is_made(wrong):
    with pytest.raises(EvaluationError, match=f"{next(iter(wrong))} is"):
        Task(name="t", type="multiple_choice", file="t.jsonl", **wrong)


def test_an_index_gives_settings_in_its_own_words_and_in_notes(tmp_path):
    entry = parse_entry(
        {
            "name": "sums",
            "file": "a/sums.jsonl",
            "type": "gen",
            "shots": 8,
            "delim": "\nA: ",
            "base": 0,
            "tier": "v0.2",
            "core22": False,
            "prelimiter": "Q: ",
            "notes": 'cot_delimiter: " #### ", normalize: false, stop: ["\\n"], has_categories: true',
        },
        "here",
    )
    expected = Task(
        name="sums",
        type="generation",
        file="a/sums.jsonl",
        num_fewshot=8,
        continuation_delimiter="\nA: ",
        prelimiter="Q: ",
        has_categories=True,
        baseline=0,
        options={"cot_delimiter": " #### ", "normalize": False, "stops": ["\n"]},
    )
    assert entry.task == expected
    prose = parse_entry({"name": "x", "file": "x", "type": "lm", "notes": "smoke test: {"}, "here")
    assert prose.task == Task(name="x", type="language_modeling", file="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shotz": 3}, "no key 'shotz'; did you mean 'shots'"),
        ({"shots": "3"}, "num_fewshot is '3', expected"),
        ({"shots": -1}, "shots is -1"),
        ({"base": 25}, "base is 25, expected a fraction"),
        ({"file": None}, "no 'file'"),
        ({"has_categories": 1}, "has_categories is 1"),
        ({"sha256": 12}, "sha256 is 12, expected 64 hexadecimal digits"),
        ({"hub": {"dataset": "me/x"}}, "hub is .* expected"),
        ({"rows": "all"}, "rows is 'all', expected a number"),
    ],
)
def test_a_wrong_entry_is_named(change, message):
    values = {"name": "x", "file": "x.jsonl", "type": "mc"} | change
    with pytest.raises(BundleError, match=rf"here \(x\): {message}"):
        parse_entry(values, "here")


def test_a_wrong_index_is_named(tmp_path):
    path = tmp_path / "index.yaml"
    for text, message in [
        ("tasks: [", "cannot be read as YAML"),
        ("jobs: []", "expected `tasks:`"),
        ("tasks:\n  - {name: a, file: a, type: mc}\n  - {name: a, file: b, type: mc}\n", "entry 2: a is there twice"),
    ]:
        path.write_text(text)
        with pytest.raises(BundleError, match=message):
            read_index(path)
