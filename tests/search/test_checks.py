"""Checks that several rooms of the search share."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from backbones.errors import SecateurError
from search.checks import check_range, check_study_name


@pytest.mark.parametrize("name", ["..", ".", "", ".hidden", "a/b", "a\\b", "/etc", "a\n", "a b", "x" * 101, "é"])
def test_names_that_could_leave_their_folder(name: str) -> None:
    with pytest.raises(SecateurError, match="name must be"):
        check_study_name(name)


@pytest.mark.parametrize("name", ["digits", "resnet56-c10", "a.b_c", "0", "x" * 100])
def test_names_that_are_fine(name: str) -> None:
    check_study_name(name)


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0, {"low": 1}, "1 <= top must hold, but got top=0"),
        (0.0, {"low": 0, "above": True}, "0 < top must hold, but got top=0.0"),
        (1.0, {"low": 0, "high": 1, "below": True}, "0 <= top < 1 must hold, but got top=1.0"),
        (1.5, {"low": 0, "high": 1}, "0 <= top <= 1 must hold, but got top=1.5"),
        (math.inf, {"low": 0}, "0 <= top must hold, but got top=inf"),
        (math.nan, {"low": 0}, "0 <= top must hold, but got top=nan"),
        ("3", {"low": 0}, "0 <= top must hold, but got top='3'"),
        (True, {"low": 0, "where": "recipe"}, "recipe: 0 <= top must hold, but got top=True"),
    ],
)
def test_what_is_out_of_range_is_one_line(value: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(SecateurError, match=f"^{re.escape(text)}$"):
        check_range("top", value, **options)


@pytest.mark.parametrize("value", [None, 0, 0.5, 1])
def test_the_ends_are_inside_and_none_is_not_given(value: float | None) -> None:
    check_range("top", value, 0, 1)
