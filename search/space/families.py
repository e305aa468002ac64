"""Families of structures at one cost: ways in which widths may differ, from even to extreme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backbones.cost_table import Cost
from backbones.errors import SecateurError, check_name
from backbones.structure import Structure
from scoring.tables import FilterTables
from search.space.allocations import KeepRatios, QuantileThresholds, WidthAllocation
from search.space.budget import Target, cost_text
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, project
from search.space.space import threshold_shares

Floats = NDArray[np.float64]
Draw = Callable[[FilterTables, np.random.Generator], Floats]
LEAST = 0.05
"""Smallest keep ratio that is drawn; scaling onto the budget and the rate limit come after."""
ATTEMPTS = 200
"""Draws of one structure before a family is called exhausted."""


@dataclass(frozen=True, slots=True)
class SampledStructure:
    """One structure of a set that was drawn at random.

    Attributes:
        family: the way its widths were drawn, one of `FAMILIES`.
        structure: what is kept.
        cost: what the structure costs.
    """

    family: str
    structure: Structure
    cost: Cost


def _layers(tables: FilterTables, rng: np.random.Generator) -> Floats:
    """Every group draws its own ratio."""
    return rng.uniform(LEAST, 1.0, len(tables.groups))


def _stages(tables: FilterTables, rng: np.random.Generator) -> Floats:
    """One ratio for all groups of one size: the stages of a ResNet or a VGG."""
    _, stage = np.unique(tables.sizes, return_inverse=True)
    return rng.uniform(LEAST, 1.0, int(stage.max()) + 1)[stage]


def _depth(tables: FilterTables, rng: np.random.Generator) -> Floats:
    """A straight line over the groups in the order of the network, rising or falling."""
    first, last = rng.uniform(LEAST, 1.0, 2)
    return np.linspace(first, last, len(tables.groups))


def _extreme(tables: FilterTables, rng: np.random.Generator) -> Floats:
    """Each group is almost whole or almost gone."""
    whole = rng.random(len(tables.groups)) < 0.5
    return np.where(whole, rng.uniform(0.8, 1.0, len(whole)), rng.uniform(LEAST, 0.25, len(whole)))


_RATIOS: dict[str, Draw] = {"layers": _layers, "stages": _stages, "depth": _depth, "extreme": _extreme}
FAMILIES: tuple[str, ...] = (*_RATIOS, "hybrid")
"""`layers`, `stages`, `depth`, `extreme`: keep ratios per group, per size, linear in depth, near 0 or 1, the filters
kept by norm; `hybrid`: norm and distance thresholds of a random balance under random caps."""


def draw(
    problem: SearchProblem, target: Target, number: int, families: Sequence[str], seed: int
) -> tuple[SampledStructure, ...]:
    """A set of different structures at one cost, the families in turn.

    Args:
        problem: network, filter tables and limits.
        target: where all of them land.
        number: how many. The first n of a larger set are the set of n.
        families: keys of `FAMILIES`.
        seed: another seed is a fresh set.

    Raises:
        SecateurError: for an unknown family, or one that has no further structure at this cost.
    """
    for family in families:
        check_name("family", family, FAMILIES)
    drawn: dict[str, SampledStructure] = {}
    for index in range(number):
        family = families[index % len(families)]
        one = _draw_new(problem, target, family, np.random.default_rng([seed, index]), set(drawn))
        if isinstance(one, SampledStructure) and target.under(one.cost):
            one = _exhausted(target, f"the fullest of the others has {cost_text('macs', one.cost.macs)} MACs")
        if isinstance(one, Infeasible):
            raise SecateurError(f"family {family!r} {one.reason}")
        drawn[one.structure.id] = one
    return tuple(drawn.values())


def reference_structures(problem: SearchProblem, number: int, seed: int) -> tuple[Structure, ...]:
    """Up to `number` structures of all families, spread over the problem's targets: fewer where there are no more."""
    found: dict[str, Structure] = {}
    for index in range(number):
        family, target = FAMILIES[index % len(FAMILIES)], problem.targets[index % len(problem.targets)]
        one = _draw_new(problem, target, family, np.random.default_rng([seed, index]), set(found))
        if isinstance(one, SampledStructure):
            found[one.structure.id] = one.structure
    return tuple(found.values())


def _draw_new(
    problem: SearchProblem, target: Target, family: str, rng: np.random.Generator, seen: set[str]
) -> SampledStructure | Infeasible:
    """A structure that fills the target; where no draw gives one, the fullest below it."""
    reason, fullest = "each was drawn before", None
    for _ in range(ATTEMPTS):
        found = project(problem, _allocation(problem, family, rng), target)
        if isinstance(found, Infeasible):
            reason = found.reason
        elif found.structure.id not in seen:
            one = SampledStructure(family, found.structure, found.cost)
            if not target.under(found.cost):
                return one
            fullest = one if fullest is None or one.cost.macs > fullest.cost.macs else fullest
    return fullest or _exhausted(target, reason)


def _exhausted(target: Target, reason: str) -> Infeasible:
    return Infeasible(f"gives no further structure that fills {target} in {ATTEMPTS} draws: {reason}")


def _allocation(problem: SearchProblem, family: str, rng: np.random.Generator) -> WidthAllocation:
    tables, limits = problem.tables, problem.limits
    if family in _RATIOS:
        return KeepRatios(tables, limits, _RATIOS[family](tables, rng))
    norm, dist = threshold_shares(rng.random())
    return QuantileThresholds(tables, limits, norm, dist, rng.uniform(0.0, limits.max_rate, len(tables.groups)))
