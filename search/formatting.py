"""How numbers and tables become text: for a terminal of 80 columns, for Markdown, HTML and spreadsheets."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 80
"""Columns of the terminal that every printed table fits into."""


def amount(number: float | None) -> str:
    """A count in three or four digits: 125.49M, 853.0k, 27; a dash for None."""
    if number is None:
        return "-"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.{2 if name != 'k' else 1}f}{name}"
    return f"{number:.0f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.1234 is 12.3 %; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(fraction: float | None, digits: int = 1) -> str:
    """An accuracy, or a difference of two, in percentage points: 0.021 is 2.1; a dash for None and NaN."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def correlation(value: float) -> str:
    """A number in [-1, 1] with its sign and two digits: +0.45; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:+.2f}"


def significant(value: float | None, digits: int = 6) -> str:
    """A number with so many significant digits; a dash for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def milliseconds(seconds: float | None) -> str:
    """Seconds in milliseconds, with one digit behind the point: 0.0231 is 23.1; a dash for None."""
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def byte_size(size: int | None) -> str:
    """Bytes as a count with its unit: 1.09MB; a dash for None."""
    return "-" if size is None else f"{amount(size)}B"


def duration(seconds: float) -> str:
    """A time span: 0.35 s, 12.1 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """A number of things: 1 seed, 3 seeds."""
    return f"{number} {noun}{'s' if number > 1 else ''}"


def aligned(rows: Sequence[Sequence[str]], width: float = math.inf) -> str:
    """Rows of cells as lines whose columns stand below each other, two spaces apart.

    Args:
        rows: all of the same number of cells.
        width: characters of a line; where the lines would be longer, the cells of the first column are cut.

    Returns:
        a line for each row; the first column is aligned to the left, the others to the right.
    """
    return "\n".join(_lines(rows, _column_sizes(rows, width)))


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """A table for a terminal, as `aligned`, with a rule below its header."""
    table = (header, *rows)
    sizes = _column_sizes(table, width)
    head, *lines = _lines(table, sizes)
    return "\n".join([head, "-" * min(width, sum(sizes) + 2 * (len(sizes) - 1)), *lines])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line end behind its last row; spaces around the text of a cell are left out."""
    rule = "|" + "---|" * len(header)
    head, *lines = ("| " + " | ".join(cell.strip() for cell in cells) + " |" for cells in (header, *rows))
    return "\n".join([head, rule, *lines])


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in HTML, every cell escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def csv_table(rows: Iterable[Mapping[str, Any]], header: Sequence[str] = ()) -> str:
    """Records as comma-separated values, with a header.

    Args:
        rows: the records; what one lacks is an empty field.
        header: the columns when there is no record; else all keys, in the order in which they appear.
    """
    rows = list(rows)
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(columns) or list(header), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _column_sizes(rows: Sequence[Sequence[str]], width: float) -> list[int]:
    """Characters of each column; the first one gives way, down to four, where the lines would not fit."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sizes[0] = max(4, int(min(sizes[0], width - sum(sizes[1:]) - 2 * (len(sizes) - 1))))
    return sizes


def _lines(rows: Iterable[Sequence[str]], sizes: Sequence[int]) -> list[str]:
    lines = []
    for row in rows:
        first = row[0] if len(row[0]) <= sizes[0] else row[0][: sizes[0] - 1] + "…"
        cells = [first.ljust(sizes[0]), *(cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
