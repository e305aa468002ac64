"""Input that cannot be used, said in one line: what is wrong with it, and what would be right."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

_ROOM = str(Path(__file__).parent)
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class SecateurError(ValueError):
    """Input that cannot be used, as opposed to a mistake in secateur itself.

    The message is one line: it names the input, what was wrong with it and what would be right. The command line
    prints it as it is and exits with code 2.
    """


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


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, its class where it says nothing."""
    text = str(error).strip().splitlines()
    return plain_text(text[0]) if text else type(error).__name__


def one_line(error: BaseException, most: int = 200) -> str:
    """All that an exception says as one line, its class where it says nothing; after `most` characters whole words."""
    text = plain_text(str(error)) or type(error).__name__
    return text if len(text) <= most else f"{text[:most].rpartition(' ')[0] or text[:most]} …"


def plain_text(text: str) -> str:
    """One line without colour codes and control characters: what others wrote, safe to be shown on a terminal."""
    return " ".join(_CONTROL.sub(" ", _COLOUR.sub("", text)).split())


def source_line(error: BaseException) -> str:
    """`model.py:12: x = x.view(-1, 64)`: where an exception came from, outside of torch and of this folder.

    Empty when it came from nowhere else.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and not frame.filename.startswith((_ROOM, "<"))
    ]
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
