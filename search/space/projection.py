"""From a proposal to a structure inside the budget: bisection on the strength, then single filters to fill it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backbones.cost_table import Cost
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.tables import FilterTables, channels_by_group
from search.space.budget import Target, shown
from search.space.costing import Costing
from search.space.depth import ThinRay
from search.space.rays import Ray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Projected:
    """A proposal inside the budget.

    Attributes:
        structure: what is kept.
        cost: of it.
        strength: how far the proposal was scaled.
        effective: what that makes of it, such as the thresholds that were used.
    """

    structure: Structure
    cost: Cost
    strength: float
    effective: Mapping[str, float] = field(default_factory=dict)


def project(
    graph: ChannelGraph,
    tables: FilterTables,
    limits: Limits,
    ray: Ray | ThinRay,
    target: Target,
    costs: Costing | None = None,
) -> Projected | str:
    """Scales a proposal onto a target; where that cannot be done, the reason as text.

    The strength is the smallest at which nothing is over budget: bisection over the strengths between which nothing
    changes, so it is exact. Then filters come back one step (`divisor`) at a time, first those that the next weaker
    strength would keep, then by norm, while they fit, until the target is filled. Where whole filters leave it short,
    one is exchanged for one of another group.

    Args:
        graph: of the network.
        tables: of its filters.
        limits: pruning-rate constraint.
        ray: the proposal; one without some layers brings its own graph, tables and costs.
        target: where to land.
        costs: of the structures; MACs and parameters of the graph by default.
    """
    if isinstance(ray, ThinRay):
        level = ray.level
        found = project(level.reduction.graph, level.tables, limits, ray.ray, target, ray.costs)
        if isinstance(found, str):
            return f"without {', '.join(level.removed)} {found}"
        return Projected(level.lift(found.structure), found.cost, found.strength, found.effective)
    costs = costs or Costing(graph.costs)
    strengths = _strengths(ray.steps())
    weak, strong = 0, len(strengths) - 1
    if not target.over(costs.evaluate(ray.widths(strengths[weak]))):
        strong = weak
    elif target.over(costs.evaluate(ray.widths(strengths[strong]))):
        least = costs.evaluate(ray.widths(strengths[strong]))
        return f"cannot be scaled into the budget: {_shown(least, target)} at its strongest, wanted {target}"
    while strong - weak > 1:
        middle = (weak + strong) // 2
        if target.over(costs.evaluate(ray.widths(strengths[middle]))):
            weak = middle
        else:
            strong = middle
    strength = float(strengths[strong])
    wider = ray.widths(strengths[weak])
    widths = _fill(costs, tables, limits, ray.widths(strength), wider, target)
    if target.under(costs.evaluate(widths)):
        widths = _exchange(costs, tables, limits, widths, target)
    cost = costs.evaluate(widths)
    if target.under(cost):
        above = _nearest_above(costs, tables, limits, widths, target)
        beyond = f", one filter more {_shown(costs.evaluate(above), target)}" if above is not None else ""
        return f"falls short of the budget by whole filters: {_shown(cost, target)}{beyond}, wanted {target}"
    kept = channels_by_group(tables, np.asarray(ray.places(strength) < widths[tables.owners]))
    return Projected(Structure(graph.id, tuple(kept.items())), cost, strength, ray.effective(strength))


def _strengths(steps: Floats) -> Floats:
    """0, and one strength inside every interval on which nothing changes, in order."""
    steps = np.sort(steps)
    steps = steps[(steps > 0) & np.isfinite(steps)]
    if not len(steps):
        return np.zeros(1)
    edges = steps[np.append(True, np.diff(steps) > 0)]
    return np.concatenate([[0.0, edges[0] / 2], (edges[:-1] + edges[1:]) / 2, [2 * edges[-1]]])


def _fill(costs: Costing, tables: FilterTables, limits: Limits, widths: Ints, wider: Ints, target: Target) -> Ints:
    """Adds channels while they fit: first those that the next weaker strength would keep, then any, best norm first."""
    widths = widths.copy()
    if not target.under(costs.evaluate(widths)):
        return widths
    norms = tables.norms[tables.sorted_by_norm]
    lead = float(norms.max()) + 1.0
    closed = widths >= tables.sizes  # what does not fit now never will: costs only rise
    while not closed.all():
        ranks = norms[tables.starts + np.minimum(widths, tables.sizes - 1)] + lead * (wider > widths)
        group = int(np.where(closed, -np.inf, ranks).argmax())
        trial = widths.copy()
        trial[group] += 1
        trial = limits.admit(trial, tables)
        cost = costs.evaluate(trial)
        if target.over(cost):
            closed[group] = True
            continue
        widths = trial
        if not target.under(cost):
            break
        closed[group] = widths[group] >= tables.sizes[group]
    return widths


def _exchange(costs: Costing, tables: FilterTables, limits: Limits, widths: Ints, target: Target) -> Ints:
    """One step more in a group and one less in another, where that lands inside; else the widths as they are.

    Of the pairs that do, the one with the largest cost on the target's first axis. Where none does, one step less in a
    group and as many more in others as fit.
    """
    one = np.eye(len(widths), dtype=np.int64)
    more = limits.admit(widths + one, tables)
    less = limits.admit(np.where(one, (widths - 1) // limits.divisor * limits.divisor, widths), tables)
    more, less = more[(more > widths).any(1)], less[(less < widths).any(1)]
    rows = (more[:, None] + less[None] - widths).reshape(-1, len(widths))
    axes = [bound.axis for bound in target.bounds]
    amounts = costs.amounts(rows, axes)
    enough = amounts >= [bound.low for bound in target.bounds]
    inside = (amounts <= [bound.high for bound in target.bounds]).all(1)
    inside &= enough.any(1) if target.capped else enough.all(1)
    if inside.any():
        return np.asarray(rows[np.where(inside, amounts[:, 0], -np.inf).argmax()])
    for row in less:
        refilled = _fill(costs, tables, limits, row, np.where(row < widths, 0, tables.sizes), target)
        if not target.under(costs.evaluate(refilled)):
            return refilled
    return widths


def _nearest_above(costs: Costing, tables: FilterTables, limits: Limits, widths: Ints, target: Target) -> Ints | None:
    """The cheapest of the structures with one step more, which are all over the target; None for the whole network."""
    rows = limits.admit(widths + np.eye(len(widths), dtype=np.int64), tables)
    rows = rows[(rows > widths).any(1)]
    return rows[costs.amounts(rows, [target.bounds[0].axis])[:, 0].argmin()] if len(rows) else None


def _shown(cost: Cost, target: Target) -> str:
    return " and ".join(f"{bound.axis} {shown(bound.axis, getattr(cost, bound.axis))}" for bound in target.bounds)
