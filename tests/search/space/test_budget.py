"""Amounts, bands and targets."""

from __future__ import annotations

import pytest

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from search.space.budget import Budget, Target

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


def test_a_single_amount_beside_a_band_is_a_cap_that_need_not_be_filled() -> None:
    (target,) = Budget(macs="10%..30%", params=0.5).targets(DENSE)
    assert not target.under(Cost(100_000, 1))
    assert target.over(Cost(100_000, 25_001))
    assert target.bounds[target.aimed].axis == "macs"
    (target,) = Budget(macs=0.5, params="10%..30%").targets(DENSE)
    assert target.bounds[target.aimed].axis == "params"


@pytest.mark.parametrize(
    ("axis", "amount", "high"),
    [("latency", "20ms", 0.02), ("latency", "50%", 0.05), ("memory", "1.5kB", 1500), ("memory", "1KiB", 1024)],
)
def test_latency_and_memory_have_units_of_their_own(axis: str, amount: str, high: float) -> None:
    dense = Cost(1_000_000, 50_000, latency=0.1, memory=4096)
    (target,) = Budget(**{axis: amount}).targets(dense)
    assert target.bounds[0].axis == axis
    assert target.bounds[0].high == pytest.approx(high)


@pytest.mark.parametrize(("axis", "amount"), [("macs", "20ms"), ("latency", "2MB"), ("memory", "3ms"), ("params", ".")])
def test_units_of_another_axis_are_refused(axis: str, amount: str) -> None:
    with pytest.raises(SecateurError, match=f"budget {axis}: .*but got '{amount}'"):
        Budget(**{axis: amount})


def test_an_axis_that_was_not_measured_is_named() -> None:
    with pytest.raises(SecateurError, match="budget latency: the dense network's latency was not measured"):
        Budget(latency=0.5).targets(DENSE)


@pytest.mark.parametrize("amount", [0, -1, "", "x", "120%", "30%..10%", "10%..25M", True, "1.2.3", float("nan")])
def test_bad_amounts_name_the_axis_and_the_value(amount: object) -> None:
    with pytest.raises(SecateurError, match=r"budget macs: .*got"):
        Budget(macs=amount)  # type: ignore[arg-type]


def test_a_budget_needs_an_axis() -> None:
    with pytest.raises(SecateurError, match="needs macs or params"):
        Budget()
    with pytest.raises(SecateurError, match="empty list"):
        Budget(macs=[])
