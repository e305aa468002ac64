"""Tables of a TOML file to frozen dataclasses and back: strict about keys, types and ranges, in one line each."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from backbones.errors import SecateurError, did_you_mean

T = TypeVar("T")


def read_table(cls: type[T], table: object, section: str, folder: Path) -> T:
    """The dataclass `cls` from one TOML table.

    Args:
        cls: a dataclass; its type hints say what is accepted, its defaults what may be left out.
        table: what the TOML parser returned for the section.
        section: how messages name the section, `[search]`; empty for the top level.
        folder: relative paths start here.

    Raises:
        SecateurError: for a key that is unknown (with the nearest known one), missing, of the wrong type, or outside
            its range (as checked by the dataclass itself).
    """
    if not isinstance(table, Mapping):
        raise SecateurError(f"{section} must be a section of keys, but got {table!r}")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            raise SecateurError(unknown_key(section, name, fields))
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], _label(section, name), folder)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SecateurError(
                f"{_label(section, name)} is missing; {attribute_texts(cls).get(name, 'it has no default')}"
            )
    try:
        return cls(**values)
    except SecateurError as error:
        raise SecateurError(f"{section} {str(error).removeprefix('recipe: ')}".strip()) from None


def unknown_key(section: str, name: str, known: Iterable[str]) -> str:
    """The message for a key that does not exist: the nearest one that does, or all of them."""
    known = list(known)
    hint = did_you_mean(name, known) or f"known keys are {', '.join(known)}"
    return f"{section + ' has' if section else 'there is'} no key {name!r}; {hint}"


def attribute_texts(cls: type) -> dict[str, str]:
    """Attribute name -> its text in the `Attributes:` part of the class's docstring, on one line."""
    text = inspect.getdoc(cls) or ""
    _, _, part = text.partition("Attributes:\n")
    entries = re.findall(r"^    ([\w, ]+): (.*(?:\n {8,}.*)*)", part, flags=re.MULTILINE)
    return {name.strip(): " ".join(body.split()) for names, body in entries for name in names.split(",")}


def to_toml(value: object) -> str:
    """One TOML value: texts, numbers, booleans, paths; lists, mappings and dataclasses of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {to_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else to_toml(name)


def _label(section: str, name: str) -> str:
    return f"{section} {name}".strip()


def _convert(hint: Any, value: object, label: str, folder: Path) -> Any:
    """`value` as the type `hint` asks for; the one place that knows the types a study file may hold."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union([option for option in arguments if option is not type(None)], value, label, folder)
    if origin is Literal:
        if value not in arguments:
            near = did_you_mean(value, arguments)
            raise SecateurError(f"{label} must be {_choices(arguments)}, but got {value!r}" + (near and f" ({near})"))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise SecateurError(f"{label} must be a list, but got {value!r}")
        return tuple(_convert(arguments[0], item, label, folder) for item in value)
    if origin in (Mapping, dict):
        if not isinstance(value, dict):
            raise SecateurError(f"{label} must be a table, but got {value!r}")
        return {name: _convert(arguments[1], item, f"{label}.{name}", folder) for name, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_table(hint, value, label, folder)
    if hint is Path and isinstance(value, str) and value:
        return Path(folder, _expanded(value, label))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = {bool: bool, int: int, float: float, str: str}.get(hint)
    if plain is None or not isinstance(value, plain) or (hint is int and isinstance(value, bool)):
        raise SecateurError(f"{label} must be {_WORDS[hint]}, but got {value!r}")
    return value


def _expanded(value: str, label: str) -> Path:
    """A path with `~` and environment variables put in.

    Raises:
        SecateurError: for a variable that is not set.
    """
    known = os.path.expandvars(value)
    unset = re.search(r"\$\{?\w+\}?", known)
    if unset:
        raise SecateurError(f"{label} needs the environment variable {unset[0]}, which is not set: {value!r}")
    return Path(known).expanduser()


def _convert_union(options: list[Any], value: object, label: str, folder: Path) -> Any:
    exact = [option for option in options if isinstance(option, type) and type(value) is option]
    words = []
    for option in exact + options:
        try:
            return _convert(option, value, label, folder)
        except SecateurError as error:
            if len(options) == 1:
                raise
            words.append(str(error).removeprefix(f"{label} must be ").rpartition(", but got")[0])
    raise SecateurError(f"{label} must be {', '.join(dict.fromkeys(words))}, but got {value!r}")


def _choices(values: Iterable[object]) -> str:
    *first, last = [repr(value) for value in values]
    return f"{', '.join(first)} or {last}" if first else last


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
