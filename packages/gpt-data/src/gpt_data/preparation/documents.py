"""Documents: where a text lies, and how it is read in pieces of bounded size."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DatasetError

PIECE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20
SEARCH_BYTES = 1 << 14
NEARBY_BYTES = 1 << 18
"""How far a line break is looked for before the end of a word will do."""
LARGEST_PIECE_BYTES = 64 << 20
"""A text that cannot be cut in so many bytes is refused: it would need several times as much memory."""
SAFE_CUT = re.compile(rb"[A-Za-z0-9.,;:!?)}\]]\n(?=[A-Za-z0-9])")
"""A single line break between visible characters. Every BPE pattern here ends a piece of text right after it, so the
ids of the two halves are the ids of the whole."""
CUT_CONTEXT = 2
"""Bytes before the one that is searched for that SAFE_CUT looks at."""
WORD_END = re.compile(r"[^\W_](?=[\s,.;:!?、。，；：！？])")
"""A letter or number of any script before a space, a line break or a mark. No rule of the patterns goes on from the
one to the other, and none looks back or, after a letter or number, ahead: each half is cut as it is in the whole."""
CHAR_BYTES = 4
"""The most that one character takes."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text: a file, or a string that was found in one."""

    key: str
    """Name that does not depend on the machine: a relative path with forward slashes."""
    path: Path | None = None
    text: str | None = None

    def stamp(self) -> tuple[int, int] | None:
        """Changes when the file does: bytes, and the time of its last change in nanoseconds; None for a string."""
        if self.path is None:
            return None
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def size(self) -> int:
        """Bytes, without reading a file."""
        if self.text is not None:
            return len(self.text.encode())
        assert self.path is not None
        return self.path.stat().st_size

    def read(self, start: int, end: int) -> bytes:
        """UTF-8 bytes [start, end)."""
        return b"".join(self.blocks(start, end, block_bytes=end - start))

    def blocks(self, start: int = 0, end: int | None = None, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
        """UTF-8 bytes [start, end) in blocks of bounded size."""
        if self.text is not None:
            yield self.text.encode()[start:end]
            return
        assert self.path is not None
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            while end is None or start < end:
                block = file.read(block_bytes if end is None else min(block_bytes, end - start))
                if not block:
                    return
                yield block
                start += len(block)


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a document tells."""

    document: Document
    sha256: str
    bytes: int
    chars: int
    is_text: bool
    """Valid UTF-8 without NUL; if not, nothing else here was measured."""
    stamp: tuple[int, int] | None = None
    """Of the file when the pass began."""

    def check_unchanged(self) -> None:
        """DatasetError if the file is not the one that was scanned."""
        if self.document.stamp() != self.stamp:
            raise _changed(self.document)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of a document; `last` if the document ends here."""

    document: Document
    start: int
    end: int
    last: bool

    @property
    def bytes(self) -> int:
        return self.end - self.start

    def read(self) -> str:
        content = self.document.read(self.start, self.end)
        if len(content) != self.bytes:
            raise _changed(self.document)
        try:
            return content.decode()
        except UnicodeDecodeError as error:  # it was UTF-8 when it was scanned
            raise _changed(self.document) from error


def _changed(document: Document) -> DatasetError:
    where = document.path or document.key
    return DatasetError(f"{where}: changed while it was being prepared. Run the same command again.")


def scan(document: Document) -> Scan:
    """Hash, measure and check one document; stops at the first sign that it is not text."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    size = chars = 0
    stamp = document.stamp()
    try:
        for block in document.blocks():
            digest.update(block)
            size += len(block)
            chars += len(decoder.decode(block))
            if b"\0" in block:
                return Scan(document, "", 0, 0, is_text=False)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return Scan(document, "", 0, 0, is_text=False)
    return Scan(document, digest.hexdigest(), size, chars, is_text=True, stamp=stamp)


def byte_offset(document: Document, chars: int) -> int:
    """The byte at which character number `chars` begins, counted from 0."""
    seen = position = 0
    for block in document.blocks():
        begins = np.flatnonzero((np.frombuffer(block, np.uint8) & 0xC0) != 0x80)  # all but continuation bytes
        if seen + len(begins) > chars:
            return position + int(begins[chars - seen])
        seen, position = seen + len(begins), position + len(block)
    return position


def pieces(document: Document, start: int, end: int, size: int = PIECE_BYTES) -> Iterator[Piece]:
    """Cut bytes [start, end) into pieces of about `size` without changing any token.

    A cut is the next single line break between visible characters or, if there is none nearby, the end of the next
    word. That is safe for tokenizers by bytes, by characters and for byte-level BPE with the patterns of GPT-2 and
    GPT-4; one from Hugging Face that puts a space before each text (Metaspace, as Llama 2's) gets one at each piece.
    Errors: DatasetError for over LARGEST_PIECE_BYTES without a place to cut.
    """
    while end - start > size:
        cut = _next_cut(document, start + size, min(end, start + LARGEST_PIECE_BYTES))
        if cut is None and end - start > LARGEST_PIECE_BYTES:
            raise DatasetError(
                f"{document.path or document.key}: no word ends in {LARGEST_PIECE_BYTES >> 20} MB after byte {start}, "
                "so that they would be encoded at once. Is it text? Put line breaks in it, or leave it out."
            )
        if cut is None:
            break
        yield Piece(document, start, cut, last=False)
        start = cut
    yield Piece(document, start, end, last=True)


def _next_cut(document: Document, position: int, end: int) -> int | None:
    """The first place to cut from `position` on; None also if that is nearly all."""
    near = position + NEARBY_BYTES
    line = _line_end(document, position, min(end, near))
    return _word_end(document, position, end) if line is None and near < end else line


def _line_end(document: Document, position: int, end: int) -> int | None:
    window, origin = b"", max(position - CUT_CONTEXT, 0)
    for block in document.blocks(origin, end, SEARCH_BYTES):
        window += block
        if found := SAFE_CUT.search(window):
            return origin + found.end()
        origin, window = origin + len(window) - CUT_CONTEXT, window[-CUT_CONTEXT:]
    return None


def _word_end(document: Document, position: int, end: int) -> int | None:
    kept = 2 * CHAR_BYTES  # at least one whole character
    window, origin = b"", max(position - CHAR_BYTES, 0)
    for block in document.blocks(origin, end, SEARCH_BYTES):
        window += block
        begin = next((i for i, byte in enumerate(window[:CHAR_BYTES]) if byte & 0xC0 != 0x80), 0)
        text = window[begin:].decode(errors="ignore")  # the last character may be cut
        for found in WORD_END.finditer(text):
            cut = origin + begin + len(text[: found.end()].encode())
            if cut >= position:
                return cut
        origin, window = origin + max(len(window) - kept, 0), window[-kept:]
    return None
