"""apps/prepare as a user runs it."""

import runpy

import pytest

from workspace import ROOT


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys):
    """The app in this process and a folder of its own: arguments to (exit status, stdout, stderr)."""
    app = runpy.run_path(str(ROOT / "apps/prepare/__main__.py"))["main"]
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
    ],
)
def test_mistakes_are_explained(prepare, tmp_path, arguments, status, message):
    (tmp_path / "empty.txt").touch()
    got, table, said = prepare(*arguments)
    assert (got, table) == (status, "")
    assert message in said.splitlines()[-1]


def test_without_arguments_it_lists_the_datasets(prepare):
    status, table, _ = prepare()
    assert status == 0
    assert {"stdlib", "shakespeare", "shakespeare_char", "text", "nanogpt", "verify"} <= set(table.split())
