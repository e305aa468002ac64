"""From a proposal to a structure inside the budget: bisection on the strength, then single filters to fill it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from backbones.cost_table import Cost
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.tables import channels_by_group
from search.space.allocations import KeepRatios, WidthAllocation
from search.space.budget import Target, cost_text
from search.space.cost_model import CostModel
from search.space.layer_removal import ReducedAllocation
from search.space.problem import SearchProblem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Projected:
    """A proposal inside the budget.

    Attributes:
        structure: what is kept.
        cost: what the structure costs, on every axis of the problem's cost model.
        strength: how far the proposal was followed.
        resolved_params: what that makes of the proposal, such as the thresholds that were used.
    """

    structure: Structure
    cost: Cost
    strength: float
    resolved_params: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Infeasible:
    """A proposal that cannot be brought inside the budget.

    Attributes:
        reason: why not, to stand behind the name of whatever was proposed.
    """

    reason: str


def project(
    problem: SearchProblem, allocation: WidthAllocation | ReducedAllocation, target: Target
) -> Projected | Infeasible:
    """Scales a proposal onto a target.

    The strength is the smallest at which nothing is over budget: bisection over the strengths between which nothing
    changes, so it is exact. Then filters come back one step (`divisor`) at a time, first those that the next weaker
    strength would keep, then by norm, while they fit, until the target is filled. Where whole steps leave it short, one
    is exchanged for one of another group. What then still falls short is the best there is: inside a cap, outside of a
    band.

    Args:
        problem: network and cost model; its own targets are not looked at.
        allocation: the proposal, on the problem's network or on that network without some of its layers.
        target: where to land.
    """
    if not isinstance(allocation, ReducedAllocation):
        return _scale(problem.graph, problem.cost_model, allocation, target)
    network = allocation.network
    found = _scale(network.reduction.graph, allocation.cost_model, allocation.allocation, target)
    if isinstance(found, Infeasible):
        return Infeasible(f"without {', '.join(network.removed)} {found.reason}")
    return replace(found, structure=network.lift(found.structure))


def project_without(
    problem: SearchProblem, removed: tuple[str, ...], shares: Floats, target: Target
) -> Projected | Infeasible:
    """A structure's widths on the network without some layers, scaled onto a target.

    Args:
        problem: network and cost model.
        removed: the layers that go, as `LayerRemovalOrder.chosen` lists them; at least one.
        shares: (groups,) what the structure keeps of the dense network's groups.
        target: where to land.
    """
    assert problem.removal_order is not None
    network = problem.removal_order.without(removed)
    ratios = KeepRatios(network.tables, problem.limits, shares[network.dense_groups])
    return project(problem, ReducedAllocation(ratios, network, problem.cost_model_without(removed)), target)


def _scale(
    graph: ChannelGraph, costs: CostModel, allocation: WidthAllocation, target: Target
) -> Projected | Infeasible:
    strengths = _strengths(allocation.breakpoints())
    weak, strong = 0, len(strengths) - 1
    if not target.over(costs.evaluate(allocation.widths(strengths[weak]))):
        strong = weak
    elif target.over(costs.evaluate(allocation.widths(strengths[strong]))):
        least = costs.evaluate(allocation.widths(strengths[strong]))
        coarse = f" with divisor={allocation.limits.divisor}" if allocation.limits.divisor > 1 else ""
        return Infeasible(
            f"cannot be scaled into the budget: {_shown(least, target)} at its strongest{coarse}, wanted {target}"
        )
    while strong - weak > 1:
        middle = (weak + strong) // 2
        if target.over(costs.evaluate(allocation.widths(strengths[middle]))):
            weak = middle
        else:
            strong = middle
    strength = float(strengths[strong])
    widths = _fill(costs, allocation, target, allocation.widths(strength), allocation.widths(strengths[weak]))
    if target.under(costs.evaluate(widths)):
        widths = _exchange(costs, allocation, target, widths)
    cost = costs.evaluate(widths)
    if target.under(cost) and not target.capped:
        above, divisor = _nearest_above(costs, allocation, target, widths), allocation.limits.divisor
        steps, step = ("filters", "filter") if divisor == 1 else (f"steps of {divisor} filters (divisor)", "step")
        beyond = f", one {step} more {_shown(costs.evaluate(above), target)}" if above is not None else ""
        return Infeasible(
            f"falls short of the budget by whole {steps}: {_shown(cost, target)}{beyond}, wanted {target}"
        )
    mask = np.asarray(allocation.ranks(strength) < widths[allocation.tables.owners])
    structure = Structure(graph.id, tuple(channels_by_group(allocation.tables, mask).items()))
    return Projected(structure, cost, strength, allocation.resolved_params(strength))


def _strengths(breakpoints: Floats) -> Floats:
    """0, and one strength inside every interval on which nothing changes, in order."""
    breakpoints = np.sort(breakpoints)
    breakpoints = breakpoints[(breakpoints > 0) & np.isfinite(breakpoints)]
    if not len(breakpoints):
        return np.zeros(1)
    edges = breakpoints[np.append(True, np.diff(breakpoints) > 0)]
    return np.concatenate([[0.0, edges[0] / 2], (edges[:-1] + edges[1:]) / 2, [2 * edges[-1]]])


def _fill(costs: CostModel, allocation: WidthAllocation, target: Target, widths: Ints, wider: Ints) -> Ints:
    """Adds channels while they fit: first those that the next weaker strength would keep, then any, best norm first."""
    tables, widths = allocation.tables, widths.copy()
    if not target.under(costs.evaluate(widths)):
        return widths
    norms = tables.norms[tables.sorted_by_norm]
    lead = float(norms.max()) + 1.0
    closed = widths >= tables.sizes  # what does not fit now never will: costs only rise
    while not closed.all():
        worth = norms[tables.starts + np.minimum(widths, tables.sizes - 1)] + lead * (wider > widths)
        group = int(np.where(closed, -np.inf, worth).argmax())
        trial = widths.copy()
        trial[group] += 1
        trial = allocation.limits.admit(trial, tables)
        cost = costs.evaluate(trial)
        if target.over(cost):
            closed[group] = True
            continue
        widths = trial
        if not target.under(cost):
            break
        closed[group] = widths[group] >= tables.sizes[group]
    return widths


def _exchange(costs: CostModel, allocation: WidthAllocation, target: Target, widths: Ints) -> Ints:
    """One step more in a group and one less in another, where that fills the target; else the best that was tried.

    Of the pairs that do, the one with the largest cost on the target's first axis. Where none does, one step less in a
    group and as many more in others as fit. Of a cap that all this leaves unfilled, what fills it most; of a band the
    widths as they are.
    """
    tables, limits = allocation.tables, allocation.limits
    one = np.eye(len(widths), dtype=np.int64)
    more = limits.admit(widths + one, tables)
    less = limits.admit(np.where(one, (widths - 1) // limits.divisor * limits.divisor, widths), tables)
    more, less = more[(more > widths).any(1)], less[(less < widths).any(1)]
    if not len(more):
        return widths
    rows = (more[:, None] + less[None] - widths).reshape(-1, len(widths))
    axes = [bound.axis for bound in target.bounds]
    amounts = costs.amounts(rows, axes)
    enough = amounts >= [bound.low for bound in target.bounds]
    fits = (amounts <= [bound.high for bound in target.bounds]).all(1)
    inside = fits & (enough.any(1) if target.capped else enough.all(1))
    if inside.any():
        return np.asarray(rows[np.where(inside, amounts[:, 0], -np.inf).argmax()])
    tried = [widths]
    for row in less:
        tried.append(_fill(costs, allocation, target, row, np.where(row < widths, 0, tables.sizes)))
        if not target.under(costs.evaluate(tried[-1])):
            return tried[-1]
    if not target.capped:
        return widths
    found = np.concatenate([np.array(tried), rows[fits]])
    filled = costs.amounts(found, axes) / [bound.high for bound in target.bounds]
    return np.asarray(found[filled.max(1).argmax()])


def _nearest_above(costs: CostModel, allocation: WidthAllocation, target: Target, widths: Ints) -> Ints | None:
    """The cheapest of the structures with one step more, which are all over the target; None for the whole network."""
    rows = allocation.limits.admit(widths + np.eye(len(widths), dtype=np.int64), allocation.tables)
    rows = rows[(rows > widths).any(1)]
    return rows[costs.amounts(rows, [target.bounds[0].axis])[:, 0].argmin()] if len(rows) else None


def _shown(cost: Cost, target: Target) -> str:
    return " and ".join(f"{bound.axis} {cost_text(bound.axis, getattr(cost, bound.axis))}" for bound in target.bounds)
