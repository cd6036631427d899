"""`$NAME` and `~` in path-like values, expanded where the path is used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gpt_core.config.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<bare>[A-Za-z_]\w*))")


def expand(value: str, environ: Mapping[str, str] | None = None) -> str:
    """`value` with `$NAME`, `${NAME}` and a leading `~` replaced.

    Values in a configuration keep their `$NAME` until a path is opened or created, so a variable that is
    never used need not be set. Raises `ConfigError` for a variable that is not in `environ` (`os.environ`).
    """
    variables = os.environ if environ is None else environ

    def replace(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name not in variables:
            raise ConfigError(f"{value!r} needs the environment variable {name}, which is not set: export {name}=…")
        return variables[name]

    expanded = _VARIABLE.sub(replace, value)
    if expanded == "~" or expanded.startswith("~/"):
        home = variables.get("HOME") or os.path.expanduser("~")
        return home + expanded[1:]
    return expanded
