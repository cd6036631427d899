"""Files of one JSON value a line, read so that what is wrong with one is said with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any


def json_lines(path: Path | str, limit: int | None = None) -> Iterator[tuple[int, Any]]:
    """Line number, from 1, and value of the first `limit` lines; empty ones are left out, a byte order mark too.

    Raises ValueError that names file and line, OSError where there is no file. Only "\\n" ends a line: other separators
    of Unicode may stand in a text.
    """
    for number, line in islice(enumerate(Path(path).read_bytes().split(b"\n"), start=1), limit):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except RecursionError as error:
            raise ValueError(f"{path}, line {number}: nested too deeply") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
