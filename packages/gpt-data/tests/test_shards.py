"""A stream over several shards reads like one array, keeps memory flat, and notices a file that shrinks."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_data import DatasetError
from gpt_data.shards import MAX_OPEN_FILES, TokenStream


def write_shards(folder, arrays):
    paths = [folder / f"{i}.bin" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        array.tofile(path)
    return paths


@given(data=st.data(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), dtype=st.sampled_from(["<u2", "<u4"]))
def test_any_range_equals_the_concatenated_array(tmp_path_factory, data, sizes, dtype):
    whole = np.arange(1000, 1000 + sum(sizes)).astype(dtype)
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    stream = TokenStream(write_shards(tmp_path_factory.mktemp("s"), parts), sizes, np.dtype(dtype))
    start = data.draw(st.integers(0, len(whole)))
    row = np.empty(data.draw(st.integers(0, len(whole) - start)), dtype)
    stream.read_into(row, start)
    assert len(stream) == len(whole)
    np.testing.assert_array_equal(row, whole[start : start + len(row)])


def test_more_shards_than_open_files(tmp_path):
    count = 2 * MAX_OPEN_FILES + 1
    parts = [np.array([i], "<u2") for i in range(count)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    stream = TokenStream(write_shards(tmp_path, parts), [1] * count, np.dtype("<u2"))
    row = np.empty(1, "<u2")
    for i in [*range(count), 3, count - 1]:
        stream.read_into(row, i)
        assert row[0] == i
    assert len(stream._files) == MAX_OPEN_FILES
    if before:
        assert len(os.listdir("/proc/self/fd")) - before == MAX_OPEN_FILES
        del stream
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("left", range(8))
def test_a_file_that_shrinks_while_it_is_open_is_named(tmp_path, left):
    [path] = write_shards(tmp_path, [np.arange(4, dtype="<u2")])
    stream = TokenStream([path], [4], np.dtype("<u2"))
    row = np.empty(4, "<u2")
    stream.read_into(row, 0)
    os.truncate(path, left)
    with pytest.raises(DatasetError, match=rf"0\.bin: ends at byte {left}, {8 - left} bytes early.*prepare"):
        stream.read_into(row, 0)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_resident_memory_stays_flat(tmp_path):
    """nanoGPT's complaint: a memory-mapped corpus adds every touched page to the process."""
    tokens = 40_000_000
    [path] = write_shards(tmp_path, [np.zeros(tokens, "<u2")])
    stream = TokenStream([path], [tokens], np.dtype("<u2"))
    row = np.empty(tokens // 100, "<u2")
    stream.read_into(row, 0)
    before = resident_bytes()
    for start in range(0, tokens, len(row)):
        stream.read_into(row, start)
    assert resident_bytes() - before < tokens * 2 / 10


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
