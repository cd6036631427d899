"""Fetching one known file."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from ..errors import DatasetError

TIMEOUT_SECONDS = 20
BLOCK_BYTES = 1 << 20


def download(url: str, sha256: str, path: Path) -> Path:
    """The file behind `url`, kept as `path` and fetched only once; its sha256 is checked every time.

    Errors: DatasetError without a network, or if the content is not the expected one.
    """
    if path.is_file() and file_sha256(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, open(aside, "wb") as file:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
    except OSError as error:  # URLError, timeouts and broken connections are OSErrors
        aside.unlink(missing_ok=True)
        raise DatasetError(
            f"cannot download {url} ({error}). Fetch it on another machine and give the file: --text FILE."
        ) from error
    if (got := file_sha256(aside)) != sha256:
        aside.unlink()
        raise DatasetError(f"{url}: sha256 is {got}, expected {sha256}. Get the file elsewhere: --text FILE.")
    os.replace(aside, path)
    return path


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
