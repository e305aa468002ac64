"""Scales and variants of a study file: tables whose keys take the place of those of the sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backbones.errors import SecateurError, did_you_mean
from search.run.schema import unknown_key

Tables = dict[str, Any]
"""Section (or key of the top level) -> what TOML has there."""
SCALE, SCALES, VARIANTS = "scale", "scales", "variants"


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
