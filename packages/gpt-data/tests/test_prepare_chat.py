"""The mixture of conversations: exact counts, the order of the `datasets` library, masks, bounded work, kill -9."""

import dataclasses
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from gpt_data import DatasetError, open_dataset, prepare
from gpt_data.chat import add_special_tokens, gsm8k, mmlu, render, smoltalk
from gpt_data.preparation import build_chat, mixture
from gpt_data.tokenizers import ByteTokenizer, CharTokenizer

COUNTS = {("smoltalk", "train"): 30, ("mmlu", "train"): 20, ("gsm8k", "train"): 12}
COUNTS |= {("smoltalk", "val"): 8, ("mmlu", "val"): 6, ("gsm8k", "val"): 5}


def talk(i):
    said = [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer é {i}."}]
    return {"messages": said if i % 10 else said[1:], "source": "test"}  # every tenth begins with the assistant


def choice(i):
    return {"question": f"What is {i}?", "choices": [f"{i}", "none"], "answer": 0, "subject": ""}


def problem(i):
    return {"question": f"Add {i}", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"}


ROWS = {
    "smoltalk/data/all/train-0.parquet": [talk(i) for i in range(60)],
    "smoltalk/data/all/train-1.parquet": [talk(i) for i in range(60, 75)],
    "smoltalk/data/all/test-0.parquet": [talk(i) for i in range(1000, 1012)],
    "mmlu/auxiliary_train/train-0.parquet": [{"train": choice(i)} for i in range(20)],
    "mmlu/all/validation-0.parquet": [choice(i) for i in range(100, 106)],
    "gsm8k/main/train-0.jsonl": [problem(i) for i in range(12)],
    "gsm8k/main/test-0.jsonl": [problem(i) for i in range(200, 205)],
}
SUBSETS = {
    "smoltalk": {"all": {"train": "data/all/train-*", "test": "data/all/test-*"}},
    "mmlu": {"auxiliary_train": {"train": "auxiliary_train/*"}, "all": {"validation": "all/validation-*"}},
    "gsm8k": {"main": {"train": "main/train-*", "test": "main/test-*"}},
}


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Small copies of the three repositories, and a mixture that wants as many rows as they have."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "copies"
    for name, rows in ROWS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, configs in SUBSETS.items():
        lines = ["---", "configs:"]
        for subset, splits in configs.items():
            lines += [f"- config_name: {subset}", "  data_files:"]
            lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
        (folder / name / "README.md").write_text("\n".join([*lines, "---", ""]))
    small = tuple(dataclasses.replace(w, count=COUNTS[w.name, w.side]) for w in mixture.MIXTURE)
    monkeypatch.setattr(mixture, "MIXTURE", small)
    monkeypatch.setattr(build_chat, "RUN_BYTES", 500)
    monkeypatch.setattr(build_chat, "SHARD_TOKENS", 900)
    monkeypatch.setattr(build_chat, "GATHERED_TOKENS", 200)
    return folder


def expected(side, template="chatml"):
    """The conversations of one split, made with the `datasets` library's own shuffles."""
    import datasets

    tokenizer = add_special_tokens(ByteTokenizer(), template)

    def rows(*names):
        return datasets.Dataset.from_list([{"row": json.dumps(row)} for name in names for row in ROWS[name]])

    train = side == "train"
    talks = rows(*(name for name in ROWS if name.startswith(f"smoltalk/data/all/{'train' if train else 'test'}")))
    talks = talks.shuffle(seed=42).select(range(COUNTS["smoltalk", side]))
    choices = rows("mmlu/auxiliary_train/train-0.parquet" if train else "mmlu/all/validation-0.parquet")
    problems = rows(f"gsm8k/main/{'train' if train else 'test'}-0.jsonl")
    parts = zip((talks, choices, problems), (smoltalk, mmlu, gsm8k), strict=True)
    everything = [(convert, json.loads(row["row"])) for part, convert in parts for row in part]
    order = datasets.Dataset.from_dict({"i": range(len(everything))}).shuffle(seed=42)["i"]
    found = []
    for convert, row in (everything[i] for i in order):
        try:
            found.append(render(convert(row), tokenizer, template))
        except ValueError:
            continue
    return found


def make(copies, out, **options):
    return prepare("task_mixture", [copies], tokenizer="byte", out=out, quiet=True, **options)


@pytest.mark.parametrize("template", ["chatml", "roles"])
def test_ids_and_masks_are_in_the_order_of_the_datasets_library(copies, tmp_path, template):
    info = make(copies, tmp_path / "out", template=template)
    for side in ("train", "val"):
        rendered = expected(side, template)
        ids, mask = np.concatenate([r.ids for r in rendered]), np.concatenate([r.mask for r in rendered])
        assert np.array_equal(info.stream(side).read(0, len(ids)), ids) and info.splits[side].tokens == len(ids)
        assert np.array_equal(info.mask_stream(side).read(0, len(ids)), mask) and 0 < mask.sum() < len(mask)
        assert info.splits[side].documents == len(rendered)
    tokenizer = info.load_tokenizer()
    assert info.boundary.id == tokenizer.special_tokens["<|bos|>"] and info.boundary.at == "start"
    assert tokenizer.template == template == info.options["template"]
    assert len(info.splits["train"].shards) > 2
    info.verify()
    assert open_dataset(info.path) == info


def test_the_numbers_are_those_of_the_specification():
    counts = {(wanted.name, wanted.side): wanted.count for wanted in mixture.MIXTURE}
    assert sum(count for (_, side), count in counts.items() if side == "train") == 567_315
    assert sum(count for (_, side), count in counts.items() if side == "val") == 7_850


def test_counts_are_recorded_for_every_task(copies, tmp_path):
    info = make(copies, tmp_path / "out")
    tasks = {(task["name"], task["split"]): task for task in info.source["tasks"]}
    assert {key: task["rows"] for key, task in tasks.items()} == COUNTS
    for side in ("train", "val"):
        chosen = [task for (_, split), task in tasks.items() if split == side]
        assert sum(task["tokens"] for task in chosen) == info.splits[side].tokens
        assert sum(task["conversations"] for task in chosen) == info.splits[side].documents
    malformed = sum(task["malformed"] for task in tasks.values())
    assert info.source["left_out"] == {"malformed": malformed} and malformed > 0
    assert tasks["gsm8k", "val"]["conversations"] == 5 and info.options["val_from"] == "test"
    facts = [json.loads(line) for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert len(facts) == len(ROWS)


def test_bytes_are_what_the_messages_say(copies, tmp_path):
    info = make(copies, tmp_path / "out")
    texts = [f"Add {i}It is {i}+1{i + 1}{i + 1}.\n#### {i + 1}" for i in range(200, 205)]
    conversations = [mmlu(row) for row in ROWS["mmlu/all/validation-0.parquet"]]
    size = sum(len(text.encode()) for text in texts)
    size += sum(len(m["content"].encode()) for c in conversations for m in c["messages"])
    order = np.random.default_rng(42).permutation(12)[:8]
    talks = [talk(1000 + i)["messages"] for i in order.tolist()]
    size += sum(len(m["content"].encode()) for messages in talks if len(messages) == 2 for m in messages)
    assert info.splits["val"].bytes == size


def test_the_digest_does_not_depend_on_the_threads(copies, tmp_path):
    assert len({make(copies, tmp_path / str(n), workers=n).digest for n in (1, 2, 4)}) == 1


def test_gsm8ks_test_rows_can_be_left_alone(copies, tmp_path):
    info = make(copies, tmp_path / "out", val_from="train")
    tasks = {(task["name"], task["split"]): task["rows"] for task in info.source["tasks"]}
    assert (tasks["gsm8k", "train"], tasks["gsm8k", "val"]) == (11, 1)
    files = [json.loads(line)["document"] for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert not any("gsm8k/test" in file for file in files) and info.options["val_from"] == "train"
    tokenizer = info.load_tokenizer()
    texts = {side: tokenizer.decode(info.stream(side).read(0, len(info.stream(side))).tolist()) for side in info.splits}
    assert not any(f"Add {i}" in texts["val"] for i in range(200, 205))
    both = [sum(f"Add {i}<" in texts[side] for side in texts) for i in range(12)]
    assert both == [1] * 12


def test_a_missing_task_is_an_error_unless_it_is_allowed(copies, tmp_path):
    os.rename(copies / "mmlu", copies / "gone")
    with pytest.raises(DatasetError, match=r"mmlu: is missing.*hf download cais/mmlu.*--allow-missing"):
        make(copies, tmp_path / "out")
    info = make(copies, tmp_path / "out", allow_missing=True)
    assert info.source["missing"] == ["mmlu (train)", "mmlu (val)"] and info.options["allow_missing"] is True


def test_too_few_rows_are_an_error_unless_it_is_allowed(copies, tmp_path):
    (copies / "gsm8k/main/test-0.jsonl").write_text(json.dumps(problem(1)) + "\n")
    with pytest.raises(DatasetError, match=r"openai/gsm8k \(main, test\): has 1 rows, 5 are wanted"):
        make(copies, tmp_path / "out")
    info = make(copies, tmp_path / "out", allow_missing=True)
    assert info.source["tasks"][-1]["rows"] == 1 and info.source["missing"] == ["gsm8k (val): 4 of 5 rows"]
    (copies / "gsm8k/main/test-0.jsonl").write_text("")
    assert make(copies, tmp_path / "none", allow_missing=True).source["missing"] == ["gsm8k (val)"]


def test_a_task_without_any_conversation_is_an_error_that_says_why(copies, tmp_path):
    rows = [{"query": problem(i)["question"], "answer": problem(i)["answer"]} for i in range(12)]
    (copies / "gsm8k/main/train-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = r"gsm8k \(train\): none of 12 rows is a conversation: .*train-0\.jsonl: this row needs a text 'question'"
    for allow in (False, True):
        with pytest.raises(DatasetError, match=message):
            make(copies, tmp_path / "out", allow_missing=allow)
    assert not (tmp_path / "out").exists()


def test_malformed_rows_are_said_for_every_task(copies, tmp_path, capsys):
    info = prepare("task_mixture", [copies], tokenizer="byte", out=tmp_path / "out")
    said = capsys.readouterr().err
    for task in info.source["tasks"]:
        line = f"{task['name']} ({task['split']}): {task['malformed']} of {task['rows']} rows are malformed"
        assert (line in said) == (task["malformed"] > 0)
    assert "malformed" in said


def test_what_the_tokenizer_cannot_write_is_no_malformed_row(copies, tmp_path):
    CharTokenizer.train(["Question Answer 0123456789"], eot=True).save(tmp_path / "letters")
    with pytest.raises(DatasetError, match=r"cannot be written in tokens: .* is not in this vocabulary"):
        prepare("task_mixture", [copies], tokenizer=str(tmp_path / "letters"), out=tmp_path / "out", quiet=True)


def test_half_a_surrogate_pair_is_a_malformed_row(copies, tmp_path):
    rows = [problem(i) for i in range(12)]
    rows[3]["question"] = "\ud83e"
    (copies / "gsm8k/main/train-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = {(task["name"], task["split"]): task for task in make(copies, tmp_path / "out").source["tasks"]}
    assert (tasks["gsm8k", "train"]["conversations"], tasks["gsm8k", "train"]["malformed"]) == (11, 1)


def test_tables_without_rows_are_passed_over(copies, tmp_path):
    expected = make(copies, tmp_path / "before").digest
    schema = pyarrow.parquet.read_schema(copies / "smoltalk/data/all/train-0.parquet")
    with pyarrow.parquet.ParquetWriter(copies / "smoltalk/data/all/train-00.parquet", schema):
        pass
    (copies / "gsm8k/main/train-00.jsonl").write_text("")
    assert make(copies, tmp_path / "after").digest == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "alpaca"}, "no chat template 'alpaca', expected one of chatml, roles"),
        ({"val_from": "mmlu"}, "val_from is 'mmlu', expected one of test, train"),
        ({"tokenizer": "bpe"}, "tokenizer is 'bpe', which is made from texts; expected gpt2, byte"),
    ],
)
def test_wrong_choices_are_explained(copies, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare("task_mixture", [copies], **{"tokenizer": "byte", "out": tmp_path / "out", "quiet": True, **options})


def test_killed_in_either_pass_it_ends_with_the_same_bytes(copies, tmp_path, monkeypatch):
    """An exception at every 3rd rename stands for the kill: nothing of the run gets to clean up after it."""

    class Killed(BaseException):
        pass

    expected = {p.name: p.read_bytes() for p in make(copies, tmp_path / "straight").path.glob("*.bin")}
    real, kills, moment = os.replace, 0, 2
    while True:
        calls = 0

        def mortal(source, target, moment=moment):
            nonlocal calls
            calls += 1
            if calls == moment:
                raise Killed
            return real(source, target)

        monkeypatch.setattr(os, "replace", mortal)
        try:
            info = make(copies, tmp_path / "killed", workers=1)
            break
        except Killed:
            kills, moment = kills + 1, moment + 3
    assert kills >= 5
    assert {p.name: p.read_bytes() for p in info.path.glob("*.bin")} == expected
