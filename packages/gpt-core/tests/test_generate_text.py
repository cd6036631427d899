"""Streaming text: characters split over tokens, stop strings split over tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.generate.text import IncrementalDecoder, TextStream


def byte_decode(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def word_decode(ids):
    """Like SentencePiece: a space before every word but the first of what is decoded."""
    return " ".join("abcdefgh"[i] for i in ids)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
def test_bytes_stream_to_the_same_text_without_half_characters(text):
    decoder = IncrementalDecoder(byte_decode)
    pieces = [decoder.push(byte) for byte in text.encode()]
    if not text.endswith("\ufffd"):
        assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=200))
def test_invalid_bytes_stream_to_what_decode_gives(ids):
    decoder = IncrementalDecoder(byte_decode)
    streamed = "".join(decoder.push(byte) for byte in ids)
    assert byte_decode(ids).removesuffix("\ufffd") == streamed


def test_each_character_comes_with_its_last_byte():
    decoder = IncrementalDecoder(byte_decode)
    assert [decoder.push(b) for b in "aé€😀".encode()] == ["a", "", "é", "", "", "€", "", "", "", "😀"]


def test_long_streams_stay_exact_past_the_window():
    text = "π ≈ 3.14159; 😀 und so weiter\n" * 40
    decoder = IncrementalDecoder(byte_decode)
    assert "".join(decoder.push(b) for b in text.encode()) == text


def test_cost_per_token_is_bounded():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return byte_decode(ids)

    decoder = IncrementalDecoder(decode)
    for _ in range(2000):
        decoder.push(97)
    assert longest < 100


def test_tokenizers_that_look_left_see_the_prompt():
    decoder = IncrementalDecoder(word_decode, [0, 1])
    assert "".join(decoder.push(i) for i in [2, 3] * 60) == (" c d" * 60)


def test_a_prompt_cut_inside_a_character_does_not_leak():
    prompt = "€€€€".encode()  # 12 bytes; the decoder looks at the last 8, which begin inside a character
    decoder = IncrementalDecoder(byte_decode, list(prompt))
    assert [decoder.push(b) for b in b"ab"] == ["a", "b"]


def feed(stop, text, chunk=1):
    stream = TextStream(lambda ids: "".join(chunks[i] for i in ids), (), stop)
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    pieces = []
    for i in range(len(chunks)):
        pieces.append(stream.push(i))
        if stream.stopped:
            break
    return pieces, stream


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 50])
def test_stop_strings_end_the_text_wherever_tokens_split(chunk):
    pieces, stream = feed(["\n\n", "END"], "one\ntwo ENENDthree", chunk)
    assert "".join(pieces) == "one\ntwo EN"
    assert stream.stopped


def test_a_beginning_of_a_stop_string_waits_and_then_comes():
    pieces, stream = feed(["END"], "xENy")
    assert pieces == ["x", "", "", "ENy"]
    assert not stream.stopped


def test_close_gives_what_was_held_back():
    pieces, stream = feed(["END"], "xEN")
    assert "".join(pieces) == "x"
    assert stream.close() == "EN"


def test_the_earliest_stop_wins():
    pieces, _ = feed(["cd", "b"], "abcd", chunk=4)
    assert pieces == ["a"]


def test_an_unfinished_last_character_is_dropped():
    stream = TextStream(byte_decode)
    assert [stream.push(b) for b in "a😀".encode()[:-1]] == ["a", "", "", ""]
    assert stream.close() == ""


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty"):
        TextStream(byte_decode, (), ["x", ""])
