"""Overrides: `--a.b.c value`, `--a.b.c=value`, flat flags, and the values of Python configurations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt_core.config import factory as factories
from gpt_core.config import tree as trees
from gpt_core.config.aliases import SWITCHES, Alias, Aliases
from gpt_core.config.coerce import Mismatch, Text, as_plain, coerce, fields_of, hints_of
from gpt_core.config.directives import is_directive
from gpt_core.config.errors import ConfigError, nearest
from gpt_core.config.schema import Component, Schema
from gpt_core.config.tree import CREATE, Path, Tree, Value

COMMAND_LINE = "command line"
_UNKNOWN = object()


@dataclass(frozen=True)
class Override:
    """One value for one key, flat or dotted."""

    key: str
    value: Any
    """`Text` from the command line, a Python value from a Python configuration."""
    origin: str
    create: bool = False


@dataclass
class Arguments:
    """A command line, taken apart."""

    positionals: list[str] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    help: bool = False
    print_config: bool = False


def parse(argv: Sequence[str]) -> Arguments:
    """Splits the command line; `--k v` and `--k=v` are overrides, `;` separates configurations."""
    arguments = Arguments()
    items = iter(argv)
    for item in items:
        flag = item.removeprefix("--")
        if item in ("-h", "--help"):
            arguments.help = True
        elif item in ("--print-config", "--print_config"):
            arguments.print_config = True
        elif item.startswith(("--", CREATE)):
            key, equals, value = flag.partition("=")
            if not equals and key.replace("-", "_") in SWITCHES:
                value = "true"
            elif not equals:
                value = next(items, None)
                if value is None or value.startswith("--"):
                    raise ConfigError(f"{item} needs a value: {item} VALUE or {item}=VALUE")
            if not key.removeprefix(CREATE):
                raise ConfigError(f"{item!r} names no key; an override is --section.key VALUE")
            if "." not in key:  # --target-flops is --target_flops; a key of a mapping may have a hyphen
                key = key.replace("-", "_")
            create = key.startswith(CREATE)
            override = Override(key.removeprefix(CREATE), Text(value), COMMAND_LINE, create)
            arguments.overrides.append(override)
        elif item.startswith("-") and len(item) > 1:
            raise ConfigError(f"unknown flag {item!r}; an override is --section.key VALUE, for help use --help")
        else:
            arguments.positionals += [name for name in item.split(";") if name]
    return arguments


class Applier:
    """Turns overrides into a tree to merge, with the types of what they replace."""

    def __init__(self, schema: Schema, aliases: Aliases):
        self.schema = schema
        self.aliases = {key: Alias(to) if isinstance(to, str) else to for key, to in aliases.items()}
        self.signatures: dict[str, factories.Signature | None] = {}

    def overlay(self, view: Tree, overrides: Sequence[Override]) -> Tree:
        """The tree of the overrides. `view` is the configuration below them, resolved; raises every error at once."""
        made: Tree = {}
        errors: list[str] = []
        for override in self._ordered(overrides):
            try:
                path = self.path(override, view)
                path, node = self._into_list(path, self._node(override, path, view), view)
            except ConfigError as error:
                errors.append(str(error))
                continue
            made = trees.merge(made, trees.nest(path, node))
            if path[-1] != trees.INHERIT:
                view = trees.merge(view, trees.nest(path, node))
        if errors:
            raise ConfigError("\n".join(errors))
        return made

    def _ordered(self, overrides: Sequence[Override]) -> list[Override]:
        """The last override of each key, with the values of its alias.

        Swapped modules and `_inherit` come first: they decide which keyword arguments exist. Switches turned off
        come next: `use_zero1=False` must not undo `use_fsdp=True`.
        """
        last = {override.key: position for position, override in enumerate(overrides)}
        ranked = []
        for position in sorted(last.values()):
            override = overrides[position]
            value, is_off = self._renamed(override)
            decides = override.key.endswith((".module", f".{trees.INHERIT}"))
            ranked.append((0 if decides else 1 if is_off else 2, dataclasses.replace(override, value=value)))
        return [override for _, override in sorted(ranked, key=lambda each: each[0])]

    def _renamed(self, override: Override) -> tuple[Any, bool]:
        """The value as the tree calls it, and whether it turns a switch off."""
        value = override.value
        alias = self.aliases.get(override.key)
        if alias is None or not alias.values:
            return value, False
        try:
            typed = value.parse() if isinstance(value, Text) else value
        except Mismatch:  # told with its key when it is coerced
            return value, False
        names = [new for old, new in alias.values if old == typed]
        return (names[0], typed is False) if names else (value, False)

    def path(self, override: Override, view: Tree) -> Path:
        """The place an override means: the first one its alias names that this configuration knows."""
        if override.key == "__include__":
            raise ConfigError(f"{override.origin}: __include__ belongs in a file; name the file as an argument instead")
        alias = self.aliases.get(override.key, Alias(override.key))
        candidates = [tuple(name.split(".")) for name in alias.paths]
        for path in candidates:
            if self.hint(path, view) is not _UNKNOWN:
                return path
        if override.create:
            return candidates[0]
        flag = override.key if override.key in self.aliases else trees.dotted(candidates[0])
        means = f" (it means {trees.dotted(candidates[0])})" if override.key in self.aliases else ""
        suggestion = self._suggest(candidates[0], override.key, view)
        raise ConfigError(f"{override.origin}: unknown key {flag!r}{means}{suggestion}")

    def hint(self, path: Path, view: Tree) -> Any:
        """The declared type at `path`, else the type of what stands there, else Any; `_UNKNOWN` if nothing does."""
        declared = self._declared(path, view)
        if declared not in (_UNKNOWN, Any):
            return declared
        node = trees.find(view, path)
        if node is None:
            node = self._item(path, view)
        if node is None:
            directive = path[-1] in (trees.INHERIT, trees.COPY) and trees.find(view, path[:-1]) is not None
            return Any if directive else declared
        if isinstance(node, dict):
            return dict
        if node.data is None or is_directive(str(node.data)):
            return Any
        return type(node.data)

    def _declared(self, path: Path, view: Tree) -> Any:
        kind = self.schema.get(str(path[0]))
        if kind is None:
            return _UNKNOWN
        if len(path) == 1:
            return Any if isinstance(kind, Component) else dict
        if isinstance(kind, Component):
            return self._declared_kwarg(path, view)
        for part in path[1:]:
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)) or part not in fields_of(kind):
                return _UNKNOWN
            kind = hints_of(kind).get(str(part), Any)
        return kind

    def _declared_kwarg(self, path: Path, view: Tree) -> Any:
        if path[1] == "module":
            return str if len(path) == 2 else _UNKNOWN
        if path[1] != "module_kwargs":
            return _UNKNOWN
        if len(path) == 2:
            return dict
        signature = self._signature(view, str(path[0]))
        if len(path) > 3:
            return _UNKNOWN
        if signature is None or path[2] in signature.parameters:
            return signature.parameters[str(path[2])].hint if signature else Any
        return Any if signature.open else _UNKNOWN

    def _signature(self, view: Tree, component: str) -> factories.Signature | None:
        """The signature of a component's factory; None if it has no factory (yet) that can be imported."""
        module = trees.find(view, (component, "module"))
        if not isinstance(module, Value) or not isinstance(module.data, str):
            return None
        if module.data not in self.signatures:
            try:
                self.signatures[module.data] = factories.signature_of(factories.load(module.data))
            except ConfigError:  # told later, with the errors of the other components
                self.signatures[module.data] = None
        return self.signatures[module.data]

    def _list(self, path: Path, view: Tree) -> list[Any] | None:
        """The list at `path`, or the one that is the default of a factory's parameter."""
        node = trees.find(view, path)
        if node is None and len(path) == 3 and path[1] == "module_kwargs":
            signature = self._signature(view, str(path[0]))
            parameter = signature.parameters.get(str(path[2])) if signature else None
            return list(parameter.default) if parameter and isinstance(parameter.default, list | tuple) else None
        return node.data if isinstance(node, Value) and isinstance(node.data, list) else None

    def _item(self, path: Path, view: Tree) -> Value | None:
        """The item of a list that `a.list.0` names."""
        items, index = self._list(path[:-1], view), str(path[-1])
        if items is None or not index.isdecimal() or int(index) >= len(items):
            return None
        return Value(items[int(index)], "")

    def _into_list(self, path: Path, node: Value | Tree, view: Tree) -> tuple[Path, Value | Tree]:
        """An override of one item as an override of its list."""
        if self._item(path, view) is None:
            return path, node
        items = list(self._list(path[:-1], view) or [])
        items[int(path[-1])] = trees.plain(node)
        return path[:-1], Value(items, trees.origin_of(node))

    def _suggest(self, path: Path, flag: str, view: Tree) -> str:
        known = {trees.dotted(place) for place, _ in trees.leaves(view)}
        for name, kind in self.schema.items():
            known.add(name)
            if isinstance(kind, Component):
                signature = self._signature(view, name)
                known |= {f"{name}.module_kwargs.{each}" for each in (signature.parameters if signature else ())}
            else:
                known |= {f"{name}.{each}" for each in fields_of(kind)}
        flat = "." not in flag
        found = nearest(flag, self.aliases) if flat and flag not in self.aliases else ""
        beside = [place for place in known if place.rpartition(".")[0] == trees.dotted(path[:-1])]
        fallback = f"; known: {', '.join(sorted(beside))}" if len(path) > 1 and beside else ""
        sections = f"; known sections: {', '.join(self.schema)}"
        return found or nearest(trees.dotted(path), known) or fallback or sections

    def _node(self, override: Override, path: Path, view: Tree) -> Value | Tree:
        value: Any = override.value
        if isinstance(value, str) and is_directive(value):
            return Value(str(value), override.origin, override.create)
        hint = self.hint(path, view)
        try:
            if hint is dict or (dataclasses.is_dataclass(hint) and isinstance(hint, type)):
                value = _mapping(value)
            else:
                value = coerce(value, Any if hint is _UNKNOWN else hint)
        except Mismatch as error:
            raise ConfigError(f"{override.origin}: {trees.dotted(path)}: {error}") from None
        if isinstance(value, dict):
            return trees.tree_of(value, override.origin, override.create)
        return Value(as_plain(value), override.origin, override.create)


def _mapping(value: Any) -> Any:
    """A mapping (merged over what is there) or null."""
    if isinstance(value, Text):
        value = value.parse()
    if value is not None and not isinstance(value, dict):
        raise Mismatch(value, dict, reason=f"got {value!r}, wanted a mapping such as '{{key: value}}', or null")
    return value
