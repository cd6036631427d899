"""Python configurations in nanoGPT's style: a file of assignments, executed in an empty namespace."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from gpt_core.config.errors import ConfigError
from gpt_core.config.overrides import Override

_TAKEN = (int, float, bool, str, type(None), list, dict, tuple)


def read_python(file: Path, name: str) -> list[Override]:
    """One override per public plain value that the file defines; imports, functions and the like are skipped.

    The file is code and is run as such.
    """
    source = file.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__file__": str(file), "__name__": "config"}
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), namespace)
    except Exception as error:  # anything the user's code does
        raise ConfigError(f"{name}: running it failed: {type(error).__name__}: {error}") from error
    lines = _assignment_lines(source)
    return [
        Override(key, list(value) if isinstance(value, tuple) else value, f"{name}{_line(lines, key)}")
        for key, value in namespace.items()
        if not key.startswith("_") and isinstance(value, _TAKEN)
    ]


def _assignment_lines(source: str) -> dict[str, int]:
    lines = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = node.lineno
    return lines


def _line(lines: dict[str, int], key: str) -> str:
    return f":{lines[key]}" if key in lines else ""
