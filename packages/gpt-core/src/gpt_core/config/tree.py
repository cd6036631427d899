"""The tree a configuration is while it is being read: nested mappings whose leaves know their origin.

A `Tree` maps keys to a `Value` (anything that is not a mapping) or to another `Tree`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gpt_core.config.errors import ConfigError

INHERIT = "_inherit"
COPY = "_copy"
CREATE = "++"

Key: TypeAlias = "str | int"
Path: TypeAlias = "tuple[Key, ...]"
Tree: TypeAlias = "dict[Key, Value | Tree]"


@dataclass(frozen=True)
class Value:
    """A leaf: a scalar, None or a list."""

    data: Any
    origin: str
    """Where it was written: `base.yaml:12`, `command line`, `default of TrainingConfig`."""
    created: bool = False
    """Written with `++`: the key may be one that nothing declares."""


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def slashed(path: Path) -> str:
    return "/" + "/".join(str(part) for part in path)


def child_key(mapping: Mapping[Key, Any], part: Key) -> Key | None:
    """The key of `mapping` that `part` of a written path names; whole numbers also name integer keys."""
    if part in mapping:
        return part
    number = int(part) if isinstance(part, str) and part.lstrip("-").isdecimal() else None
    return number if number is not None and number in mapping else None


def is_copy(node: Value | Tree | None) -> bool:
    return isinstance(node, Value) and isinstance(node.data, str) and node.data.startswith("_copy:")


def tree_of(data: Mapping, origin: Callable[[Path], str] | str, created: bool = False, path: Path = ()) -> Tree:
    """A tree from plain mappings. `origin` is a string or gives one for each path; a `++key` creates."""
    tree: Tree = {}
    for key, item in data.items():
        if isinstance(key, bool) or not isinstance(key, str | int):
            where = origin if isinstance(origin, str) else origin(path)
            at = f" in {dotted(path)}" if path else ""
            raise ConfigError(f"{where}: the key {key!r}{at} is not text; write it in quotes")
        creates = created
        if isinstance(key, str) and key.startswith(CREATE):
            key, creates = key.removeprefix(CREATE), True
        place = (*path, key)
        if isinstance(item, Mapping):
            tree[key] = tree_of(item, origin, creates, place)
        else:
            tree[key] = Value(item, origin if isinstance(origin, str) else origin(place), creates)
    return tree


def nest(path: Path, node: Value | Tree) -> Tree:
    """The tree that holds only `node`, at `path`."""
    for part in reversed(path):
        node = {part: node}
    assert isinstance(node, dict)
    return node


def find(tree: Tree | Value | None, path: Path) -> Value | Tree | None:
    """The node at `path`, or None."""
    for part in path:
        key = child_key(tree, part) if isinstance(tree, dict) else None
        if key is None:
            return None
        assert isinstance(tree, dict)
        tree = tree[key]
    return tree


def plain(node: Value | Tree) -> Any:
    """The data of a node without its origins."""
    if isinstance(node, Value):
        return node.data
    return {key: plain(item) for key, item in node.items()}


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Value]]:
    for key, node in tree.items():
        if isinstance(node, dict):
            yield from leaves(node, (*path, key))
        else:
            yield (*path, key), node


def replaced(tree: Tree, data: Mapping[Path, Any], path: Path = ()) -> Tree:
    """The tree with other data at some paths; origins stay."""
    made: Tree = {}
    for key, node in tree.items():
        place = (*path, key)
        if place in data:
            made[key] = Value(data[place], origin_of(node), is_created(node))
        else:
            made[key] = replaced(node, data, place) if isinstance(node, dict) else node
    return made


def merge(base: Tree, overlay: Tree) -> Tree:
    """`overlay` on top of `base`; neither is changed.

    Mappings merge key by key; scalars, lists and null replace, also a mapping; a mapping replaces a scalar.
    `_inherit: false` in a mapping drops what `base` has there. The mark stays in the result (`without_marks`
    removes it) so that the merge is associative: an included file may drop what a file before it set.
    """
    if inherits(overlay) is False:
        return overlay
    merged = dict(base)
    for key, node in overlay.items():
        if key == INHERIT:
            continue
        old = merged.get(key)
        merged[key] = merge({} if old is None else _as_mapping(old), node) if isinstance(node, dict) else node
    return merged


def _as_mapping(node: Value | Tree) -> Tree:
    if isinstance(node, dict):
        return node
    tree: Tree = {INHERIT: Value(False, node.origin)}
    if is_copy(node):  # keys written over a copied mapping: the copy with these keys changed
        tree[COPY] = Value(node.data.removeprefix("_copy:").strip(), node.origin)
    return tree


def inherits(tree: Tree) -> bool:
    """The value of `_inherit` in this mapping (default true)."""
    mark = tree.get(INHERIT)
    if mark is None:
        return True
    if not isinstance(mark, Value) or not isinstance(mark.data, bool):
        raise ConfigError(f"_inherit is true or false, got {plain(mark)!r} ({origin_of(mark)})")
    return mark.data


def without_marks(tree: Tree) -> Tree:
    """The tree without the `_inherit` keys."""
    inherits(tree)  # checks the mark
    return {
        key: without_marks(node) if isinstance(node, dict) else node for key, node in tree.items() if key != INHERIT
    }


def origin_of(node: Value | Tree) -> str:
    """Where a node was written; for a mapping the distinct files of its leaves."""
    if isinstance(node, Value):
        return node.origin
    files = dict.fromkeys(value.origin.split(" (copy of ")[0].rsplit(":", 1)[0] for _, value in leaves(node))
    return ", ".join(files) or "empty"


def is_created(node: Value | Tree) -> bool:
    if isinstance(node, Value):
        return node.created
    return any(value.created for _, value in leaves(node))


def map_strings(tree: Tree, change: Callable[[str], str]) -> Tree:
    """The tree with `change` applied to every string, those inside lists included."""
    return {
        key: map_strings(node, change)
        if isinstance(node, dict)
        else Value(map_data(node.data, change), node.origin, node.created)
        for key, node in tree.items()
    }


def map_data(data: Any, change: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, list):
        return [map_data(item, change) for item in data]
    if isinstance(data, dict):
        return {key: map_data(item, change) for key, item in data.items()}
    return data
