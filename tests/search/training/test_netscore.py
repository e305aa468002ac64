"""NetScore against its formula, with literal numbers."""

from __future__ import annotations

import math

import pytest

from backbones.errors import SecateurError
from search.training.metrics import netscore


def test_formula_with_its_units() -> None:
    # a = 90 %, p = 4 M, m = 0.25 G: 20 log10(8100 / (2 * 0.5))
    assert netscore(0.9, 4e6, 0.25e9) == pytest.approx(20 * math.log10(8100))


def test_exponents_are_those_given() -> None:
    # a = 10 %, p = 100 M, m = 10 G: 20 (1 * 1 - 1 * 2 - 2 * 1)
    assert netscore(0.1, 1e8, 1e10, alpha=1, beta=1, gamma=2) == pytest.approx(-60)


def test_halving_work_and_size_at_equal_accuracy_is_worth_6_decibel() -> None:
    assert netscore(0.8, 1e6, 1e8) - netscore(0.8, 2e6, 2e8) == pytest.approx(20 * math.log10(2))


@pytest.mark.parametrize(
    ("accuracy", "params", "macs", "message"),
    [
        (93.0, 1, 1, r"0 < accuracy <= 1 must hold \(a fraction, not percent\), but got accuracy=93.0"),
        (0.0, 1, 1, "0 < accuracy <= 1"),
        (0.5, 0, 1, "0 < params must hold, but got params=0"),
        (0.5, 1, -1, "0 < macs must hold"),
    ],
)
def test_bad_values_are_refused(accuracy: float, params: float, macs: float, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        netscore(accuracy, params, macs)
