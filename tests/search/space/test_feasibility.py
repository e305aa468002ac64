"""Budgets that no structure can meet are refused before a search, with what could be reached."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from scoring.limits import Limits
from search.space.budget import Budget
from search.space.feasibility import check_early, check_reachable, feasibility_table, reachable
from search.space.layer_removal import Removal
from search.space.problem import SearchProblem, problem_of_weights
from search.space.space import Space
from tests.graphs import known_trace as trace
from tests.search.space.problems import problem, task


def tiny() -> tuple[nn.Module, ChannelGraph]:
    """One group of 4 channels: 4 x (2 + 3) = 20 MACs, 5 a channel."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))
    return model, trace(model, torch.randn(1, 2))


def bounded(here: SearchProblem, budget: Budget) -> SearchProblem:
    """The problem with other targets."""
    return replace(here, targets=budget.targets(here.cost_model.dense))


def test_a_band_between_two_structures_names_both() -> None:
    model, graph = tiny()
    here = problem_of_weights(Space(), model, graph)
    assert graph.costs.dense.macs == 20
    with pytest.raises(SecateurError, match=r"no structure .* within 11 <= macs <= 14; the nearest .* macs 10 and 15"):
        check_reachable(bounded(here, Budget(macs="11..14")))
    check_reachable(bounded(here, Budget(macs="11..15")))
    even = problem_of_weights(Space(limits=Limits(divisor=2)), model, graph)
    with pytest.raises(SecateurError, match=r"no structure of this network with divisor=2 .* macs 10 and 20"):
        check_reachable(bounded(even, Budget(macs="11..15")))


def test_a_cap_between_two_structures_is_met_by_the_lower_one() -> None:
    model, graph = tiny()
    for divisor in (1, 2):
        here = problem_of_weights(Space(limits=Limits(divisor=divisor)), model, graph)
        check_reachable(bounded(here, Budget(macs="14")))
    with pytest.raises(SecateurError, match=r"macs: at most 30 cannot be reached.* nearest value is 20 \(100.00%"):
        check_reachable(bounded(here, Budget(macs="30")))
    check_reachable(bounded(here, Budget(macs="30", params=0.9)))
    lines = feasibility_table(bounded(here, Budget(macs="14"))).splitlines()
    assert [line.split(" ")[1] for line in lines if line.startswith("budget")] == ["at"]
    assert lines[-1].startswith("budget, at most")


def test_the_divisor_is_named_where_it_binds() -> None:
    model, graph = tiny()
    fine = problem_of_weights(Space(), model, graph)
    low = reachable(fine).macs
    even = problem_of_weights(Space(limits=Limits(divisor=2)), model, graph)
    with pytest.raises(SecateurError, match=r"max_rate=0.9, min_channels=1, divisor=2\) the nearest value is 10 "):
        check_reachable(bounded(even, Budget(macs=str(low))))
    with pytest.raises(SecateurError, match=r"max_rate=0.9, min_channels=1\) the nearest value"):
        check_reachable(bounded(fine, Budget(macs=str(low - 1))))
    with pytest.raises(SecateurError, match=r"max_rate=0.4, min_channels=1\) the nearest value"):
        check_reachable(bounded(problem(Space(limits=Limits(0.4, divisor=1))), Budget(macs=0.01)))


def test_removal_reaches_further_down() -> None:
    limits = Limits(max_rate=0.5)
    plain = problem(Space("ratios", limits=limits))
    thin = problem(Space("ratios", limits=limits, removal=Removal(most=5)))
    low, lower = reachable(plain), reachable(thin)
    assert lower.macs < low.macs
    between = Budget(macs=(low.macs + lower.macs) / 2)
    check_reachable(bounded(thin, between))
    with pytest.raises(SecateurError, match=f"the nearest value is {low.macs:,}"):
        check_reachable(bounded(plain, between))


def test_the_table_has_a_column_for_every_axis_of_the_budget_and_the_layers_that_may_go() -> None:
    here = problem(Space(criterion="l2", removal=Removal(most=2)), Budget(memory="50%"))
    text = feasibility_table(here)
    lines = text.splitlines()
    assert "memory" in lines[0]
    assert "50.00%" in lines[-3]
    assert here.removal_order is not None
    assert lines[-1] == f"layers that may go: {', '.join(here.removal_order.order)}"


def test_a_table_of_many_axes_is_shown_in_two_parts() -> None:
    budget = Budget(macs="20%..30%", latency="1%..100%", memory="50%")
    text = feasibility_table(problem(Space(criterion="l2", removal=Removal(most=5)), budget))
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
    with pytest.raises(SecateurError, match=r"divisor must not exceed the widest group.*64 channels"):
        check_early(model, graph, Space(limits=Limits(divisor=128)), Budget(macs=0.2))
    untrained, plain = tiny()
    with pytest.raises(SecateurError, match=r"criterion 'bn_gamma' needs a batch norm with weights on every group"):
        check_early(untrained, plain, Space("global", criterion="bn_gamma"), Budget(macs=0.8))
    removing = Space(limits=Limits(max_rate=0.3), removal=Removal())
    check_early(model, graph, removing, Budget(macs=0.3))
    with pytest.raises(SecateurError, match="with all layers gone that may go the nearest value is"):
        check_early(model, graph, removing, Budget(macs=0.01))
