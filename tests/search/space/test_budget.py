"""Amounts, bands and targets."""

from __future__ import annotations

from typing import Any

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


def with_amount(axis: str, amount: str) -> Budget:
    amounts: dict[str, Any] = {axis: amount}
    return Budget(**amounts)


@pytest.mark.parametrize(
    ("axis", "amount", "high"),
    [("latency", "20ms", 0.02), ("latency", "50%", 0.05), ("memory", "1.5kB", 1500), ("memory", "1KiB", 1024)],
)
def test_latency_and_memory_have_units_of_their_own(axis: str, amount: str, high: float) -> None:
    dense = Cost(1_000_000, 50_000, latency=0.1, memory=4096)
    (target,) = with_amount(axis, amount).targets(dense)
    assert target.bounds[0].axis == axis
    assert target.bounds[0].high == pytest.approx(high)


@pytest.mark.parametrize(("axis", "amount"), [("macs", "20ms"), ("latency", "2MB"), ("memory", "3ms"), ("params", ".")])
def test_units_of_another_axis_are_refused(axis: str, amount: str) -> None:
    with pytest.raises(SecateurError, match=f"budget {axis}: .*but got '{amount}'"):
        with_amount(axis, amount)


def test_how_latency_is_measured_is_part_of_a_budget_that_bounds_it() -> None:
    assert Budget(latency="20ms").to_dict() == {"latency": ["20ms"]}  # as studies of before have it
    own = Budget(latency="20ms", engine="onnxruntime", latency_batch=1)
    assert own.to_dict() == {"latency": ["20ms"], "engine": ["onnxruntime"], "latency_batch": ["1"]}
    assert Budget(macs=0.5, engine="compiled").to_dict() == {"macs": ["0.5"]}
    with pytest.raises(SecateurError, match="unknown engine 'onnxruntim'; did you mean 'onnxruntime'"):
        Budget(macs=0.5, engine="onnxruntim")
    with pytest.raises(SecateurError, match="1 <= latency_batch must hold, but got latency_batch=0"):
        Budget(latency=0.5, latency_batch=0)


@pytest.mark.parametrize(
    ("amounts", "predicted", "limit"),
    [
        ("50%", 0.05, 0.1),  # of what the dense network takes by the clock
        ("30ms", 0.03, 0.03),
        (["20%", "60%"], 0.02, 0.04),
        (["20%", "60%"], 0.03, 0.12),
        (["20%", "60%"], 0.09, 0.12),  # holds none
        (["20%", "60%"], None, 0.12),
        ("20%..30%", 0.025, 0.06),
    ],
)
def test_what_a_structure_may_take_by_the_clock(amounts: Any, predicted: float | None, limit: float) -> None:
    """Predicted the dense network takes 0.1 s, measured twice as much."""
    cost, dense = Cost(1, 1, predicted), Cost(10, 10, 0.1)
    assert Budget(latency=amounts).latency_limit(cost, dense, 0.2) == pytest.approx(limit)
    assert Budget(macs=0.5).latency_limit(cost, dense, 0.2) is None


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
