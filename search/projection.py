"""From a proposal to a structure inside the budget: bisection on the strength, then single filters to fill it up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backbones.cost import Cost, CostTable
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.tables import FilterTables
from search.budget import AXES, Budget, Target
from search.space import Ray, structure_of

Ints = NDArray[np.int64]
STRONGEST = 1e4
STEPS = 40


@dataclass(frozen=True, slots=True)
class Projected:
    """A proposal inside the budget.

    Attributes:
        structure: what is kept.
        cost: of it.
        strength: how far the proposal was scaled.
    """

    structure: Structure
    cost: Cost
    strength: float


def project(graph: ChannelGraph, tables: FilterTables, limits: Limits, ray: Ray, target: Target) -> Projected | str:
    """Scales a proposal onto a target; where that cannot be done, the reason as text.

    The strength is the smallest (by bisection, geometric) at which nothing is over budget; then filters come back one
    step (`divisor`) at a time, best norm first, while they fit, until the target is filled.
    """
    costs = graph.costs
    weak, strong = 0.0, STRONGEST
    if not target.over(costs.evaluate(ray.widths(weak))):
        strong = weak
    elif target.over(costs.evaluate(ray.widths(strong))):
        least = costs.evaluate(ray.widths(strong))
        return f"cannot be scaled into the budget: {_shown(least, target)} at its strongest, wanted {target}"
    else:
        weak = 1.0 / STRONGEST
        for _ in range(STEPS):
            middle = float(np.sqrt(weak * strong))
            if target.over(costs.evaluate(ray.widths(middle))):
                weak = middle
            else:
                strong = middle
    widths = _fill(costs, tables, limits, ray.widths(strong), ray.widths(weak), target)
    cost = costs.evaluate(widths)
    if target.under(cost):
        return f"falls short of the budget by whole filters: {_shown(cost, target)}, wanted {target}"
    return Projected(structure_of(graph, tables, ray.places(strong), widths), cost, strong)


def _fill(costs: CostTable, tables: FilterTables, limits: Limits, widths: Ints, wider: Ints, target: Target) -> Ints:
    """Adds channels while they fit: first those that the next weaker strength would keep, then any, best norm first."""
    widths = widths.copy()
    norms = tables.norms[tables.by_norm]
    preferred = wider > widths
    open_groups = np.ones(len(widths), dtype=np.bool_)
    while target.under(costs.evaluate(widths)) and open_groups.any():
        ranks = np.where(widths < tables.sizes, norms[tables.starts + np.minimum(widths, tables.sizes - 1)], -np.inf)
        ranks = np.where(open_groups, ranks + preferred * (norms.max() + 1.0), -np.inf)
        group = int(ranks.argmax())
        if not np.isfinite(ranks[group]):
            break
        trial = widths.copy()
        trial[group] += 1
        trial = limits.admit(trial, tables)
        if trial[group] == widths[group] or target.over(costs.evaluate(trial)):
            open_groups[group] = False
        else:
            widths = trial
            preferred[group] = bool(wider[group] > widths[group])
    return widths


def reachable(graph: ChannelGraph, tables: FilterTables, limits: Limits) -> tuple[Cost, Cost]:
    """The smallest and the largest cost under the limits."""
    return graph.costs.evaluate(limits.floors(tables)), graph.costs.dense


def check_reachable(graph: ChannelGraph, tables: FilterTables, limits: Limits, budget: Budget) -> None:
    """Raises SecateurError when some target of the budget cannot be met, naming the nearest reachable value."""
    least, most = reachable(graph, tables, limits)
    for target in budget.targets(graph.costs.dense):
        for bound in target.bounds:
            low, high = getattr(least, bound.axis), getattr(most, bound.axis)
            if bound.high < low or bound.low > high:
                nearest = low if bound.high < low else high
                raise SecateurError(
                    f"budget {bound.axis}: {bound.low:,.0f} to {bound.high:,.0f} cannot be reached; under the rate "
                    f"limits (max_rate={limits.max_rate:g}, min_channels={limits.min_channels}) the nearest value is "
                    f"{nearest:,} ({nearest / high:.2%} of the dense network)"
                )


def feasibility(graph: ChannelGraph, tables: FilterTables, limits: Limits, budget: Budget) -> str:
    """The table shown before a search: dense, largest and smallest reachable cost, and the budget."""
    least, most = reachable(graph, tables, limits)
    dense = graph.costs.dense
    rows = [["", "MACs", "of dense", "parameters", "of dense"]]
    for name, cost in (("dense", dense), ("largest reachable", most), ("smallest reachable", least)):
        rows.append([name, *(cell for axis in AXES for cell in _amount(getattr(cost, axis), getattr(dense, axis)))])
    targets = budget.targets(dense)
    for number, target in enumerate(targets, 1):
        name = "budget" if len(targets) == 1 else f"target {number}"
        for side in ("low", "high"):
            limit = {bound.axis: getattr(bound, side) for bound in target.bounds}
            cells = [_amount(limit[axis], getattr(dense, axis)) if axis in limit else ("-", "-") for axis in AXES]
            rows.append(
                [f"{name}, {'at least' if side == 'low' else 'at most'}", *(cell for pair in cells for cell in pair)]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _amount(value: float, dense: int) -> tuple[str, str]:
    return f"{value:,.0f}", f"{value / dense:.2%}"


def _shown(cost: Cost, target: Target) -> str:
    return " and ".join(f"{bound.axis} {getattr(cost, bound.axis):,}" for bound in target.bounds)
