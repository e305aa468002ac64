"""Proposals land inside the budget, whatever the network and the proposal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from scoring.limits import Limits
from search.space.allocations import GlobalThreshold, KeepRatios, QuantileThresholds, WidthAllocation
from search.space.budget import Budget, Target
from search.space.feasibility import check_reachable, feasibility_table, reachable
from search.space.problem import SearchProblem, problem_of_weights
from search.space.projection import Infeasible, Projected, project
from search.space.space import Space, threshold_shares
from tests.graphs import known_trace as trace


@lru_cache(maxsize=1)
def subject() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = build("resnet20", 10)
    return model, trace(model, torch.randn(1, 3, 32, 32))


def problem(limits: Limits, budget: Budget) -> SearchProblem:
    model, graph = subject()
    return problem_of_weights(Space(limits=limits), model, graph, budget.targets(graph.costs.dense))


def allocations(here: SearchProblem, seed: int) -> list[WidthAllocation]:
    rng = np.random.default_rng(seed)
    norm, dist = threshold_shares(rng.uniform())
    return [
        QuantileThresholds(here.tables, here.limits, norm, dist),
        KeepRatios(here.tables, here.limits, rng.uniform(0.1, 1.0, len(here.tables.groups))),
        GlobalThreshold(here.tables, here.limits, float(rng.uniform())),
    ]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
@example(seed=19707, share=0.75)  # whole filters leave more than two percent there
def test_a_cap_is_filled_to_within_two_percent_or_as_single_filters_allow(seed: int, share: float) -> None:
    here = problem(Limits(), Budget(macs=share))
    for allocation in allocations(here, seed):
        found = project(here, allocation, here.targets[0])
        assert isinstance(found, Projected), found
        assert found.cost.macs / here.cost_model.dense.macs <= share
        assert cost(here.graph, found.structure) == found.cost
        if found.cost.macs < 0.98 * share * here.cost_model.dense.macs:
            widths, one = (
                np.array(list(found.structure.widths.values())),
                np.eye(len(here.graph.groups), dtype=np.int64),
            )
            others = (widths + one[:, None] - np.concatenate([one, 0 * one[:1]])).reshape(-1, len(one))
            others = others[((others >= here.limits.floors(here.tables)) & (others <= here.tables.sizes)).all(1)]
            macs = here.cost_model.amounts(others, ["macs"])[:, 0]
            assert macs[macs <= share * here.cost_model.dense.macs].max(initial=0) <= found.cost.macs


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_limits_hold_after_projection(seed: int) -> None:
    here = problem(Limits(max_rate=0.75, min_channels=4, divisor=4), Budget(macs="25%..35%"))
    for allocation in allocations(here, seed):
        found = project(here, allocation, here.targets[0])
        assert isinstance(found, Projected), found
        for group in here.graph.groups:
            width = found.structure.widths[group.name]
            assert width % 4 == 0
            assert width >= max(4, 0.25 * group.size)


@settings(max_examples=10, deadline=None)
@given(widths=st.lists(st.integers(2, 20), min_size=2, max_size=5), share=st.floats(0.2, 0.8), seed=st.integers(0, 99))
def test_random_networks_are_as_full_as_widths_allow(widths: list[int], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs = 3
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        inputs = width
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * 16, 2))
    graph = trace(model, torch.randn(1, 3, 4, 4))
    (target,) = Budget(macs=share).targets(graph.costs.dense)
    here = problem_of_weights(Space(), model, graph)
    for allocation in allocations(here, seed):
        found = project(here, allocation, target)
        if isinstance(found, Infeasible):
            assert found.reason.startswith("cannot be scaled into the budget")
        else:
            assert not target.over(found.cost)
            assert not target.under(found.cost) or full(here, found, target)


def full(here: SearchProblem, found: Projected, target: Target) -> bool:
    """Whether one step more in any group is over the target."""
    widths = np.array(list(found.structure.widths.values()))
    rows = here.limits.admit(widths + np.eye(len(widths), dtype=np.int64), here.tables)
    return all(target.over(here.cost_model.evaluate(row)) for row in rows if (row > widths).any())


class Squeezed(nn.Module):
    """A bottleneck with a squeeze thinner than 8 channels, a width that 8 does not divide, and wide layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 64, 3, padding=1)
        self.down, self.up = nn.Conv2d(64, 4, 1), nn.Conv2d(4, 64, 1)
        self.last, self.head = nn.Conv2d(64, 32, 3, padding=1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.wide(torch.relu(self.stem(x))))
        x = x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        y: Tensor = self.head(torch.relu(self.last(x)).mean((2, 3)))
        return y


@lru_cache(maxsize=1)
def squeezed() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = Squeezed()
    return model, trace(model, torch.randn(1, 3, 8, 8))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.25, 0.95), divisor=st.sampled_from([4, 8, 16]))
def test_multiples_of_a_divisor_fill_any_cap(seed: int, share: float, divisor: int) -> None:
    for model, graph in (squeezed(), subject()):
        (target,) = Budget(macs=share).targets(graph.costs.dense)
        here = problem_of_weights(Space(limits=Limits(divisor=divisor)), model, graph, (target,))
        if reachable(here).macs > target.bounds[0].high:
            continue
        check_reachable(here)
        for allocation in allocations(here, seed):
            found = project(here, allocation, target)
            assert isinstance(found, Projected), found
            assert not target.over(found.cost)
            assert not target.under(found.cost) or full(here, found, target)
            for group in graph.groups:
                width = found.structure.widths[group.name]
                assert width % divisor == 0 or width == group.size


def test_a_band_that_steps_of_the_divisor_miss_names_it() -> None:
    model, graph = squeezed()
    here = problem_of_weights(Space(limits=Limits(divisor=16)), model, graph)
    (target,) = Budget(macs="60%..60.1%").targets(graph.costs.dense)
    found = project(here, KeepRatios(here.tables, here.limits, np.full(len(graph.groups), 0.5)), target)
    assert isinstance(found, Infeasible)
    assert "by whole steps of 16 filters (divisor): macs " in found.reason
    (target,) = Budget(macs=0.01).targets(graph.costs.dense)
    found = project(here, KeepRatios(here.tables, here.limits, np.full(len(graph.groups), 0.5)), target)
    assert isinstance(found, Infeasible)
    assert "at its strongest with divisor=16, wanted macs <= " in found.reason


def test_the_least_reachable_cost_is_that_of_the_floors() -> None:
    here = problem(Limits(max_rate=0.5), Budget(macs=0.05))
    assert 0.2 < reachable(here).macs / here.cost_model.dense.macs < 0.3


def test_an_unreachable_budget_names_the_nearest_value() -> None:
    here = problem(Limits(max_rate=0.5), Budget(macs=0.05))
    with pytest.raises(SecateurError, match=f"cannot be reached.*{reachable(here).macs:,}"):
        check_reachable(here)


def test_the_feasibility_table_shows_dense_and_budget() -> None:
    lines = feasibility_table(problem(Limits(), Budget(macs="10%..30%"))).splitlines()
    assert "40,551,040" in lines[1]
    assert lines[-2].startswith("budget, at least")
    assert "10.00%" in lines[-2]
    assert "30.00%" in lines[-1]
    assert all(len(line) <= 80 for line in lines)
