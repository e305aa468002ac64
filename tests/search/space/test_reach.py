"""Budgets that no structure can meet are refused before a search, with what could be reached."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.trace import trace
from scoring.limits import Limits
from scoring.tables import FilterTables, filter_tables
from search.space.budget import Budget
from search.space.depth import Removal
from search.space.reach import check_early, check_reachable, feasibility, reachable
from search.space.space import Space
from tests.search.space.grounds import ground, task


def tiny() -> tuple[nn.Module, ChannelGraph, FilterTables]:
    """One group of 4 channels: 4 x (2 + 3) = 20 MACs, 5 a channel."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))
    graph = trace(model, torch.randn(1, 2))
    return model, graph, filter_tables(model, graph)


def test_a_band_between_two_structures_names_both() -> None:
    _, graph, tables = tiny()
    assert graph.costs.dense.macs == 20
    with pytest.raises(SecateurError, match=r"no structure .* within 11 <= macs <= 14; the nearest .* macs 10 and 15"):
        check_reachable(graph, tables, Limits(), Budget(macs="11..14"))
    check_reachable(graph, tables, Limits(), Budget(macs="11..15"))
    with pytest.raises(SecateurError, match="macs 10 and 20"):
        check_reachable(graph, tables, Limits(divisor=2), Budget(macs="11..15"))


def test_removal_reaches_further_down() -> None:
    limits = Limits(max_rate=0.5)
    plain = ground(Space("ratios", limits=limits))
    thin = ground(Space("ratios", limits=limits, removal=Removal(most=5)))
    graph = plain.task.graph
    low, lower = reachable(graph, plain.tables, limits, plain), reachable(graph, thin.tables, limits, thin)
    assert lower.macs < low.macs
    between = Budget(macs=(low.macs + lower.macs) / 2)
    check_reachable(graph, thin.tables, limits, between, thin)
    with pytest.raises(SecateurError, match=f"the nearest value is {low.macs:,}"):
        check_reachable(graph, plain.tables, limits, between, plain)


def test_the_table_has_a_column_for_every_axis_of_the_budget_and_the_layers_that_may_go() -> None:
    here = ground(Space(removal=Removal(most=2)), ("memory",))
    text = feasibility(here.task.graph, here.tables, here.limits, Budget(memory="50%"), here)
    lines = text.splitlines()
    assert "memory" in lines[0]
    assert "50.00%" in lines[-3]
    assert here.depth is not None
    assert lines[-1] == f"layers that may go: {', '.join(here.depth.order)}"


def test_a_table_of_many_axes_is_shown_in_two_parts() -> None:
    here = ground(Space(removal=Removal(most=5)), ("latency", "memory"))
    budget = Budget(macs="20%..30%", latency="50%", memory="50%")
    text = feasibility(here.task.graph, here.tables, here.limits, budget, here)
    assert max(map(len, text.splitlines())) <= 80
    first, second, _ = text.split("\n\n")
    assert (first.split()[:3], second.split()[:3]) == (["MACs", "of", "dense"], ["latency", "of", "dense"])
    assert first.splitlines()[-1].startswith("budget, at most")
    assert second.splitlines()[-1].startswith("budget, at most")


def test_what_does_not_depend_on_the_weights_is_refused_early() -> None:
    model, graph = task().model, task().graph
    check_early(model, graph, Space(), Budget(macs=0.2, latency=0.5))
    check_early(model, graph, Space(), Budget(memory=0.5))
    with pytest.raises(SecateurError, match="cannot be reached"):
        check_early(model, graph, Space(limits=Limits(max_rate=0.3)), Budget(macs=0.2))
    with pytest.raises(SecateurError, match=r"divisor must not exceed the smallest group.*16 channels"):
        check_early(model, graph, Space(limits=Limits(divisor=32)), Budget(macs=0.2))
    untrained, plain, _ = tiny()
    with pytest.raises(SecateurError, match=r"criterion 'bn_gamma' needs a batch norm with weights on every group"):
        check_early(untrained, plain, Space("global", criterion="bn_gamma"), Budget(macs=0.8))
    removing = Space(limits=Limits(max_rate=0.3), removal=Removal())
    check_early(model, graph, removing, Budget(macs=0.3))
    with pytest.raises(SecateurError, match="with all layers gone that may go the nearest value is"):
        check_early(model, graph, removing, Budget(macs=0.01))
