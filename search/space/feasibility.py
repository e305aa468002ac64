"""What structures can cost at all under the rate limits: checked and shown before a search begins."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from math import prod

import numpy as np
from torch import nn

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from search.formatting import WIDTH, aligned
from search.space.budget import BUDGET_AXES, Bound, Budget, Target, cost_text
from search.space.cost_model import Floats, Ints
from search.space.layer_removal import reduced_network
from search.space.problem import SearchProblem, problem_of_weights
from search.space.space import Space

ENUMERABLE = 20_000
"""A network with at most so many admissible combinations of widths is looked through in full."""
TITLES = {"macs": "MACs", "params": "parameters", "latency": "latency", "memory": "memory"}


def reachable(problem: SearchProblem) -> Cost:
    """The smallest cost under the limits, on every axis by itself, with as many layers removed as may go."""
    order = problem.removal_order

    def least_without(removed: tuple[str, ...]) -> Cost:
        tables = problem.tables if order is None or not removed else order.without(removed).tables
        return problem.cost_model_without(removed).evaluate(problem.limits.floors(tables))

    found = [least_without(())]
    axes = [axis.name for axis in fields(Cost) if getattr(found[0], axis.name) is not None]
    if order is not None and not order.each:
        found += [least_without(order.order[:count]) for count in range(1, order.most + 1)]
    elif order is not None:  # of each axis the layers that cost most
        alone = {layer: least_without((layer,)) for layer in order.order}
        for axis in axes:
            costly = sorted(order.order, key=lambda layer: getattr(alone[layer], axis))[: order.most]
            found.append(least_without(tuple(layer for layer in order.order if layer in costly)))
    return Cost(**{axis: min(getattr(one, axis) for one in found) for axis in axes})


def check_reachable(problem: SearchProblem) -> None:
    """Refuses a budget that no structure can meet.

    Raises:
        SecateurError: when some target cannot be met; names the nearest reachable value (and the divisor where it
            binds), or the two nearest for a band that lies between two structures (found in networks of at most
            `ENUMERABLE` combinations of widths).
    """
    least, most, limits = reachable(problem), problem.cost_model.dense, problem.limits
    for target in problem.targets:
        slack = [bound.low > getattr(most, bound.axis) for bound in target.bounds]
        for bound, beyond in zip(target.bounds, slack, strict=True):
            low, high = getattr(least, bound.axis), getattr(most, bound.axis)
            if bound.high < low or (all(slack) if target.capped else beyond):
                nearest = low if bound.high < low else high
                finest = low if limits.divisor == 1 else getattr(reachable(_undivided(problem)), bound.axis)
                divisor = f", divisor={limits.divisor}" if nearest > finest and nearest == low else ""
                raise SecateurError(
                    f"budget {bound.axis}: {_range(bound, target)} cannot be reached; under the rate limits (max_rate="
                    f"{limits.max_rate:g}, min_channels={limits.min_channels}{divisor}) the nearest value is "
                    f"{cost_text(bound.axis, nearest)} ({nearest / high:.2%} of the dense network)"
                )
        if problem.removal_order is None and not target.capped:
            _check_between(problem, target)


def _undivided(problem: SearchProblem) -> SearchProblem:
    """The same problem with widths of any size."""
    limits = replace(problem.limits, divisor=1)
    return replace(problem, space=replace(problem.space, limits=limits))


def check_early(model: nn.Module, graph: ChannelGraph, space: Space, budget: Budget) -> None:
    """What a search would refuse and that does not depend on the weights: found before a network is trained for it.

    With layer removal all layers that may go count as gone, for which of them are essential is not known yet. Latency
    and memory are left to the search.

    Raises:
        SecateurError: for limits or a budget that this network cannot meet, a removal without layers, or the criterion
            "bn_gamma" where a group has no batch norm.
    """
    if space.needs != "weights":
        space = replace(space, criterion="l1")
    problem = problem_of_weights(space, model, graph)
    problem.limits.floors(problem.tables)
    layers = () if space.layers is None else space.layers.candidates(graph)
    if budget.macs is None and budget.params is None:
        return
    targets = Budget(macs=budget.macs, params=budget.params).targets(graph.costs.dense)
    if not layers:
        check_reachable(replace(problem, targets=targets))
        return
    thinnest = reduced_network(graph, layers, lambda some: space.tables(model, some))
    least = thinnest.reduction.graph.costs.evaluate(space.limits.floors(thinnest.tables))
    for target in targets:
        for bound in target.bounds:
            if bound.high < getattr(least, bound.axis):
                raise SecateurError(
                    f"budget {bound.axis}: {_range(bound, target)} cannot be reached; with all layers gone that may go "
                    f"the nearest value is {cost_text(bound.axis, getattr(least, bound.axis))}"
                )


def _check_between(problem: SearchProblem, target: Target) -> None:
    """Looks through a small network for a structure inside the band."""
    tables, divisor = problem.tables, problem.limits.divisor
    choices = [
        np.unique(
            problem.limits.admit(np.arange(1, tables.sizes.max() + 1)[:, None] + 0 * tables.sizes, tables)[:, group]
        )
        for group in range(len(tables.sizes))
    ]
    if prod(map(len, choices)) > ENUMERABLE:
        return
    rows: Ints = np.array(list(product(*choices)), dtype=np.int64)
    axes = [bound.axis for bound in target.bounds]
    amounts = problem.cost_model.amounts(rows, axes)
    fits = (amounts <= [bound.high for bound in target.bounds]).all(1)
    if (fits & (amounts >= [bound.low for bound in target.bounds]).all(1)).any():
        return
    coarse = f" with divisor={divisor}" if divisor > 1 else ""
    raise SecateurError(
        f"budget: no structure of this network{coarse} lies within {target}; the nearest reachable are "
        f"{_two_nearest(amounts[:, 0], target.bounds[0])}"
    )


def _two_nearest(amounts: Floats, bound: Bound) -> str:
    below, above = amounts[amounts <= bound.high], amounts[amounts > bound.high]
    found = ([below.max()] if len(below) else []) + ([above.min()] if len(above) else [])
    return f"{bound.axis} {' and '.join(cost_text(bound.axis, float(value)) for value in found)}"


def feasibility_table(problem: SearchProblem) -> str:
    """The table shown before a search: dense and smallest reachable cost, and the budget."""
    dense, targets = problem.cost_model.dense, problem.targets
    bounded = {bound.axis for target in targets for bound in target.bounds}
    axes = [axis for axis in BUDGET_AXES if axis in bounded or axis in ("macs", "params")]
    ends = {"dense": dense, "largest reachable": dense, "smallest reachable": reachable(problem)}
    blocks = [_block(axes, ends, targets)]
    if max(map(len, blocks[0].splitlines())) > WIDTH:
        blocks = [_block(axes[:2], ends, targets), _block(axes[2:], ends, targets)]
    if problem.removal_order is not None:
        blocks.append(textwrap.fill(f"layers that may go: {', '.join(problem.removal_order.order)}", WIDTH))
    if problem.second_choice:
        blocks.append(criterion_line(problem.space.criterion, problem.second_choice))
    return "\n\n".join(blocks)


def criterion_line(criterion: str, reason: str = "") -> str:
    """By what filters go, for people; more than one line where the terminal asks for it.

    Args:
        criterion: its name.
        reason: why it is not the preferred one; empty where it is.
    """
    return textwrap.fill(f"filters go by {criterion}{': ' if reason else ''}{reason}", WIDTH)


def _block(axes: Sequence[str], ends: Mapping[str, Cost], targets: Sequence[Target]) -> str:
    """The table of some axes."""
    dense = ends["dense"]
    rows = [["", *(cell for axis in axes for cell in (TITLES[axis], "of dense"))]]
    for name, cost in ends.items():
        rows.append([name, *(cell for axis in axes for cell in _amount(axis, getattr(cost, axis), dense))])
    for number, target in enumerate(targets, 1):
        name = "budget" if len(targets) == 1 else f"target {number}"
        for side, words in (("low", "at least"), ("high", "at most"))[target.capped :]:
            limit = {bound.axis: getattr(bound, side) for bound in target.bounds}
            cells = [_amount(axis, limit[axis], dense) if axis in limit else ("-", "-") for axis in axes]
            rows.append([f"{name}, {words}", *(cell for pair in cells for cell in pair)])
    return aligned(rows)


def _amount(axis: str, value: float, dense: Cost) -> tuple[str, str]:
    return cost_text(axis, value), f"{value / getattr(dense, axis):.2%}"


def _range(bound: Bound, target: Target) -> str:
    low = "at most" if target.capped else f"{cost_text(bound.axis, bound.low)} to"
    return f"{low} {cost_text(bound.axis, bound.high)}"
