"""Names that people type, checked against a registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from backbones.errors import SecateurError


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises SecateurError unless `name` is one of `known`; the message names the nearest one."""
    known = tuple(known)
    if name in known:
        return
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SecateurError(f"unknown {kind} {name!r}; {hint}known are {', '.join(known)}")
