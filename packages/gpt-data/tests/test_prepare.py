"""Preparing: the ids are the text, the counts are exact, the folder appears whole, and the digest never varies."""

import hashlib
import importlib
import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from gpt_data import DatasetError, describe_nanogpt, open_dataset, prepare, random_windows
from gpt_data.preparation import RECIPES
from gpt_data.preparation import recipes as recipes_module
from gpt_data.preparation.progress import Progress

build_text = importlib.import_module("gpt_data.preparation.build_text")


@pytest.fixture
def texts(tmp_path):
    """A folder of 60 small documents, one a duplicate, one empty, one binary, one hidden."""
    folder = tmp_path / "texts"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".git").mkdir()
    for i in range(57):
        place = folder / ("deep/er" if i % 3 else ".")
        (place / f"{i:02}.txt").write_text(f"Document {i}\nhas é {i * i} words.\n\n" * (i + 1), encoding="utf-8")
    (folder / "copy.txt").write_bytes((folder / "00.txt").read_bytes())
    (folder / "empty.txt").touch()
    (folder / "image.bin").write_bytes(b"\x89PNG\0\xff")
    (folder / ".git" / "config").write_text("hidden")
    (folder / ".hidden").write_text("hidden")
    return folder


def documents_of(info, split):
    """The texts of a split, from its ids."""
    stream, tokenizer = info.stream(split), info.load_tokenizer()
    ids = np.empty(len(stream), stream.dtype)
    stream.read_into(ids, 0)
    ends = np.flatnonzero(ids == tokenizer.eot_id)
    assert ends[-1] == len(ids) - 1
    return [tokenizer.decode(part[:-1].tolist()) for part in np.split(ids, ends[:-1] + 1)]


@pytest.mark.parametrize("tokenizer", ["bpe", "char", "byte"])
def test_every_document_is_there_once_and_counted(texts, tmp_path, tokenizer):
    vocab_size = 300 if tokenizer == "bpe" else None
    info = prepare(
        "text", [texts], tokenizer=tokenizer, vocab_size=vocab_size, root=tmp_path / "data", shard_bytes=5000
    )
    assert info.path == tmp_path / "data" / "texts" and info.name == "texts"
    found = {split: documents_of(info, split) for split in ("train", "val")}
    distinct = {path.read_text(encoding="utf-8") for path in texts.rglob("??.txt")}
    assert sorted(found["train"] + found["val"]) == sorted(distinct)
    for split, documents in found.items():
        assert info.splits[split].documents == len(documents) > 0
        assert info.splits[split].bytes == sum(len(text.encode()) for text in documents)
    assert len(info.splits["train"].shards) > 5
    assert info.source["left_out"] == {"duplicate": 1, "empty": 1, "not_text": 1}
    assert info.options == {"tokenizer": tokenizer, "vocab_size": vocab_size}
    info.verify()
    assert open_dataset("texts", tmp_path / "data") == info
    assert sorted(os.listdir(tmp_path / "data")) == [".texts.lock", "texts"]


def test_sources_are_recorded(texts, tmp_path):
    info = prepare("text", [texts], tokenizer="byte", root=tmp_path / "data")
    lines = [json.loads(line) for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert len(lines) == info.source["documents"] == 57
    for line in lines:
        content = (texts.parent / line["document"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(content).hexdigest() and line["bytes"] == len(content)


def test_the_digest_depends_on_text_and_options_only(texts, tmp_path):
    def digest(place, **options):
        info = prepare("text", [texts], root=tmp_path / place, shard_bytes=9000, quiet=True, **options)
        return info.digest, (info.path / "tokenizer" / "gpt_tokenizer.json").read_text()

    first = digest("a", vocab_size=300, workers=1)
    assert digest("b", vocab_size=300, workers=4) == first
    assert digest("c", vocab_size=310)[0] != first[0]
    (texts / "00.txt").write_text("another text")
    assert digest("d", vocab_size=300)[0] != first[0]


def test_a_trained_tokenizer_never_sees_the_validation_text(texts, tmp_path, monkeypatch):
    from gpt_data.tokenizers import BPETokenizer

    seen = []
    train = BPETokenizer.train
    monkeypatch.setattr(BPETokenizer, "train", lambda t, size: train((seen.append(x) or x for x in t), size))
    info = prepare("text", [texts], vocab_size=300, root=tmp_path / "data")
    assert sorted(seen) == sorted(documents_of(info, "train"))


def test_one_text_is_continuous_and_cut_by_characters(tmp_path):
    text = "To be, or not to be: that is the question.\nWhether 'tis nobler\n" * 300
    (tmp_path / "hamlet.txt").write_text(text)
    info = prepare("shakespeare_char", [tmp_path / "hamlet.txt"], root=tmp_path / "data")
    assert (info.name, info.tokenizer) == ("shakespeare_char", "char")
    assert info.vocab_size == len(set(text)) and info.load_tokenizer().eot_id is None
    assert info.source["description"] == "text: hamlet.txt"
    cut = int(len(text) * 0.9)
    assert info.splits["train"].tokens == cut and info.splits["val"].tokens == len(text) - cut
    batch = next(random_windows("shakespeare_char", 32, 4, data_root=tmp_path / "data").val)
    assert info.load_tokenizer().decode(batch.inputs[0].tolist()) in text[cut:]


def test_large_vocabularies_are_stored_in_32_bits(tmp_path):
    text = "".join(map(chr, range(0x20000, 0x20000 + 66_000)))
    (tmp_path / "wide.txt").write_text(text, encoding="utf-8")
    info = prepare("text", [tmp_path / "wide.txt"], tokenizer="char", root=tmp_path / "data")
    assert (info.dtype, info.vocab_size) == ("uint32", 66_000)
    info.verify()


def test_what_exists_is_opened_and_never_silently_something_else(texts, tmp_path, capsys):
    root = tmp_path / "data"
    made = prepare("text", [texts], tokenizer="byte", root=root)
    capsys.readouterr()
    assert prepare("text", [texts], root=root) == made
    assert "already, made from text: texts" in capsys.readouterr().err
    with pytest.raises(DatasetError, match=r"was prepared with tokenizer = 'byte', not 'bpe'\. .*--out.*--force"):
        prepare("text", [texts], tokenizer="bpe", root=root)
    replaced = prepare("text", [texts], tokenizer="char", root=root, force=True)
    assert replaced.tokenizer == "char" and replaced.path == made.path
    assert sorted(os.listdir(root)) == [".texts.lock", "texts"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_never_touched(texts, tmp_path, force):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(DatasetError, match="--out"):
        prepare("text", [texts], tokenizer="byte", out=tmp_path / "thesis", force=force)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "webtext"}, ValueError, "there is no recipe 'webtext', expected one of stdlib"),
        ({"name": "text"}, DatasetError, "text needs files or folders"),
        ({"name": "text", "paths": ["nowhere"]}, DatasetError, "nowhere: no such file or folder"),
        ({"name": "stdlib", "paths": ["x"]}, DatasetError, "stdlib takes no texts"),
        ({"name": "shakespeare_char", "paths": ["a", "b"]}, DatasetError, "single file, got 2"),
        ({"name": "stdlib", "tokenizer": "spm"}, ValueError, "tokenizer is 'spm', expected one of bpe, char"),
        ({"name": "stdlib", "tokenizer": "byte", "vocab_size": 9}, ValueError, "only a bpe tokenizer is trained"),
        ({"name": "text", "paths": ["stdlib.txt"]}, DatasetError, "would be called 'stdlib' like a recipe"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        prepare(**arguments, root=tmp_path)


def test_a_named_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"latin\.txt: is not UTF-8 text"):
        prepare("text", [tmp_path / "latin.txt"], root=tmp_path)


def test_a_file_that_changes_while_it_is_prepared_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    path.write_text("a line\nanother line\n" * 100)
    make_plan = build_text.make_plan

    def shrink_and_plan(*args):
        plan = make_plan(*args)
        path.write_text("rotated")
        return plan

    monkeypatch.setattr(build_text, "make_plan", shrink_and_plan)
    with pytest.raises(DatasetError, match=r"log\.txt: changed while it was being prepared"):
        prepare("text", [path], tokenizer="byte", root=tmp_path)
    assert not (tmp_path / "log").exists()


def test_a_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "empty").touch()
    with pytest.raises(DatasetError, match="no text in text: void"):
        prepare("text", [tmp_path / "void"], root=tmp_path / "data")


# --- downloads ---------------------------------------------------------------------------------------------------


def serve(folder, monkeypatch, content, sha256=None):
    """Make `content` what the Shakespeare URL gives."""
    (folder / "input.txt").write_bytes(content)
    monkeypatch.setattr(recipes_module, "SHAKESPEARE_URL", (folder / "input.txt").as_uri())
    monkeypatch.setattr(recipes_module, "SHAKESPEARE_SHA256", sha256 or hashlib.sha256(content).hexdigest())


def test_a_download_is_checked_kept_and_used(tmp_path, monkeypatch):
    serve(tmp_path, monkeypatch, b"Friends, Romans, countrymen\n" * 50)
    first = prepare("shakespeare_char", root=tmp_path / "data")
    assert first.source["description"] == "Tiny Shakespeare"
    (tmp_path / "input.txt").unlink()  # the network is gone, the kept file is enough
    assert prepare("shakespeare_char", root=tmp_path / "data", force=True).digest == first.digest


def test_a_wrong_download_is_refused_and_not_kept(tmp_path, monkeypatch):
    serve(tmp_path, monkeypatch, b"<html>captive portal</html>", sha256="0" * 64)
    with pytest.raises(DatasetError, match=r"sha256 is [0-9a-f]{64}, expected 0{64}.*--text FILE"):
        prepare("shakespeare_char", root=tmp_path / "data")
    assert os.listdir(tmp_path / "data" / "downloads") == []


def test_without_a_network_it_fails_at_once_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes_module, "SHAKESPEARE_URL", (tmp_path / "gone.txt").as_uri())
    with pytest.raises(DatasetError, match=r"cannot download .*/gone\.txt \(.*--text FILE"):
        prepare("shakespeare_char", root=tmp_path / "data")
    assert os.listdir(tmp_path / "data" / "downloads") == []
    assert not (tmp_path / "data" / "shakespeare_char").exists()


# --- the real corpora --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stdlib(tmp_path_factory):
    """Prepared on first use, once for this module."""
    root = tmp_path_factory.mktemp("root")
    return root, random_windows("stdlib", 64, 4, data_root=root)


def test_stdlib_is_prepared_on_first_use(stdlib):
    root, splits = stdlib
    info = splits.dataset
    assert info == open_dataset("stdlib", root)
    assert (info.vocab_size, info.dtype, info.tokenizer) == (2048, "uint16", "bpe-2048")
    assert 5e6 < info.splits["train"].bytes < 4e7
    assert 0.02 < info.splits["val"].bytes / info.splits["train"].bytes < 0.12
    assert info.bytes_per_token("val") > 3.0
    info.verify()


def test_stdlib_holds_code_and_prose_and_no_tests(stdlib):
    _, splits = stdlib
    info = splits.dataset
    keys = [json.loads(line)["document"] for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert {"lib/argparse.py", "lib/json/decoder.py", "topics/for"} <= set(keys)
    assert not [key for key in keys if {"test", "tests", "site-packages", "encodings"} & set(key.split("/"))]
    documents = documents_of(info, "val")
    assert len(documents) == info.splits["val"].documents
    import argparse

    train = "".join(documents_of(info, "train") + documents)
    with open(argparse.__file__, encoding="utf-8") as file:
        assert file.read() in train


SHAKESPEARE = os.environ.get("TINYSHAKESPEARE")


@pytest.mark.skipif(not SHAKESPEARE, reason="$TINYSHAKESPEARE (the file) is not set")
def test_shakespeare_has_nanogpts_numbers(tmp_path):
    info = prepare("shakespeare_char", [SHAKESPEARE], root=tmp_path)
    assert info.vocab_size == 65
    assert (info.splits["train"].tokens, info.splits["val"].tokens) == (1_003_854, 111_540)
    info = prepare("shakespeare", [SHAKESPEARE], root=tmp_path)
    assert info.vocab_size == 50257
    assert (info.splits["train"].tokens, info.splits["val"].tokens) == (301_966, 36_059)


# --- nanoGPT folders ---------------------------------------------------------------------------------------------


@pytest.fixture
def nanogpt(tmp_path):
    folder = tmp_path / "shakespeare_char"
    folder.mkdir()
    chars = "\n abcdé"
    meta = {"vocab_size": 7, "itos": dict(enumerate(chars)), "stoi": {c: i for i, c in enumerate(chars)}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    np.arange(700).astype("<u2").__mod__(7).astype("<u2").tofile(folder / "train.bin")
    np.array([6, 2, 3] * 20, "<u2").tofile(folder / "val.bin")
    return folder


def test_a_nanogpt_folder_is_described_in_place(nanogpt):
    with pytest.raises(DatasetError, match=r"is a nanoGPT folder\. Describe it once.*apps/prepare nanogpt"):
        open_dataset(nanogpt)
    before = {name: (nanogpt / name).read_bytes() for name in os.listdir(nanogpt)}
    info = describe_nanogpt(nanogpt)
    assert open_dataset(nanogpt) == info
    assert {name: (nanogpt / name).read_bytes() for name in before} == before
    assert (info.vocab_size, info.splits["train"].tokens, info.splits["val"].bytes) == (7, 700, 80)
    batch = next(random_windows(nanogpt, 3, 1).val)
    assert info.load_tokenizer().decode(batch.inputs[0].tolist()) == "éab"
    info.verify()


def test_a_nanogpt_dtype_other_than_uint16_is_understood(nanogpt):
    meta = {"vocab_size": 2, "itos": {0: "x", 1: "y"}, "stoi": {"x": 0, "y": 1}, "dtype": "uint32"}
    (nanogpt / "meta.pkl").write_bytes(pickle.dumps(meta))
    for split in ("train", "val"):
        np.array([0, 1] * 40, "<u4").tofile(nanogpt / f"{split}.bin")
    info = describe_nanogpt(nanogpt)
    assert (info.dtype, info.splits["val"].tokens) == ("uint32", 80)
    assert next(random_windows(nanogpt, 4, 1).val).inputs.tolist() == [[0, 1, 0, 1]]
    (nanogpt / "meta.pkl").write_bytes(pickle.dumps(meta | {"dtype": "float16"}))
    with pytest.raises(DatasetError, match="dtype is 'float16', expected one of uint16, uint32"):
        describe_nanogpt(nanogpt)
    (nanogpt / "meta.pkl").write_bytes(pickle.dumps(meta | {"dtype": ["uint16"]}))
    with pytest.raises(DatasetError, match=r"dtype is \['uint16'\], expected one of uint16, uint32"):
        describe_nanogpt(nanogpt)


def test_a_nanogpt_id_outside_its_table_is_found(nanogpt):
    np.array([1, 2, 7], "<u2").tofile(nanogpt / "val.bin")
    with pytest.raises(DatasetError, match=r"val\.bin: holds token id 7, the vocabulary has 7"):
        describe_nanogpt(nanogpt)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_nanogpt_file_of_odd_size_is_refused(nanogpt, size):
    (nanogpt / "val.bin").write_bytes(b"\0" * size)
    with pytest.raises(DatasetError, match=rf"val\.bin: has {size} bytes, expected uint16 ids"):
        describe_nanogpt(nanogpt)


def test_a_pickle_that_would_run_code_is_refused(nanogpt, tmp_path):
    (nanogpt / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(DatasetError, match=r"meta\.pkl: is no nanoGPT table.*refers to os\.system, which could run"):
        describe_nanogpt(nanogpt)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_nanogpt_table_of_any_protocol_is_read(nanogpt, protocol):
    chars = "".join(map(chr, range(32, 600)))  # more than 256 objects, so that their numbers are long ones
    meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": {c: i for i, c in enumerate(chars)}}
    (nanogpt / "meta.pkl").write_bytes(pickle.dumps(meta, protocol))
    assert describe_nanogpt(nanogpt).load_tokenizer().decode([0, 33, 567]) == chars[0] + chars[33] + chars[567]


@pytest.mark.parametrize("content", [b"]r\xff\xff\xff\x07.", b"]p99999999\n."])
def test_a_pickle_that_would_take_gigabytes_is_refused(nanogpt, content):
    (nanogpt / "meta.pkl").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"meta\.pkl: is no nanoGPT table.*numbers one of its objects"):
            describe_nanogpt(nanogpt)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_pickles_of_nested_tuples_are_refused(nanogpt):
    """As a key, a tuple nested deeply enough would overflow the stack of C."""
    (nanogpt / "meta.pkl").write_bytes(b"\x80\x04})" + b"\x85" * 10 + b"K\x01s.")
    with pytest.raises(DatasetError, match="it has the instruction EMPTY_TUPLE, which no table needs"):
        describe_nanogpt(nanogpt)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"(dp0\n.", b"\x80\x04h\x05."])
def test_a_damaged_pickle_is_explained(nanogpt, content):
    (nanogpt / "meta.pkl").write_bytes(content)
    with pytest.raises(DatasetError, match=r"meta\.pkl: is no nanoGPT table of characters"):
        describe_nanogpt(nanogpt)


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_a_few_lines_without_a_terminal_and_nothing_when_quiet(capsys):
    for quiet, expected in ((False, "x: encoding 2.0 MB, 0.5 MB of it already done\nx: ready\n"), (True, "")):
        progress = Progress("x", quiet)
        progress.phase("encoding", 2_000_000, already=500_000)
        for _ in range(100):
            progress.advance(15_000)
        progress.say("ready")
        assert capsys.readouterr().err == expected


def test_progress_on_a_terminal_tells_the_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gpt_data.preparation.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress("x")
    progress.phase("encoding", 4_000_000, already=1_000_000)
    now[0] = 2.0
    progress.advance(1_000_000)
    assert capsys.readouterr().err.endswith("x: encoding  50%  2.0 of 4.0 MB, 4 s left")


def test_progress_in_a_log_file_is_a_line_per_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gpt_data.preparation.progress.time.monotonic", lambda: now[0])
    progress = Progress("x")
    progress.phase("encoding", 7_200_000)
    for _ in range(3600):
        now[0] += 1.0
        progress.advance(1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "x: encoding   1%  0.1 of 7.2 MB, 2.0 h left"
    assert lines[-1] == "x: encoding  50%  3.6 of 7.2 MB, 60 min left" and len(lines) == 61


def test_every_recipe_is_listed_with_a_summary():
    local = {"stdlib", "docs", "site-packages", "shakespeare", "shakespeare_char", "text", "chat"}
    hub = {"openwebtext", "fineweb_edu", "fineweb10B", "slimpajama", "wikitext", "task_mixture", "hf"}
    assert set(RECIPES) == local | hub
    assert all(recipe.summary for recipe in RECIPES.values())
