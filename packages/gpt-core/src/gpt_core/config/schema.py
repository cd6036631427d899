"""What an app's configuration consists of: sections that are dataclasses, and components."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gpt_core.config import factory as factories
from gpt_core.config import tree as trees
from gpt_core.config.coerce import Mismatch, as_plain, coerce, describe, fields_of, hints_of
from gpt_core.config.errors import ConfigError, nearest
from gpt_core.config.factory import Factory
from gpt_core.config.tree import Path, Tree, Value


@dataclass(frozen=True)
class Component:
    """A section with a `module` (dotted path of a factory) and its `module_kwargs`."""

    runtime: frozenset[str] = frozenset()
    """Arguments that the app gives by name when it builds the component: they may be missing."""
    args: int = 0
    """How many arguments the app gives by position (an optimizer gets the model)."""
    optional: bool = False
    """May be null or absent: `Config.component` is then None."""


Schema: TypeAlias = "Mapping[str, type | Component]"
_COMPONENT_KEYS = ("module", "module_kwargs")


def defaults(schema: Schema) -> Tree:
    """The tree of the defaults of all dataclass sections."""
    return {name: _section_defaults(kind) for name, kind in schema.items() if isinstance(kind, type)}


def _section_defaults(section: type) -> Tree:
    tree: Tree = {}
    origin = f"default of {section.__name__}"
    for each in fields_of(section).values():
        if each.default is not dataclasses.MISSING:
            value = as_plain(each.default)
        elif each.default_factory is not dataclasses.MISSING:
            value = as_plain(each.default_factory())
        else:
            continue
        tree[each.name] = trees.tree_of(value, origin) if isinstance(value, dict) else Value(value, origin)
    return tree


class Checker:
    """Checks a resolved tree against a schema; collects every error before raising."""

    def __init__(self, tree: Tree, schema: Schema, live: Mapping[Path, Any]):
        self.tree = tree
        self.schema = schema
        self.live = live
        self.errors: list[str] = []
        self.extra: set[Path] = set()
        """Keys that nothing declares, written with `++`."""

    def check(self) -> dict[str, Any]:
        """Section name -> dataclass instance, `Factory` or None. The tree gets the coerced values."""
        for name in self.tree:
            if name not in self.schema and not str(name).startswith("_"):
                self._unknown((name,), self.tree[name], self.schema)
        parts = {}
        for name, kind in self.schema.items():
            if isinstance(kind, Component):
                parts[name] = self._component(name, kind)
            else:
                parts[name] = self._section(name, kind)
        if self.errors:
            raise ConfigError("\n".join(self.errors))
        return parts

    def _error(self, path: Path, problem: str, node: Value | Tree | None = None) -> None:
        where = f" ({trees.origin_of(node)})" if node is not None else ""
        self.errors.append(f"{trees.dotted(path)}{where}: {problem}")

    def _got(self, path: Path, node: Value | Tree) -> str:
        """What a message shows of a value. Of `${…}` the text: what it stands for may be a secret."""
        return f"got {self.live[path] if path in self.live else trees.plain(node)!r}"

    def _unknown(self, path: Path, node: Value | Tree, options: Any) -> None:
        if trees.is_created(node):
            self.extra.add(path)
        else:
            known = nearest(str(path[-1]), options) or f"; known: {', '.join(options)}"
            self._error(path, f"unknown key{known}", node)

    def _section(self, name: str, section: type) -> Any:
        node = self.tree.setdefault(name, {})
        if not isinstance(node, dict):
            self._error((name,), f"{self._got((name,), node)}, wanted a mapping (an empty one is {{}})", node)
            return None
        self.tree[name] = node = {**_section_defaults(section), **node}
        fields = fields_of(section)
        hints, errors_before, made = hints_of(section), len(self.errors), {}
        for key, item in list(node.items()):
            if key not in fields:
                self._unknown((name, key), item, fields)
                continue
            made[key] = self._coerced(node, (name, key), hints.get(str(key), Any))
        for missing in [each for each in fields if each not in made]:
            self._error((name, missing), f"is required and not set: add it to a file or pass --{name}.{missing}")
        if len(self.errors) > errors_before:
            return None
        try:
            return section(**made)
        except (ValueError, TypeError) as error:  # the section's own __post_init__
            self._error((name,), str(error), node)
            return None

    def _coerced(self, mapping: Tree, path: Path, hint: Any) -> Any:
        """The value at `path` as `hint`, also put back into the tree in plain form."""
        node = mapping[path[-1]]
        data = trees.plain(node)
        if data == "???":
            self._error(path, f"is required: set it in a file or pass --{trees.dotted(path)}", node)
            return None
        try:
            value = coerce(data, hint)
        except Mismatch as error:
            inner = trees.find(node, error.path) if error.path else node
            problem = f"{self._got(path, node)}, wanted {describe(hint)}" if path in self.live else str(error)
            self._error((*path, *error.path), problem, inner if inner is not None else node)
            return None
        if isinstance(node, Value):
            mapping[path[-1]] = Value(as_plain(value), node.origin, node.created)
        return value

    def _component(self, name: str, component: Component) -> Factory | None:
        node = self.tree.get(name)
        if node is None or (isinstance(node, Value) and node.data is None):
            self.tree[name] = node or Value(None, "default of the app")
            if not component.optional:
                self._error((name,), "is required: give its module and module_kwargs", node)
            return None
        if not isinstance(node, dict):
            self._error((name,), f"{self._got((name,), node)}, wanted a mapping with module and module_kwargs", node)
            return None
        self.tree[name] = node = dict(node)
        for key in node:
            if key not in _COMPONENT_KEYS:
                self._unknown((name, key), node[key], _COMPONENT_KEYS)
        module = node.get("module")
        if not isinstance(module, Value) or not isinstance(module.data, str) or module.data == "???":
            self._error((name, "module"), "wanted the dotted path of a factory", module or node)
            return None
        try:
            target = factories.load(module.data)
        except ConfigError as error:
            self._error((name, "module"), str(error), module)
            return None
        kwargs = self._kwargs(name, node, component, module.data, factories.signature_of(target))
        return Factory(module.data, kwargs, target)

    def _kwargs(
        self, name: str, node: Tree, component: Component, module: str, signature: factories.Signature
    ) -> dict[str, Any]:
        given = node.get("module_kwargs", {})
        if isinstance(given, Value) and given.data is None:
            given = {}
        if not isinstance(given, dict):
            self._error(
                (name, "module_kwargs"), f"{self._got((name, 'module_kwargs'), given)}, wanted a mapping", given
            )
            return {}
        node["module_kwargs"] = given = dict(given)
        names = list(signature.parameters)
        taken = [each.name for each in signature.parameters.values() if each.positional][: component.args]
        kwargs = {}
        for key, item in given.items():
            path = (name, "module_kwargs", key)
            if key in taken:
                self._error(path, f"is given by the app; {module} cannot take it from a configuration", item)
            elif key in signature.parameters or signature.open:
                hint = signature.parameters[str(key)].hint if key in signature.parameters else Any
                kwargs[str(key)] = self._coerced(given, path, hint)
            else:
                options = [each for each in names if each not in taken]
                known = nearest(str(key), options) or f"; known: {', '.join(options)}"
                self._error(path, f"{module} takes no {str(key)!r}{known}", item)
        for parameter in signature.parameters.values():
            if parameter.required and parameter.name not in {*taken, *component.runtime, *kwargs}:
                self._error((name, "module_kwargs", parameter.name), f"is required by {module} and not set", node)
        return kwargs
