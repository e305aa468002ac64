"""Amounts, bands and targets."""

from __future__ import annotations

import pytest

from backbones import Cost, SecateurError
from search.budget import Budget, Target

DENSE = Cost(macs=1_000_000, params=50_000)


def bounds(budget: Budget) -> list[tuple[str, float, float]]:
    return [(b.axis, round(b.low), round(b.high)) for target in budget.targets(DENSE) for b in target.bounds]


@pytest.mark.parametrize("amount", [0.3, "30%", "0.3", 300_000, "300k", "0.3M", "3e5"])
def test_a_single_amount_is_a_cap_filled_to_two_percent(amount: float | str) -> None:
    budget = Budget(macs=amount)
    assert bounds(budget) == [("macs", 294_000, 300_000)]
    assert budget.objectives == 1


@pytest.mark.parametrize("band", ["10%..30%", "0.1 .. 0.3", "100k..300k"])
def test_a_band_has_both_ends_and_two_objectives(band: str) -> None:
    budget = Budget(macs=band)
    assert bounds(budget) == [("macs", 100_000, 300_000)]
    assert budget.objectives == 2


def test_a_set_of_targets_has_two_objectives() -> None:
    budget = Budget(macs=[0.2, "50%"])
    assert bounds(budget) == [("macs", 196_000, 200_000), ("macs", 490_000, 500_000)]
    assert budget.objectives == 2


def test_of_two_caps_one_filled_is_enough() -> None:
    (target,) = Budget(macs=0.3, params=0.5).targets(DENSE)
    assert not target.under(Cost(299_000, 10_000))
    assert target.under(Cost(200_000, 10_000))
    assert target.over(Cost(299_000, 25_001))


def test_bands_must_all_hold() -> None:
    (target,) = Budget(macs="10%..30%", params="20%..50%").targets(DENSE)
    assert isinstance(target, Target)
    assert target.under(Cost(200_000, 9_999))
    assert not target.under(Cost(200_000, 10_000))


@pytest.mark.parametrize("amount", [0, -1, "", "x", "120%", "30%..10%", "10%..25M", True, "1.2.3", float("nan")])
def test_bad_amounts_name_the_axis_and_the_value(amount: object) -> None:
    with pytest.raises(SecateurError, match=r"budget macs: .*got"):
        Budget(macs=amount)  # type: ignore[arg-type]


def test_a_budget_needs_an_axis() -> None:
    with pytest.raises(SecateurError, match="needs macs or params"):
        Budget()
    with pytest.raises(SecateurError, match="empty list"):
        Budget(macs=[])
