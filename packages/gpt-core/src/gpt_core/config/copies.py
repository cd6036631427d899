"""`_copy`: one place of the tree takes the value of another.

lr_decay_iters: '_copy: /training/max_steps'     value form, absolute
min_lr: '_copy: ../learning_rate'                value form, relative to the key itself
eval: {_copy: /training, batch: 8}               key form: own keys win, the rest comes from the source
"""

from __future__ import annotations

from typing import Any

from gpt_core.config import tree as trees
from gpt_core.config.errors import ConfigError, nearest
from gpt_core.config.tree import COPY, Path, Tree, Value, slashed

# What stands at a path, in order of precedence. Usually one node; a mapping with `_copy` is followed by its
# source, whose keys show where the mapping has none. Each node comes with the place where it is written.
Layers = list[tuple[Path, "Value | Tree"]]


class Copies:
    """Resolves the copies of one tree. Looks places up one level at a time, so a mapping may be copied while
    a part of it copies something else; only a value that needs itself is a cycle."""

    def __init__(self, root: Tree):
        self.root = root
        self.known: dict[Path, Layers] = {}
        self.active: list[Path] = []

    def resolve(self) -> Tree:
        """A new tree without copies."""
        tree = self.node((), ())
        assert isinstance(tree, dict)
        return tree

    def node(self, path: Path, trail: tuple[tuple[Path, ...], ...]) -> Value | Tree:
        """The value or mapping at `path`; `trail` is what the mappings and lists around it are made of."""
        layers = self.layers(path)
        places = tuple(place for place, _ in layers)
        if places in trail:
            raise ConfigError(f"_copy: {slashed(places[0])} contains itself, by the copy at {slashed(path)}")
        trail = (*trail, places)
        place, first = layers[0]
        if isinstance(first, Value):
            origin = first.origin if place == path else f"{first.origin} (copy of {slashed(place)})"
            return Value(self.items(first, first.data, place, trail), origin, first.created)
        return {key: self.node((*path, key), trail) for key in _keys(layers)}

    def items(self, value: Value, data: Any, place: Path, trail: tuple[tuple[Path, ...], ...]) -> Any:
        """The items of a list with their copies resolved; relative paths start at the key of the list."""
        if isinstance(data, list):
            return [self.items(value, item, place, trail) for item in data]
        if isinstance(data, str) and data.startswith("_copy:"):
            return trees.plain(self.source(data.removeprefix("_copy:"), place, value.origin, trail))
        if isinstance(data, dict):
            own = {key: self.items(value, item, place, trail) for key, item in data.items() if key != COPY}
            if COPY not in data:
                return own
            source = trees.plain(self.source(str(data[COPY]), place, value.origin, trail))
            if not isinstance(source, dict):
                raise ConfigError(f"{value.origin}: _copy: {data[COPY]} is not a mapping")
            return _fill(own, source)
        return data

    def source(self, text: str, place: Path, origin: str, trail: tuple[tuple[Path, ...], ...]) -> Value | Tree:
        target = self.target(text, place, origin)
        self.existing(target, origin)
        return self.node(target, trail)

    def layers(self, path: Path) -> Layers:
        """What stands at `path`; empty if nothing does."""
        if path in self.known:
            return self.known[path]
        if path in self.active:
            chain = [*self.active[self.active.index(path) :], path]
            raise ConfigError(f"_copy goes in a circle: {' -> '.join(slashed(link) for link in chain)}")
        self.active.append(path)
        try:
            found = self.extended((), self.root) if not path else self.below(path)
        finally:
            self.active.pop()
        self.known[path] = found
        return found

    def below(self, path: Path) -> Layers:
        found: Layers = []
        for place, node in self.layers(path[:-1]):
            key = trees.child_key(node, path[-1]) if isinstance(node, dict) else None
            if key is None or key == COPY:
                continue
            assert isinstance(node, dict)
            extended = self.extended((*place, key), node[key])
            if found and not isinstance(extended[0][1], dict):
                break  # an own mapping hides a value of the source
            found += extended
            if not isinstance(node[key], dict):
                break  # an own value hides what the source has
        return found

    def extended(self, place: Path, node: Value | Tree) -> Layers:
        """The node, or what it copies."""
        if isinstance(node, Value):
            if not trees.is_copy(node):
                return [(place, node)]
            return self.existing(self.target(node.data.removeprefix("_copy:"), place, node.origin), node.origin)
        if COPY not in node:
            return [(place, node)]
        written = node[COPY]
        if not isinstance(written, Value) or not isinstance(written.data, str):
            raise ConfigError(f"{slashed(place)} ({trees.origin_of(written)}): _copy takes a path such as /a/b")
        source = self.existing(self.target(written.data, place, written.origin), written.origin)
        if not isinstance(source[0][1], dict):
            raise ConfigError(
                f"{slashed(place)} ({written.origin}): the key _copy merges a mapping, but "
                f"{slashed(source[0][0])} is {source[0][1].data!r}"
            )
        return [(place, node), *source]

    def existing(self, target: Path, origin: str) -> Layers:
        found = self.layers(target)
        if found:
            return found
        missing = next(n for n in range(1, len(target) + 1) if not self.layers(target[:n]))
        parent = self.layers(target[: missing - 1])
        if isinstance(parent[0][1], Value):
            problem = f"{slashed(target[: missing - 1])} is a value, it has no {str(target[missing - 1])!r}"
        else:
            keys = [str(key) for key in _keys(parent)]
            problem = f"there is no {slashed(target[:missing])}{nearest(str(target[missing - 1]), keys)}"
        raise ConfigError(f"{origin}: _copy: {slashed(target)}: {problem}")

    @staticmethod
    def target(text: str, place: Path, origin: str) -> Path:
        """The absolute path that a written one means, seen from the key at `place`."""
        text = text.strip()
        if not text:
            raise ConfigError(f"{origin}: _copy needs a path such as /a/b or ../b")
        parts: list[trees.Key] = [] if text.startswith("/") else list(place)
        for part in text.split("/"):
            if part == "..":
                if not parts:
                    raise ConfigError(f"{origin}: _copy: {text} climbs above the root from {slashed(place)}")
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return tuple(parts)


def _keys(layers: Layers) -> dict[trees.Key, None]:
    keys: dict[trees.Key, None] = {}
    for _, node in layers:
        if not isinstance(node, dict):
            break
        keys.update(dict.fromkeys(key for key in node if key != COPY))
    return keys


def _fill(own: dict, source: dict) -> dict:
    filled = {**source, **own}
    for key in own.keys() & source.keys():
        if isinstance(own[key], dict) and isinstance(source[key], dict):
            filled[key] = _fill(own[key], source[key])
    return filled
