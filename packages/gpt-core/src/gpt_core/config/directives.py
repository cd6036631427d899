"""`_time:`, `_copy:` and `${…}`: from the merged tree to one without directives.

`_copy` stays lazy until everything is merged, so changing a source on the command line moves its copies.
A backslash makes a directive literal: `\\_copy:`, `\\_time:`, `\\${`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from gpt_core.config import tree as trees
from gpt_core.config.copies import Copies
from gpt_core.config.errors import ConfigError
from gpt_core.config.tree import Path, Tree, Value

TIME_FORMAT = "%Y%m%d-%H%M%S"
_EMBEDDED_TIME = re.compile(r"\{_time:([^{}]*)\}")
_ESCAPED = re.compile(r"\\(\\*_(?:copy|time):)")
_UNESCAPED = re.compile(r"(\\*_(?:copy|time):)")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def is_directive(text: str) -> bool:
    return text.startswith(("_copy:", "_time:")) or "${" in text or bool(_EMBEDDED_TIME.search(text))


def expand_time(text: str, clock: datetime) -> str:
    """`_time:FMT` (the whole string) or `{_time:FMT}` (inside one); no FMT means `%Y%m%d-%H%M%S`."""
    if text.startswith("_time:"):
        return clock.strftime(text.removeprefix("_time:").strip() or TIME_FORMAT)
    return _EMBEDDED_TIME.sub(lambda match: clock.strftime(match[1].strip() or TIME_FORMAT), text)


def escape(data: Any) -> Any:
    """Plain data as it must be written to be read back as itself."""

    def change(text: str) -> str:
        text = _UNESCAPED.sub(r"\\\1", text)
        return _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", text)

    return trees.map_data(data, change)


def escape_directives(data: Any) -> Any:
    """As `escape`, but `${…}` stays alive."""
    return trees.map_data(data, lambda text: _UNESCAPED.sub(r"\\\1", text))


def resolve(tree: Tree, clock: datetime) -> tuple[Tree, dict[Path, Any]]:
    """The tree without directives, and path -> text of the values that were `${…}`."""
    tree = trees.map_strings(tree, lambda text: expand_time(text, clock))
    tree = Copies(tree).resolve()
    tree = trees.map_strings(tree, lambda text: _ESCAPED.sub(r"\1", text))
    return _interpolate(tree)


def _interpolate(tree: Tree) -> tuple[Tree, dict[Path, Any]]:
    written = {path: value for path, value in trees.leaves(tree) if _mentions(value.data)}
    if not written:
        return tree, {}
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.create(trees.plain(tree))
        resolved = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, ValueError) as error:
        key = getattr(error, "full_key", None) or ""
        node = trees.find(tree, tuple(key.split("."))) if key else None
        where = f"{key} ({trees.origin_of(node)}): " if node is not None else ""
        raise ConfigError(f"{where}{str(error).splitlines()[0]}") from error
    for path, value in written.items():
        data: Any = resolved
        for part in path:
            data = data[part]
        node = trees.tree_of(data, value.origin, value.created) if isinstance(data, dict) else None
        parent = trees.find(tree, path[:-1])
        assert isinstance(parent, dict)  # `Copies.resolve` made this tree for us: it may be changed
        parent[path[-1]] = Value(data, value.origin, value.created) if node is None else node
    return tree, {path: value.data for path, value in written.items()}


def _mentions(data: Any) -> bool:
    if isinstance(data, str):
        return "${" in data
    if isinstance(data, list):
        return any(_mentions(item) for item in data)
    return isinstance(data, dict) and any(_mentions(item) for item in data.values())
