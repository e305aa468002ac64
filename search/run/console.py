"""What a person sees: lines, tables within 80 columns, colours only on a terminal; or one JSON object for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

WIDTH = 80
BOLD, DIM, RED, RESET = "\033[1m", "\033[2m", "\033[31m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Console:
    """Where output goes.

    Attributes:
        quiet: only the final result is printed.
        as_json: nothing but one JSON object goes to standard output.
    """

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool:
        """Whether progress bars are wanted (each still keeps silent when standard error is not a terminal)."""
        return not (self.quiet or self.as_json)

    def say(self, text: str = "") -> None:
        """A line on the way to the result."""
        if self.progress:
            print(text, flush=True)

    def head(self, text: str) -> None:
        """The line above a new stage."""
        self.say(f"\n{paint(text, BOLD, sys.stdout)}")

    def result(self, text: str) -> None:
        """A line of the result itself: printed with --quiet too."""
        if not self.as_json:
            print(text, flush=True)

    def record(self, value: Mapping[str, Any]) -> None:
        """The whole result as one JSON object, with --json."""
        if self.as_json:
            print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def paint(text: str, code: str, stream: IO[str]) -> str:
    """`text` in a colour when `stream` is a terminal that knows colours and NO_COLOR is not set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"{code}{text}{RESET}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """A plain table; the first column is left-aligned and cut where the table would be wider than `width`."""
    columns = list(zip(header, *rows, strict=True))
    sizes = [max(map(len, column)) for column in columns]
    sizes[0] = max(4, min(sizes[0], width - sum(sizes[1:]) - 2 * (len(sizes) - 1)))
    lines = []
    for row in (header, *rows):
        first = row[0] if len(row[0]) <= sizes[0] else row[0][: sizes[0] - 1] + "…"
        cells = [first.ljust(sizes[0]), *(cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * min(width, sum(sizes) + 2 * (len(sizes) - 1)), *lines[1:]])


def amount(number: float | None) -> str:
    """A count for people: 125.49M, 853.0k, 27."""
    if number is None:
        return "-"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.{2 if name != 'k' else 1}f}{name}"
    return f"{number:.0f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction for people: 0.1234 is 12.3 %."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"
