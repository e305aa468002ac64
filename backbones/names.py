"""Names that people type, checked against the names that exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from backbones.errors import SecateurError


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Checks that a name exists.

    Args:
        kind: what the name is of, for the message: `sampler`, `group`.
        name: as it was typed.
        known: the names that exist.

    Raises:
        SecateurError: when `name` is not one of `known`; the message gives the nearest one and all of them.
    """
    known = tuple(known)
    if name not in known:
        hint = " ".join(filter(None, [did_you_mean(name, known), f"known are {', '.join(known)}"]))
        raise SecateurError(f"unknown {kind} {name!r}; {hint}")


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """`did you mean 'tpe'?` with the name in `known` nearest to `name`, capitals aside; empty when none is near."""
    folded = {str(one).casefold(): str(one) for one in known}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else ""
