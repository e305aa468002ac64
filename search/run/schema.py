"""Tables of a TOML file: scales and variants laid over sections, and sections to frozen dataclasses and back."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from backbones.errors import SecateurError, did_you_mean

T = TypeVar("T")
Tables = dict[str, Any]
"""Section (or key of the top level) -> what TOML has there."""
SCALE, SCALES, VARIANTS = "scale", "scales", "variants"
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


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


def at_scale(table: Mapping[str, Any], scale: str | None, sections: Sequence[str]) -> tuple[Tables, Tables]:
    """A study file's tables at one scale.

    `scale = "small"` at the top says which scale holds when none is asked for; `[scales.small.retrain]` takes the place
    of keys in `[retrain]`, `[scales.small.variants.uniform.search]` of keys in `[variants.uniform.search]`, and adds
    variants that this scale alone has. The name of the study ends with the scale, so that scales never mix.

    Args:
        table: the file.
        scale: a name under [scales]; None for the file's own choice.
        sections: names that sections may have.

    Returns:
        the study's tables, with neither scales nor variants; the variants, name -> section -> keys.

    Raises:
        SecateurError: for an unknown scale or section, or tables that are none.
    """
    scales = _tables(table.get(SCALES, {}), f"[{SCALES}]")
    given = table.get(SCALE)
    if given is not None and not isinstance(given, str):
        raise SecateurError(f"scale must be a text, but got {given!r}")
    chosen = scale if scale is not None else given
    plain = {name: value for name, value in table.items() if name not in (SCALE, SCALES, VARIANTS)}
    variants = _variants(table.get(VARIANTS, {}), f"[{VARIANTS}", sections)
    if chosen is None:
        if scales:
            raise SecateurError(f'scale is missing; add scale = "{next(iter(scales))}", one of {_listed(scales)}')
        return plain, variants
    if chosen not in scales:
        raise SecateurError(f"unknown scale {chosen!r}; {_hint(chosen, scales)}")
    for name, tables in scales.items():
        where = f"[{SCALES}.{name}]"
        for section in _tables(tables, where):
            if section not in (*sections, VARIANTS):
                raise SecateurError(unknown_key(where, section, (*sections, VARIANTS)))
    changes = dict(scales[chosen])
    more = _variants(changes.pop(VARIANTS, {}), f"[{SCALES}.{chosen}.{VARIANTS}", sections)
    variants |= {name: merged(variants.get(name, {}), tables) for name, tables in more.items()}
    scaled = merged(plain, changes)
    if isinstance(scaled.get("name"), str):
        scaled["name"] = f"{scaled['name']}-{chosen}"
    return scaled, variants


def with_variant(table: Mapping[str, Any], name: str, changes: Mapping[str, Any]) -> Tables:
    """The study's tables with those of one variant, whose name it takes."""
    return merged(table, changes) | {"name": name}


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> Tables:
    """`table` with the keys of `changes`, section by section: a key that a section has in both is that of `changes`.

    Raises:
        SecateurError: for a section that is no table.
    """
    found = dict(table)
    for section, keys in changes.items():
        before = found.get(section, {})
        for part in (before, keys):
            if not isinstance(part, Mapping):
                raise SecateurError(f"[{section}] must be a section of keys, but got {part!r}")
        found[section] = {**before, **keys}
    return found


def _variants(value: object, where: str, sections: Sequence[str]) -> Tables:
    found = _tables(value, f"{where}]")
    for name, tables in found.items():
        place = f"{where}.{name}]"
        for section in _tables(tables, place):
            if section not in sections:
                raise SecateurError(unknown_key(place, section, sections))
    return found


def _tables(value: object, where: str) -> Tables:
    if not isinstance(value, Mapping) or not all(isinstance(part, Mapping) for part in value.values()):
        raise SecateurError(f"{where} must hold sections of keys, but got {value!r}")
    return dict(value)


def _hint(name: str, scales: Mapping[str, Any]) -> str:
    if not scales:
        return "the study has no [scales]; leave it out"
    near = did_you_mean(name, scales)
    return f"known are {_listed(scales)}" + (near and f" ({near})")


def _listed(scales: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, scales))
