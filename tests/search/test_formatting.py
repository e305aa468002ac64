"""Numbers and tables as text."""

from __future__ import annotations

import csv
import io
import math

import pytest

from search.formatting import (
    aligned,
    amount,
    byte_size,
    correlation,
    counted,
    csv_table,
    duration,
    html_table,
    markdown_table,
    milliseconds,
    percent,
    points,
    significant,
    text_table,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.346, "0.35 s"),
        (12.06, "12.1 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_their_absence() -> None:
    assert [amount(n) for n in (125_490_000, 853_000, 27, 1.5e9, None)] == ["125.49M", "853.0k", "27", "1.50G", "-"]
    assert [percent(0.1234), percent(0.5, 0), percent(None)] == ["12.3 %", "50 %", "-"]
    assert [points(0.021), points(0.9731, 2), points(math.nan), points(None)] == ["2.1", "97.31", "-", "-"]
    assert [correlation(0.448), correlation(-1), correlation(math.nan)] == ["+0.45", "-1.00", "-"]
    assert [significant(0.87562312), significant(12.34, 2), significant(None)] == ["0.875623", "12", "-"]
    assert [milliseconds(0.02311), milliseconds(None)] == ["23.1", "-"]
    assert [byte_size(1_090_000), byte_size(None)] == ["1.09MB", "-"]
    assert [counted(1, "seed"), counted(3, "seed")] == ["1 seed", "3 seeds"]


def test_a_table_too_wide_cuts_its_first_column_only() -> None:
    text = text_table(("name", "value"), [("n" * 90, "12"), ("short", "3")], width=20)
    assert text.splitlines() == ["name           value", "-" * 20, f"{'n' * 12}…     12", "short              3"]


def test_aligned_rows_stand_below_each_other() -> None:
    assert aligned([("", "MACs"), ("dense", "5"), ("budget", "100")]) == "        MACs\ndense      5\nbudget   100"


def test_markdown() -> None:
    assert markdown_table(("", "n"), [["  a", "1"]]) == "|  | n |\n|---|---|\n| a | 1 |"


def test_html_is_escaped() -> None:
    assert html_table(("<b>",), [("a&b",)]) == (
        "<table><thead><tr><th>&lt;b&gt;</th></tr></thead><tbody><tr><td>a&amp;b</td></tr></tbody></table>"
    )


def test_csv_has_every_column_once() -> None:
    text = csv_table([{"a": 1, "b": 'say "x", y'}, {"b": None, "c": 0.5}])
    assert text.startswith("a,b,c\n")
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "1", "b": 'say "x", y', "c": ""},
        {"a": "", "b": "", "c": "0.5"},
    ]
    assert csv_table([], ("a", "b")) == "a,b\n"
