"""Values into the types that dataclass fields and factory parameters declare.

| wanted      | accepted                                                        |
|-------------|-----------------------------------------------------------------|
| int         | whole numbers, also written as floats: `1e3` is 1000            |
| float       | any number                                                      |
| bool        | true / false; on the command line also yes, no, on, off, 1, 0   |
| str         | text only; on the command line everything, as it is written     |
| list, tuple | lists, each item coerced                                        |
| X or None   | null                                                            |

Types that are none of these (a module, a device) are not checked.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

_TRUE = {"y", "yes", "t", "true", "on", "1"}
_FALSE = {"n", "no", "f", "false", "off", "0"}


class Mismatch(ValueError):
    """A value that is not of the wanted type; `wanted` describes the type, `path` the place inside the value."""

    def __init__(self, value: Any, hint: Any, path: tuple[str, ...] = (), reason: str = ""):
        got = f"{str(value)!r}" if isinstance(value, Text) else f"{value!r} ({type(value).__name__})"
        super().__init__(reason or f"got {got}, wanted {describe(hint)}")
        self.path = path


class Text(str):
    """A value as it was typed on the command line: its type is still open."""

    __slots__ = ()

    def parse(self) -> Any:
        """The value YAML reads in this text. Only text that starts like a list or mapping becomes one."""
        import yaml
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        bracketed = self.lstrip().startswith(("[", "{"))
        if self == "None":  # as Python configurations write it
            return None
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={self}"]), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
            if bracketed:
                raise Mismatch(self, list, reason=f"{str(self)!r} is not a valid YAML list or mapping") from error
            return str(self)
        assert isinstance(parsed, dict)
        value = parsed["value"]
        return str(self) if isinstance(value, list | dict) and not bracketed else value


def describe(hint: Any) -> str:
    """A type as messages and `--help` show it."""
    if hint is type(None):
        return "null"
    if _union_members(hint):
        return " or ".join(describe(member) for member in _union_members(hint))
    if typing.get_origin(hint) is Literal:
        return " | ".join(repr(option) if option is not None else "null" for option in typing.get_args(hint))
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def coerce(value: Any, hint: Any) -> Any:
    """`value` as `hint`; raises `Mismatch`."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if _union_members(hint):
        return _union(value, hint)
    if typing.get_origin(hint) is Literal:
        return _literal(value, hint)
    if hint is str:
        return _str(value)
    if isinstance(value, Text) and hint in (bool, int, float):
        return _number_from_text(value, hint)
    if isinstance(value, Text):
        value = value.parse()
    if hint is bool:
        if not isinstance(value, bool):
            raise Mismatch(value, hint)
        return value
    if hint is int or hint is float:
        return _number(value, hint)
    if hint is type(None):
        if value is not None:
            raise Mismatch(value, hint)
        return None
    return _container(value, hint)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch(value, str, reason=f"got {value!r} ({type(value).__name__}), wanted str: write it in quotes")
    return str(value)


def _number(value: Any, hint: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mismatch(value, hint)
    if hint is int and isinstance(value, float) and not value.is_integer():
        raise Mismatch(value, hint)
    return hint(value)


def _number_from_text(text: Text, hint: type) -> Any:
    """Python's reading of a number: YAML would take 012 for ten and 1:30 for ninety."""
    word = text.strip().lower()
    if hint is bool:
        if word not in _TRUE | _FALSE:
            raise Mismatch(text, bool, reason=f"got {str(text)!r}, wanted bool: true or false")
        return word in _TRUE
    for read in (int, float, lambda digits: int(digits, 0)):
        try:
            return _number(read(word), hint)
        except ValueError:
            continue
    raise Mismatch(text, hint)


def _union_members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else ()


def _union(value: Any, hint: Any) -> Any:
    members = _union_members(hint)
    typed = value
    if isinstance(value, Text):
        typed = value.parse()
        if type(None) in members and typed is None and value:
            return None
        members = [member for member in members if member is not type(None)]  # `--key=` is an empty text
    # the exact type first: 3 stays an int in `float | int`. Then what is checked; text only after all numbers
    for member in sorted(members, key=lambda member: (member is not type(typed) or member is str, _doubt(member))):
        try:
            return coerce(value, member)
        except Mismatch:
            continue
    raise Mismatch(value, hint)


def _doubt(hint: Any) -> int:
    """How little a value says that fits: text fits everything typed, other types are not checked."""
    origin = typing.get_origin(hint) or hint
    checked = origin in (bool, int, float, type(None), Literal, list, Sequence, tuple, dict, Mapping, Union)
    if checked or dataclasses.is_dataclass(hint):
        return 0
    return 1 if origin in (str, Path) else 2


def _literal(value: Any, hint: Any) -> Any:
    options = typing.get_args(hint)
    candidates = (str(value), value.parse()) if isinstance(value, Text) else (value,)
    for candidate in candidates:
        for option in options:
            if option == candidate and type(option) is type(candidate):
                return option
    if isinstance(value, bool):  # YAML reads an unquoted off, no, on or yes as a boolean
        words = [option for option in options if option in (_TRUE if value else _FALSE)]
        if len(words) == 1:
            return words[0]
    raise Mismatch(value, hint)


def _container(value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (list, Sequence):
        if not isinstance(value, list | tuple):
            raise Mismatch(value, hint)
        return [coerce(item, args[0]) for item in value] if args else list(value)
    if origin is tuple:
        return _tuple(value, hint, args)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise Mismatch(value, hint)
        return {key: coerce(item, args[1]) for key, item in value.items()} if args else value
    if origin is Path:
        return Path(_str(value))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(value, hint)
    return value


def _tuple(value: Any, hint: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Mismatch(value, hint)
    if not args:
        return tuple(value)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise Mismatch(value, hint, reason=f"got {len(value)} items, wanted {len(args)}: {describe(hint)}")
    return tuple(coerce(item, arg) for item, arg in zip(value, args, strict=True))


def _dataclass(value: Any, hint: type) -> Any:
    from gpt_core.config.errors import nearest

    if not isinstance(value, dict):
        raise Mismatch(value, hint)
    fields = fields_of(hint)
    hints = hints_of(hint)
    made = {}
    for key, item in value.items():
        if key not in fields:
            raise Mismatch(value, hint, (str(key),), f"unknown key{nearest(str(key), fields)}")
        try:
            made[key] = coerce(item, hints.get(key, Any))
        except Mismatch as error:
            raise Mismatch(item, hints[key], (str(key), *error.path), str(error)) from None
    missing = [name for name, field in fields.items() if name not in made and is_required(field)]
    if missing:
        raise Mismatch(value, hint, reason=f"needs {', '.join(missing)}")
    return hint(**made)


def fields_of(section: Any) -> dict[str, dataclasses.Field]:
    """Name -> field of a dataclass, for those that its constructor takes."""
    return {field.name: field for field in dataclasses.fields(section) if field.init}


def is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def hints_of(target: Any) -> dict[str, Any]:
    """The annotations of a function or class; those that cannot be evaluated here are left out."""
    source = target.__init__ if isinstance(target, type) and not dataclasses.is_dataclass(target) else target
    try:
        return typing.get_type_hints(source)
    except (NameError, TypeError, AttributeError):  # names imported for type checkers only
        return {}


def as_plain(value: Any) -> Any:
    """A coerced value as YAML can hold it: tuples as lists, dataclasses as mappings, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
