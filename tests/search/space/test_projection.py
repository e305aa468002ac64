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
from scoring.tables import FilterTables, filter_tables
from search.space.budget import Budget
from search.space.global_ray import GlobalRay
from search.space.projection import Projected, project
from search.space.rays import HybridRay, RatioRay, Ray
from search.space.reach import check_reachable, feasibility, reachable


@lru_cache(maxsize=1)
def subject() -> tuple[ChannelGraph, FilterTables]:
    torch.manual_seed(0)
    model = build("resnet20", 10)
    graph = trace(model, torch.randn(1, 3, 32, 32))
    return graph, filter_tables(model, graph)


def rays(tables: FilterTables, limits: Limits, seed: int) -> list[Ray]:
    rng = np.random.default_rng(seed)
    thresholds = rng.uniform(0.01, 2.0, 2)
    return [
        HybridRay(tables, limits, float(thresholds[0]), float(thresholds[1])),
        RatioRay(tables, limits, rng.uniform(0.1, 1.0, len(tables.groups))),
        GlobalRay(tables, limits, float(rng.uniform())),
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
def test_a_cap_is_filled_to_within_two_percent(seed: int, share: float) -> None:
    graph, tables = subject()
    (target,) = Budget(macs=share).targets(graph.costs.dense)
    for ray in rays(tables, Limits(), seed):
        found = project(graph, tables, Limits(), ray, target)
        assert isinstance(found, Projected), found
        assert 0.98 * share <= found.cost.macs / graph.costs.dense.macs <= share
        assert cost(graph, found.structure) == found.cost


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_limits_hold_after_projection(seed: int) -> None:
    graph, tables = subject()
    limits = Limits(max_rate=0.75, min_channels=4, divisor=4)
    (target,) = Budget(macs="25%..35%").targets(graph.costs.dense)
    for ray in rays(tables, limits, seed):
        found = project(graph, tables, limits, ray, target)
        assert isinstance(found, Projected), found
        for group in graph.groups:
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
    tables = filter_tables(model, graph)
    (target,) = Budget(macs=share).targets(graph.costs.dense)
    for ray in rays(tables, Limits(), seed):
        found = project(graph, tables, Limits(), ray, target)
        if isinstance(found, str):
            assert "wanted" in found
        else:
            assert not target.over(found.cost)
            assert not target.under(found.cost)


def test_the_least_reachable_cost_is_that_of_the_floors() -> None:
    graph, tables = subject()
    least = reachable(graph, tables, Limits(max_rate=0.5))
    assert 0.2 < least.macs / graph.costs.dense.macs < 0.3


def test_an_unreachable_budget_names_the_nearest_value() -> None:
    graph, tables = subject()
    least = reachable(graph, tables, Limits(max_rate=0.5))
    with pytest.raises(SecateurError, match=f"cannot be reached.*{least.macs:,}"):
        check_reachable(graph, tables, Limits(max_rate=0.5), Budget(macs=0.05))


def test_the_feasibility_table_shows_dense_and_budget() -> None:
    graph, tables = subject()
    lines = feasibility(graph, tables, Limits(), Budget(macs="10%..30%")).splitlines()
    assert "40,551,040" in lines[1]
    assert lines[-2].startswith("budget, at least")
    assert "10.00%" in lines[-2]
    assert "30.00%" in lines[-1]
    assert all(len(line) <= 80 for line in lines)
