"""apps/prepare as a user runs it."""

import runpy

import pytest

from workspace import ROOT


@pytest.fixture
def app():
    """The `main` of the app, in this process."""
    return runpy.run_path(str(ROOT / "apps/prepare"))["main"]


@pytest.fixture
def prepare(app, tmp_path, monkeypatch, capsys):
    """The app and a folder of its own: arguments to (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)

    def run(*arguments):
        try:
            status = app(list(arguments))
        except SystemExit as end:  # how argparse ends
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_a_text_is_prepared_listed_and_verified(prepare, tmp_path):
    (tmp_path / "numbers.txt").write_text("\n".join(map(str, range(2000))))
    status, table, said = prepare("text", "numbers.txt", "--tokenizer", "char")
    assert status == 0 and "char, 11 ids (uint16)" in table and "ready in data/numbers" in said
    assert prepare("text", "numbers.txt")[0] == 0, "what is there is opened, whatever it was made with"
    status, table, _ = prepare("verify", "numbers")
    assert status == 0 and "8,889 tokens are as recorded" in table

    shard = tmp_path / "data/numbers/train_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    status, table, said = prepare("verify", "numbers")
    assert (status, table) == (1, "") and "train_000000.bin" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["stdlb"], 2, "there is no dataset 'stdlb', expected one of stdlib"),
        (["verify"], 2, "verify NAME_OR_DIR"),
        (["nanogpt"], 2, "nanogpt DIR"),
        (["text", "missing.txt"], 1, "missing.txt: no such file or folder"),
        (["text", "empty.txt"], 1, "no text in"),
        (["text", "empty.txt", "--vocab_size", "0"], 1, "vocab_size is 0, expected at least 257"),
        (["text", "empty.txt", "--workers", "0"], 1, "workers is 0, expected at least 1"),
        (["verify", "missing"], 1, "has no dataset 'missing'"),
        (["shakespeare_char", "--text", "missing.txt"], 1, "missing.txt: no such file or folder"),
        (["text", "rows.jsonl"], 1, "has the columns id, body, none of text, content, document"),
        (["text", "rows.jsonl", "--text-field", "id"], 1, "'id' holds a number, not text"),
        (["text", "rows.jsonl", "--subset", "x"], 1, "text takes no subset (got 'x'); it takes text_field, val_one_in"),
        (["openwebtext", "--text", "missing.parquet"], 1, "missing.parquet: no such file. Give .parquet"),
        (["task_mixture", "--text", "empty.txt"], 1, "task_mixture takes one folder"),
        (["speedrun"], 2, "speedrun DIR"),
        (["speedrun", "nowhere"], 1, "nowhere: no such folder"),
        (["train-tokenizer", "empty.txt"], 2, "train-tokenizer FILE... --vocab-size N --out DIR"),
        (["text", "empty.txt", "--tokenizer", "gpt2", "--tokenizer", "byte"], 2, "--tokenizer is given more than once"),
        (["speedrun", "DIR", "--out", "X"], 2, "speedrun takes no --out"),
        (["nanogpt", "DIR", "--out", "X", "--force"], 2, "nanogpt takes no --out, --force"),
        (["verify", "x", "--force", "--tokenizer", "byte"], 2, "verify takes no --tokenizer, --force"),
        (["tokenizers", "x", "--vocab-size", "300"], 2, "tokenizers takes no --vocab-size"),
        (["--force"], 2, "the list of datasets takes no --force"),
        (
            ["train-tokenizer", "x", "--vocab-size", "300", "--out", "t", "--tokenizer", "char"],
            2,
            "train-tokenizer takes no --tokenizer",
        ),
        (["text", "one.txt", "--val-one-in", "5"], 1, "val_one_in is 5, but a single text is not held out by hash"),
        (["text", "one.txt", "--text-field", "body"], 1, "text_field is 'body', but there is no table"),
        (["tokenizers", "one.txt", "--tokenizer", "byte", "--text-field", "body"], 1, "there is no table"),
        (["hf", "repo", "--subset", "x"], 1, "subset is 'x', but the README of the folder lists no subsets"),
        (["hf", "repo", "--revision", "x"], 1, "revision is 'x', but nothing is downloaded"),
        (["fineweb10B", "--text", "repo", "--revision", "x"], 1, "revision is 'x', but nothing is downloaded"),
        (["hf", "repo", "--val-one-in", "5"], 1, "val_one_in is 5, but repo comes with its own validation split"),
        (["text", "empty.txt", "--tokenizer", "llama"], 1, "or the folder of a saved tokenizer"),
    ],
)
def test_mistakes_are_explained(prepare, tmp_path, arguments, status, message):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "body": "hello"}\n')
    (tmp_path / "one.txt").write_text("one text")
    (tmp_path / "repo").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "repo" / f"{split}.jsonl").write_text('{"text": "hello"}\n')
    got, table, said = prepare(*arguments)
    assert (got, table) == (status, "")
    assert message in said.splitlines()[-1]


def test_without_arguments_it_lists_the_datasets(prepare):
    status, table, _ = prepare()
    assert status == 0
    names = {"stdlib", "docs", "site-packages", "shakespeare", "text", "fineweb_edu", "fineweb10B", "openwebtext"}
    names |= {"slimpajama", "wikitext", "task_mixture", "hf", "nanogpt", "speedrun", "verify", "tokenizers"}
    assert names <= set(table.split())


def test_help_names_every_dataset_and_option(prepare):
    status, told, _ = prepare("--help")
    assert status == 0
    for word in ("fineweb_edu", "train-tokenizer", "--text-field", "--val-one-in", "--chunks", "--allow-missing"):
        assert word in "".join(told.split()), word  # argparse breaks lines at hyphens


def test_a_table_is_prepared_with_its_options(prepare, tmp_path):
    rows = "".join(f'{{"id": {i}, "body": "Row {i} of the table."}}\n' for i in range(200))
    (tmp_path / "rows.jsonl").write_text(rows)
    arguments = ("--text-field", "body", "--val_one_in", "8", "--tokenizer", "byte", "--out", "made")
    status, table, _ = prepare("text", "rows.jsonl", *arguments)
    assert status == 0 and "made: byte, 260 ids" in table
    counts = [int(line.split()[5]) for line in table.splitlines()[1:]]
    assert sum(counts) == 200 and counts[1] > 10


def test_a_tokenizer_is_trained_compared_and_used(prepare, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat with the hat. " * 200)
    (tmp_path / "b.jsonl").write_text('{"text": "the cat is a jsonl cat"}\n' * 50)
    status, table, _ = prepare("train-tokenizer", "a.txt", "b.jsonl", "--vocab-size", "280", "--out", "tok")
    assert status == 0 and "tok: bpe-280, 280 ids" in table
    status, table, _ = prepare("tokenizers", "a.txt", "b.jsonl", "--tokenizer", "byte", "--tokenizer", "tok")
    assert status == 0
    header, best, worst = table.splitlines()
    assert "bytes/token" in header and best.startswith("bpe-280") and worst.startswith("byte")
    assert prepare("text", "a.txt", "--tokenizer", "tok", "--out", "made")[0] == 0
    status, table, said = prepare("train-tokenizer", "a.txt", "--vocab-size", "280", "--out", "tok")
    assert status == 1 and "tok: exists already" in said


def test_a_trained_tokenizer_replaces_a_tokenizer_and_nothing_else(prepare, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat with the hat. " * 200)
    (tmp_path / "tok.tmp").mkdir()
    (tmp_path / "tok.tmp" / "mine.txt").write_text("years of work")
    train = ("train-tokenizer", "a.txt", "--vocab-size", "270", "--force", "--out")
    status, _, said = prepare(*train, "tok")
    assert status == 0 and "training the tokenizer on 0.0 MB" in said
    assert prepare(*train, "tok")[0] == 0 and sorted(p.name for p in tmp_path.glob("*tok*")) == ["tok", "tok.tmp"]
    (tmp_path / "tok" / "notes.txt").write_text("years of work")
    for out, message in (("tok", "tok: holds 'notes.txt'"), ("tok.tmp", "holds 'mine.txt'"), ("a.txt", "is a file")):
        status, _, said = prepare(*train, out)
        assert status == 1 and message in said.splitlines()[-1]
    assert (tmp_path / "tok" / "notes.txt").exists() and (tmp_path / "tok.tmp" / "mine.txt").exists()


@pytest.mark.parametrize(("arguments", "kept"), [(("text", "a.txt"), True), (("verify", "x"), False)])
def test_ctrl_c_tells_what_is_kept(app, prepare, monkeypatch, arguments, kept):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setitem(app.__globals__, "prepare" if kept else "open_dataset", stop)
    status, _, said = prepare(*arguments)
    assert status == 130 and "stopped" in said and ("finished parts are kept" in said) == kept


def test_ctrl_c_while_it_starts_shows_no_traceback(monkeypatch):
    """The first import of the app's own is stopped."""
    import builtins

    original = builtins.__import__

    def stop(name, *args, **kwargs):
        if name == "gpt_data":
            raise KeyboardInterrupt
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", stop)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "apps/prepare"))
    assert end.value.code == 130
