"""`load_config`: from a command line to a checked configuration."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt_core.config import directives, overrides, schema
from gpt_core.config import tree as trees
from gpt_core.config.aliases import ALIASES, Aliases
from gpt_core.config.errors import ConfigError, nearest
from gpt_core.config.factory import Factory
from gpt_core.config.files import Files
from gpt_core.config.python_file import read_python
from gpt_core.config.schema import Checker, Schema
from gpt_core.config.tree import Tree


class Config:
    """A resolved and checked configuration. Does not change."""

    def __init__(self, tree: Tree, schema: Schema, live: Mapping[trees.Path, Any]):
        """Checks `tree`, which has no directives, against `schema`; `live`: the text of values that were `${…}`."""
        checker = Checker(tree, schema, live)
        self._parts: Mapping[str, Any] = checker.check()
        self._tree = checker.tree
        self._schema = schema
        self._live = live
        self._extra = checker.extra

    @property
    def tree(self) -> dict[str, Any]:
        """The configuration as plain nested dicts, lists and scalars."""
        return copy.deepcopy(trees.plain(self._tree))

    @property
    def safe_tree(self) -> dict[str, Any]:
        """As `tree`, but with `${…}` as it was written: what may be logged, as environment values may be secret."""
        return copy.deepcopy(trees.plain(trees.replaced(self._tree, self._live)))

    def origin(self, key: str) -> str:
        """Where the value of a dotted key was written: `base.yaml:12`, `command line`, `default of X`."""
        node = trees.find(self._tree, tuple(key.split(".")))
        if node is None:
            known = [trees.dotted(path) for path, _ in trees.leaves(self._tree)]
            raise ConfigError(f"no key {key!r} in this configuration{nearest(key, known)}")
        return trees.origin_of(node)

    def changed(self, values: Mapping[str, Any], origin: str) -> Config:
        """A configuration with other values at some dotted keys, which `origin` says where they are from.

        Raises `ConfigError` for a key or value that does not fit.
        """
        tree, live = self._tree, dict(self._live)
        for key, value in values.items():
            path = tuple(key.split("."))
            node: trees.Value | Tree = trees.Value(value, origin)
            if isinstance(value, Mapping):
                node = {trees.INHERIT: trees.Value(False, origin), **trees.tree_of(value, origin)}
            tree = trees.merge(tree, trees.nest(path, node))
            live.pop(path, None)
        return Config(trees.without_marks(tree), self._schema, live)

    def section(self, name: str) -> Any:
        """The dataclass instance of a section."""
        part = self._part(name)
        if isinstance(part, Factory) or part is None:
            raise ConfigError(f"{name!r} is a component: use Config.component({name!r})")
        return part

    def component(self, name: str) -> Any:
        """The `Factory` of a component; None for an optional one that is null."""
        part = self._part(name)
        if part is not None and not isinstance(part, Factory):
            raise ConfigError(f"{name!r} is not a component: use Config.section({name!r})")
        return part

    def _part(self, name: str) -> Any:
        if name not in self._parts:
            raise ConfigError(f"no section {name!r}{nearest(name, self._parts)}")
        return self._parts[name]

    def to_yaml(self) -> str:
        """YAML that loads back to this configuration. `${…}` stays as written: secrets are read again, not stored."""
        from omegaconf import OmegaConf

        tree = trees.map_strings(self._tree, directives.escape)
        live = {path: directives.escape_directives(data) for path, data in self._live.items()}
        return OmegaConf.to_yaml(OmegaConf.create(self._marked(trees.replaced(tree, live), ())))

    def _marked(self, tree: Tree, path: trees.Path) -> dict[Any, Any]:
        """Plain data, with `++` before the keys that nothing declares."""
        data = {}
        for key, node in tree.items():
            place = (*path, key)
            name = f"{trees.CREATE}{key}" if place in self._extra else key
            data[name] = self._marked(node, place) if isinstance(node, dict) else node.data
        return data

    def describe(self) -> str:
        """One line per key: its value and where that came from."""
        from gpt_core.config.help import table

        written = trees.leaves(trees.replaced(self._tree, self._live))
        return table((trees.dotted(path), value.data, value.origin) for path, value in written)

    def export_env(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Puts the keys of the top-level mapping `_env` into `environ` (`os.environ`)."""
        target = os.environ if environ is None else environ
        node = self._tree.get("_env", {})
        for key, value in (trees.plain(node) or {}).items():
            if not isinstance(value, str):
                raise ConfigError(f"_env.{key}: got {value!r}, wanted text: write it in quotes")
            target[str(key)] = value


def load_config(
    argv: Sequence[str],
    *,
    schema: Schema,
    config_dirs: Sequence[str | Path] = (),
    default: str | None = None,
    aliases: Aliases = ALIASES,
    environ: Mapping[str, str] | None = None,
    clock: datetime | None = None,
) -> Config:
    """Reads the configurations that `argv` names, applies its overrides, resolves and checks everything.

    `schema` maps every section to its dataclass or `Component`; `config_dirs` hold the shipped configurations
    and `default` names the one used when `argv` names none. Several configurations merge left to right, then
    the overrides. `environ` (`os.environ`) is used for `$NAME` in file names; `clock` (now) is the time of every
    `_time:`, so give all processes the same.

    Raises `ConfigError` with every problem found. `--help` and `--print-config` print and exit with status 0.
    """
    arguments = overrides.parse(argv)
    files = Files(config_dirs, os.environ if environ is None else environ)
    loader = _Loader(schema, aliases, files, clock or datetime.now())
    if arguments.help:
        from gpt_core.config.help import help_text

        print(help_text(schema, aliases, files, *loader.for_help(arguments, default)))
        raise SystemExit(0)
    config = loader.load(arguments, default)
    if arguments.print_config:
        print(config.describe())
        raise SystemExit(0)
    return config


class _Loader:
    """The steps of `load_config` that look at the same schema, files and clock."""

    def __init__(self, schema: Schema, aliases: Aliases, files: Files, clock: datetime):
        self.schema = schema
        self.files = files
        self.clock = clock
        self.applier = overrides.Applier(schema, aliases)

    def load(self, arguments: overrides.Arguments, default: str | None) -> Config:
        tree = self.merged(arguments, default)
        tree = trees.merge(tree, self.applier.overlay(self.view(tree), arguments.overrides))
        resolved, live = directives.resolve(self.with_defaults(tree), self.clock)
        return Config(resolved, self.schema, live)

    def merged(self, arguments: overrides.Arguments, default: str | None) -> Tree:
        """The files, left to right. Python files alone lie on top of the default configuration."""
        found = [self.files.find(name) for name in arguments.positionals]
        if default is not None and all(file.suffix == ".py" for file in found):
            found.insert(0, self.files.find(default))
        tree: Tree = {}
        for file in found:
            if file.suffix == ".py":
                values = read_python(file, self.files.name(file))
                tree = trees.merge(tree, self.applier.overlay(self.view(tree), values))
            else:
                tree = trees.merge(tree, self.files.read(file))
        return tree

    def with_defaults(self, tree: Tree) -> Tree:
        return trees.without_marks(trees.merge(schema.defaults(self.schema), trees.without_marks(tree)))

    def view(self, tree: Tree) -> Tree:
        """The tree resolved as far as it goes, to know which keys exist and of what type they are."""
        tree = self.with_defaults(tree)
        try:
            return directives.resolve(tree, self.clock)[0]
        except ConfigError:  # an override may mend it; what stays broken is told at the end
            return tree

    def for_help(self, arguments: overrides.Arguments, default: str | None) -> tuple[Tree, str]:
        """The tree to show in `--help` and, where a file is broken, what is wrong with it."""
        try:
            return self.view(self.merged(arguments, default)), ""
        except ConfigError as error:
            return self.with_defaults({}), str(error)
