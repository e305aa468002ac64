"""Proposals land inside the budget, whatever the network and the proposal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.trace import trace
from scoring.limits import Limits
from search.space.allocations import GlobalThreshold, KeepRatios, QuantileThresholds, WidthAllocation
from search.space.budget import Budget
from search.space.feasibility import check_reachable, feasibility_table, reachable
from search.space.problem import SearchProblem, problem_of_weights
from search.space.projection import Infeasible, Projected, project
from search.space.space import Space, threshold_shares


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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
def test_a_cap_is_filled_to_within_two_percent(seed: int, share: float) -> None:
    here = problem(Limits(), Budget(macs=share))
    for allocation in allocations(here, seed):
        found = project(here, allocation, here.targets[0])
        assert isinstance(found, Projected), found
        assert 0.98 * share <= found.cost.macs / here.cost_model.dense.macs <= share
        assert cost(here.graph, found.structure) == found.cost


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


@settings(max_examples=20, deadline=None)
@given(widths=st.lists(st.integers(2, 20), min_size=2, max_size=5), share=st.floats(0.2, 0.8), seed=st.integers(0, 99))
def test_random_networks_are_filled_or_refused_with_the_reason(widths: list[int], share: float, seed: int) -> None:
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
            assert "wanted" in found.reason
        else:
            assert not target.over(found.cost)
            assert not target.under(found.cost)


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
