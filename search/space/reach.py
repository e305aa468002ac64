"""What structures can cost at all under the rate limits: checked and shown before a search begins."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from math import prod

import numpy as np
from torch import nn

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from scoring.criteria import CRITERIA
from scoring.limits import Limits
from scoring.tables import FilterTables, filter_tables
from search.formatting import WIDTH, aligned
from search.space.budget import Bound, Budget, Target, shown
from search.space.costing import Costing, Floats, Ints
from search.space.depth import level
from search.space.ground import Ground
from search.space.space import Space

ENUMERABLE = 20_000
"""A network with at most so many admissible combinations of widths is looked through in full."""
TITLES = {"macs": "MACs", "params": "parameters", "latency": "latency", "memory": "memory"}


def reachable(graph: ChannelGraph, tables: FilterTables, limits: Limits, ground: Ground | None = None) -> Cost:
    """The smallest cost under the limits, on every axis by itself, with as many layers removed as may go."""
    if ground is None or ground.depth is None:
        costs = Costing(graph.costs) if ground is None else ground.costs
        return costs.evaluate(limits.floors(tables))
    found = [ground.costs.evaluate(limits.floors(tables))]
    for count in range(1, len(ground.depth.order) + 1):
        thinner = ground.depth.level(count)
        found.append(ground.costs_without(count).evaluate(limits.floors(thinner.tables)))
    axes = [axis.name for axis in fields(Cost) if getattr(found[0], axis.name) is not None]
    return Cost(**{axis: min(getattr(one, axis) for one in found) for axis in axes})


def check_reachable(
    graph: ChannelGraph, tables: FilterTables, limits: Limits, budget: Budget, ground: Ground | None = None
) -> None:
    """Refuses a budget that no structure can meet.

    Args:
        graph: of the network.
        tables: of its filters.
        limits: pruning-rate constraint.
        budget: what is wanted.
        ground: with measured costs and layers that may go, where there are any.

    Raises:
        SecateurError: when some target cannot be met; names the nearest reachable value, or the two nearest for a band
            that lies between two structures (found in networks of at most `ENUMERABLE` combinations of widths).
    """
    costs = Costing(graph.costs) if ground is None else ground.costs
    least, most = reachable(graph, tables, limits, ground), costs.dense
    for target in budget.targets(most):
        for bound in target.bounds:
            low, high = getattr(least, bound.axis), getattr(most, bound.axis)
            if bound.high < low or bound.low > high:
                nearest = low if bound.high < low else high
                raise SecateurError(
                    f"budget {bound.axis}: {_range(bound)} cannot be reached; under the rate limits (max_rate="
                    f"{limits.max_rate:g}, min_channels={limits.min_channels}) the nearest value is "
                    f"{shown(bound.axis, nearest)} ({nearest / high:.2%} of the dense network)"
                )
        if ground is None or ground.depth is None:
            _check_between(costs, tables, limits, target)


def check_early(model: nn.Module, graph: ChannelGraph, space: Space, budget: Budget) -> None:
    """What a search would refuse and that does not depend on the weights: found before a network is trained for it.

    With layer removal all layers that may go count as gone, for which of them are essential is not known yet. Latency
    and memory are left to the search.

    Raises:
        SecateurError: for limits or a budget that this network cannot meet, a removal without layers, or the criterion
            "bn_gamma" where a group has no batch norm.
    """
    criterion = space.criterion if CRITERIA[space.criterion].needs == "weights" else "l1"

    def make(some: ChannelGraph) -> FilterTables:
        return filter_tables(model, some, criterion=criterion)

    tables = make(graph)
    space.limits.floors(tables)
    layers = () if space.removal is None else space.removal.candidates(graph)
    if budget.macs is None and budget.params is None:
        return
    counted = Budget(macs=budget.macs, params=budget.params)
    if not layers:
        check_reachable(graph, tables, space.limits, counted)
        return
    thinnest = level(graph, layers, make)
    least = thinnest.reduction.graph.costs.evaluate(space.limits.floors(thinnest.tables))
    for target in counted.targets(graph.costs.dense):
        for bound in target.bounds:
            if bound.high < getattr(least, bound.axis):
                raise SecateurError(
                    f"budget {bound.axis}: {_range(bound)} cannot be reached; with all layers gone that may go the "
                    f"nearest value is {shown(bound.axis, getattr(least, bound.axis))}"
                )


def _check_between(costs: Costing, tables: FilterTables, limits: Limits, target: Target) -> None:
    """Looks through a small network for a structure inside the target."""
    choices = [
        np.unique(limits.admit(np.arange(1, tables.sizes.max() + 1)[:, None] + 0 * tables.sizes, tables)[:, group])
        for group in range(len(tables.sizes))
    ]
    if prod(map(len, choices)) > ENUMERABLE:
        return
    rows: Ints = np.array(list(product(*choices)), dtype=np.int64)
    axes = [bound.axis for bound in target.bounds]
    amounts = costs.amounts(rows, axes)
    fits = (amounts <= [bound.high for bound in target.bounds]).all(1)
    enough = amounts >= [bound.low for bound in target.bounds]
    if (fits & (enough.any(1) if target.capped else enough.all(1))).any():
        return
    raise SecateurError(
        f"budget: no structure of this network lies within {target}; the nearest reachable are "
        f"{_two_nearest(amounts[:, 0], target.bounds[0])}"
    )


def _two_nearest(amounts: Floats, bound: Bound) -> str:
    below, above = amounts[amounts <= bound.high], amounts[amounts > bound.high]
    found = ([below.max()] if len(below) else []) + ([above.min()] if len(above) else [])
    return f"{bound.axis} {' and '.join(shown(bound.axis, float(value)) for value in found)}"


def feasibility(
    graph: ChannelGraph, tables: FilterTables, limits: Limits, budget: Budget, ground: Ground | None = None
) -> str:
    """The table shown before a search: dense and smallest reachable cost, and the budget."""
    costs = Costing(graph.costs) if ground is None else ground.costs
    dense = costs.dense
    axes = list(dict.fromkeys(["macs", "params", *budget.axes]))
    targets = budget.targets(dense)
    ends = {"dense": dense, "largest reachable": dense, "smallest reachable": reachable(graph, tables, limits, ground)}
    blocks = [_block(axes, ends, targets)]
    if max(map(len, blocks[0].splitlines())) > WIDTH:
        blocks = [_block(axes[:2], ends, targets), _block(axes[2:], ends, targets)]
    if ground is not None and ground.depth is not None:
        blocks.append(textwrap.fill(f"layers that may go: {', '.join(ground.depth.order)}", WIDTH))
    return "\n\n".join(blocks)


def _block(axes: Sequence[str], ends: Mapping[str, Cost], targets: Sequence[Target]) -> str:
    """The table of some axes."""
    dense = ends["dense"]
    rows = [["", *(cell for axis in axes for cell in (TITLES[axis], "of dense"))]]
    for name, cost in ends.items():
        rows.append([name, *(cell for axis in axes for cell in _amount(axis, cost, dense))])
    for number, target in enumerate(targets, 1):
        name = "budget" if len(targets) == 1 else f"target {number}"
        for side, words in (("low", "at least"), ("high", "at most")):
            limit = {bound.axis: getattr(bound, side) for bound in target.bounds}
            cells = [
                (shown(axis, limit[axis]), f"{limit[axis] / getattr(dense, axis):.2%}") if axis in limit else ("-", "-")
                for axis in axes
            ]
            rows.append([f"{name}, {words}", *(cell for pair in cells for cell in pair)])
    return aligned(rows)


def _amount(axis: str, cost: Cost, dense: Cost) -> tuple[str, str]:
    value, whole = getattr(cost, axis), getattr(dense, axis)
    return shown(axis, value), f"{value / whole:.2%}"


def _range(bound: Bound) -> str:
    return f"{shown(bound.axis, bound.low)} to {shown(bound.axis, bound.high)}"
