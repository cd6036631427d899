"""The texts of `--help` and `--print-config`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt_core.config import factory as factories
from gpt_core.config import tree as trees
from gpt_core.config.aliases import Alias, Aliases
from gpt_core.config.coerce import Mismatch, as_plain, coerce, describe, fields_of, hints_of
from gpt_core.config.errors import ConfigError
from gpt_core.config.files import Files, first_comment
from gpt_core.config.schema import Component, Schema
from gpt_core.config.tree import Tree

_USAGE = """\
usage: {program} [CONFIG ...] [--section.key VALUE] [--flat_key=VALUE] [--print-config] [--help]

CONFIG is the name of a shipped configuration, the path of a .yaml or .py file, or several joined by ';';
later ones win. ++section.key=VALUE adds a key that nothing declares. null is no value; lists are '[1, 2]'."""


def _program() -> str:
    path = Path(sys.argv[0])
    return (path.parent.name if path.name == "__main__.py" else path.name) or "app"


def table(rows: Iterable[tuple[str, Any, str]]) -> str:
    """Lines of key, value and note in columns."""
    rows = [(key, show(value), note) for key, value, note in rows]
    widths = [max((min(len(row[column]), 48) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {note}".rstrip() for key, value, note in rows)


def show(value: Any) -> str:
    """A value on one line, as YAML would read it."""
    if isinstance(value, str) and value.isprintable() and value.strip() == value and value:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def help_text(schema: Schema, aliases: Aliases, files: Files, tree: Tree, problem: str = "") -> str:
    """Usage, shipped configurations, every key with value, type and documentation, flat keys."""
    parts = [_USAGE.format(program=_program())]
    if problem:
        parts.append(f"The configuration cannot be read, these are the defaults:\n{_indent(problem)}")
    shipped = [(name, first_comment(file), "") for name, file in files.shipped().items()]
    parts.append("Shipped configurations:\n" + _indent(table(shipped) or "none"))
    for name, kind in schema.items():
        if isinstance(kind, Component):
            parts.append(f"{name} (component)\n" + _indent(table(_component_rows(name, kind, tree))))
        else:
            summary = (inspect.getdoc(kind) or "").split("\n", 1)[0]
            parts.append(f"{name}: {summary}\n" + _indent(table(_section_rows(name, kind, tree))))
    flat = {key: alias.paths if isinstance(alias, Alias) else (alias,) for key, alias in aliases.items()}
    rows = [(key, paths[0], "") for key, paths in flat.items() if "." not in key and paths[0].split(".")[0] in schema]
    parts.append("Flat keys:\n" + _indent(table(rows)))
    return "\n\n".join(parts)


def _component_rows(name: str, component: Component, tree: Tree) -> list[tuple[str, Any, str]]:
    """The module, every parameter that it takes, and what the configuration gives besides."""
    node = trees.find(tree, (name,))
    if not isinstance(node, dict):
        return [(name, None, "no component")]
    given = {trees.dotted(path): value for path, value in trees.leaves(node)}
    notes = _parameter_notes(component, node)
    rows = [(key, value.data, notes.pop(key, (None, ""))[1]) for key, value in given.items()]
    rows += [(key, default, note) for key, (default, note) in notes.items()]
    return [(f"{name}.{key}", value, note) for key, value, note in rows]


def _parameter_notes(component: Component, node: Tree) -> dict[str, tuple[Any, str]]:
    """Key below the component -> default, and type with documentation; empty if the factory cannot be imported."""
    module = node.get("module")
    try:
        target = factories.load(str(trees.plain(module))) if module else None
    except ConfigError:
        return {}
    if target is None:
        return {}
    summary = (inspect.getdoc(target) or "").split("\n", 1)[0]
    notes: dict[str, tuple[Any, str]] = {"module": (None, summary)}
    accepts = getattr(target, "accepts", None)
    docs = field_docs(accepts) if dataclasses.is_dataclass(accepts) else {}
    own = inspect.signature(target).parameters
    taken = component.args
    for each in factories.signature_of(target).parameters.values():
        if each.positional and taken:
            taken -= 1
            continue
        kind, default = describe(each.hint), each.default
        if each.name in component.runtime:
            default = "(given by the app)"
        elif each.name not in own:  # passed on: the factory may start from another value, such as a preset's
            kind, default = f"{kind}; {getattr(accepts, '__name__', 'default')}: {show(default)}", "…"
        elif each.required:
            default = "(required)"
        notes[f"module_kwargs.{each.name}"] = (default, f"[{kind}] {docs.get(each.name, '')}".rstrip())
    return notes


def _section_rows(name: str, section: type, tree: Tree) -> list[tuple[str, Any, str]]:
    hints, docs, rows = hints_of(section), field_docs(section), []
    for field in fields_of(section).values():
        node = trees.find(tree, (name, field.name))
        hint = hints.get(field.name, Any)
        value = "(required)" if node is None else _typed(trees.plain(node), hint)
        kind = describe(hint)
        doc = docs.get(field.name, "")
        rows.append((f"{name}.{field.name}", value, f"[{kind}] {doc}".rstrip()))
    return rows


def _typed(value: Any, hint: Any) -> Any:
    """The value as the section will see it; one that does not fit is shown as it is, and told when it is used."""
    try:
        return as_plain(coerce(value, hint))
    except Mismatch:
        return value


def field_docs(section: Any) -> dict[str, str]:
    """Field name -> documentation: the string below the field, its `metadata["doc"]`, or neither."""
    docs = {name: str(field.metadata.get("doc", "")) for name, field in fields_of(section).items()}
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    except (OSError, TypeError, SyntaxError):  # made at run time: no source to read
        return docs
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, below in itertools.pairwise(statements):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")
