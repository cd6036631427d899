"""Reading tables: every row exactly once however a file is cut, and errors that name the file and the line."""

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError
from gpt_data.preparation import tables
from gpt_data.preparation.tables import Table, count_rows, cut, cut_with_numbers, find_field, is_table, pack

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def write(folder, texts, kind, **how):
    """A table of `texts` in the format `kind`."""
    path = Path(folder) / f"t.{kind}"
    content = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()
    if kind == "parquet":
        rows = {"id": list(range(len(texts))), "text": pyarrow.array(texts, pyarrow.string())}
        pyarrow.parquet.write_table(pyarrow.table(rows), path, **how)
    elif kind == "jsonl":
        path.write_bytes(content)
    else:
        with pyarrow.CompressedOutputStream(str(path), {"gz": "gzip", "zst": "zstd"}[path.suffix[1:]]) as file:
            file.write(content)
    return Table(path.name, path, field="text")


def read(table, size):
    return [text for run in cut(table, size) for rows in tables.rows(run) for text in rows.values]


KINDS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=30), size=st.integers(1, 400), group=st.integers(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_read_once_and_in_order_however_it_is_cut(kind, texts, size, group):
    with tempfile.TemporaryDirectory() as folder:
        table = write(folder, texts, kind, **({"row_group_size": group} if kind == "parquet" else {}))
        assert read(table, size) == texts
        assert count_rows(table) == len(texts)
        runs = cut(table, size)
        assert [run.start for run in runs[1:]] == [run.end for run in runs[:-1]]
        assert [run for group in pack(runs, 3 * size) for run in group] == runs


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=30), size=st.integers(1, 400), group=st.integers(1, 9))
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbered_runs_know_their_first_row(kind, texts, size, group):
    with tempfile.TemporaryDirectory() as folder:
        table = write(folder, texts, kind, **({"row_group_size": group} if kind == "parquet" else {}))
        for run, first in cut_with_numbers(Table(table.key, table.path), size):
            values = [row for rows in tables.rows(run) for row in rows.values]
            assert [row["id"] for row in values] == list(range(first, first + len(values)))
            assert [row["text"] for row in values] == texts[first : first + len(values)]


def test_large_row_groups_are_read_in_small_batches(tmp_path):
    table = write(tmp_path, ["x" * 10_000] * 1000, "parquet", compression="none", use_dictionary=False)
    (run,) = cut(table, 1 << 62)
    batches = list(tables.rows(run))
    assert len(batches) >= 8 and sum(len(rows.values) for rows in batches) == 1000
    assert run.weight >= 10_000_000 and sum(rows.weight for rows in batches) == pytest.approx(run.weight, rel=0.01)


def test_weights_of_lines_add_up(tmp_path):
    for kind in ("jsonl", "jsonl.zst"):
        table = write(tmp_path, [f"row {i} of text" * 20 for i in range(9000)], kind)
        runs = cut(table, 1 << 20)
        for run in runs:
            assert sum(rows.weight for rows in tables.rows(run)) == run.weight
        assert sum(run.weight for run in runs) == table.path.stat().st_size
        assert len(runs) == (1 if kind == "jsonl.zst" else 3)


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        *((name, True) for name in ("a.jsonl", "a.NDJSON", "a.jsonl.gz", "a.jsonl.zst", "a.parquet")),
        *((name, False) for name in ("a.json", "a.txt.gz", "jsonl", "a.parquet.txt")),
    ],
)
def test_tables_are_known_by_their_names(name, yes):
    assert is_table(Path(name)) is yes


# --- which column -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_column_is_found_or_the_columns_are_listed(tmp_path, kind):
    def table(**row):
        path = tmp_path / f"{'-'.join(row)}.{kind}"
        if kind == "jsonl":
            path.write_text(json.dumps(row) + "\n")
        else:
            pyarrow.parquet.write_table(pyarrow.table({key: [value] for key, value in row.items()}), path)
        return Table(path.name, path)

    assert find_field(table(id=1, content="a", document="b"), None).field == "content"
    assert find_field(table(id=1, text="a", content="b"), None).field == "text"
    assert find_field(table(id=1, body="a", text="b"), "body").field == "body"
    with pytest.raises(DatasetError, match=r"columns id, body, not 'text'.*--text-field"):
        find_field(table(id=1, body="a"), "text")
    with pytest.raises(DatasetError, match=r"columns id, body, none of text, content, document.*--text-field"):
        find_field(table(id=1, body="a"), None)
    with pytest.raises(DatasetError, match=r"'id' holds (a number|int64), not text"):
        find_field(table(id=1, body="a"), "id")


def test_parquet_keeps_text_in_several_types(tmp_path):
    texts = ["é", "", "東", "é"]
    for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
        path = tmp_path / "t.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts).cast(kind)}), path)
        assert read(find_field(Table("t", path), None), 1) == texts


# --- faults -------------------------------------------------------------------------------------------------------

GOOD = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut off\n', r"line 3: is no JSON in UTF-8 \(Invalid.*It begins with '{\"text\": \"cut off'"),
        (b'{"text": "\xff"}\n', r"line 3: is no JSON in UTF-8 \('utf-8' codec"),
        (b"[1]\n", r"line 3: is a list, expected an object\. It begins with '\[1\]'"),
        (b'{"title": "a", "id": 1}\n', r"line 3: has no 'text', only title, id\."),
        (b'{"text": 7}\n', r"line 3: 'text' is a number, expected text"),
        (b'{"text": "\\ud800 alone"}\n', r"line 3: holds half a surrogate pair"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_a_bad_line_is_named(tmp_path, kind, line, message):
    path = tmp_path / f"t.{kind}"
    content = GOOD + b"\n" + line + GOOD
    if kind == "jsonl":
        path.write_bytes(content)
    else:
        with pyarrow.CompressedOutputStream(str(path), "gzip") as file:
            file.write(content)
    with pytest.raises(DatasetError, match=rf"t\.{kind}, " + message):
        read(Table("t", path, field="text"), 1 << 20)


def test_the_line_number_is_of_the_file_not_of_the_run(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(GOOD * 1000 + b"oops\n")
    table = Table("t", path, field="text")
    assert len(cut(table, 100)) > 100
    with pytest.raises(DatasetError, match=r"t\.jsonl, line 1001: "):
        read(table, 100)


def test_pairs_of_surrogates_and_null_are_understood(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"text": "\\ud83e\\udd8a"}\n{"text": null}\r\n   \n{"text": ""}')
    assert read(Table("t", path, field="text"), 1) == ["🦊", None, ""]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_a_file_truncated_anywhere_is_an_error(tmp_path, kind):
    texts = [f"text number {i * i}" for i in range(50)]
    table = write(tmp_path, texts, kind)
    content = table.path.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 97)):
        table.path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match=rf"t\.{kind}: .*(truncated|holds no rows|no readable)"):
            find_field(table, None)
            got = read(table, 100)
            raise AssertionError(f"{length} of {len(content)} bytes gave {len(got)} rows")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(4, 10_000), change=st.integers(1, 255))
def test_a_changed_byte_in_parquet_never_gives_other_text(place, change):
    texts = [f"text number {i * i} with enough of it to fill a page" for i in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        table = write(folder, texts, "parquet", write_page_checksum=True)
        content = bytearray(table.path.read_bytes())
        if place >= pyarrow.parquet.ParquetFile(table.path).metadata.row_group(0).column(1).total_compressed_size:
            return
        content[place] ^= change
        table.path.write_bytes(content)
        try:
            assert read(Table("t", table.path, field="text"), 100) == texts
        except DatasetError as error:
            assert "t.parquet" in str(error)


def test_garbage_is_no_table(tmp_path):
    for kind in ("jsonl.gz", "jsonl.zst", "parquet"):
        path = tmp_path / f"t.{kind}"
        path.write_bytes(b"this was never packed\n" * 10)
        with pytest.raises(DatasetError, match=rf"t\.{kind}: .*fetch it again"):
            find_field(Table("t", path), None)


def test_a_file_without_lines_is_no_jsonl(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt_data.preparation.jsonl.MAX_LINE_BYTES", 1000)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(DatasetError, match="line of over 1000 bytes at byte 0: no jsonl"):
        find_field(Table("t", path), None)


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    table = write(tmp_path, ["a"], "parquet")
    packed = write(tmp_path, ["a"], "jsonl.zst")
    plain = write(tmp_path, ["a"], "jsonl")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for needs in (table, packed):
        with pytest.raises(ImportError, match=r"pip install 'gpt-data\[tables\]'"):
            read(needs, 100)
    assert read(plain, 100) == ["a"]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, kind):
    path, content = tmp_path / f"t.{kind}", '\ufeff{"text": "a"}\n{"text": "\ufeffb"}\n'.encode()
    path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    table = find_field(Table("t", path), None)
    assert table.field == "text" and count_rows(table) == 2
    assert [text for run in cut(table, 5) for rows in tables.rows(run) for text in rows.values] == ["a", "\ufeffb"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_table_without_rows_has_no_column_that_could_be_missing(tmp_path, content):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    assert find_field(Table("t", path), "body").field is None
    path.write_text("{}\n")
    with pytest.raises(DatasetError, match=r"has the columns \(none\), not 'body'"):
        find_field(Table("t", path), "body")
