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
from search.space.budget import Target
from search.space.ground import Ground
from search.space.projection import project
from search.space.rays import RatioRay, ShareRay
from search.space.space import shares

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
        cost: of the structure.
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
    ground: Ground, target: Target, number: int, families: tuple[str, ...], seed: int
) -> tuple[SampledStructure, ...]:
    """A set of different structures at one cost, the families in turn.

    Args:
        ground: network, filter tables and limits (`search.space.ground.lay`).
        target: where all of them land.
        number: how many. The first n of a larger set are the set of n.
        families: of `FAMILIES`.
        seed: another seed is a fresh set.

    Raises:
        SecateurError: for an unknown family, or one that has no further structure at this cost.
    """
    for family in families:
        check_name("family", family, FAMILIES)
    drawn: dict[str, SampledStructure] = {}
    for index in range(number):
        family = families[index % len(families)]
        one = _draw_new(ground, target, family, np.random.default_rng([seed, index]), set(drawn))
        drawn[one.structure.id] = one
    return tuple(drawn.values())


def draw_some(ground: Ground, targets: Sequence[Target], number: int, seed: int) -> tuple[Structure, ...]:
    """Up to `number` structures of all families, spread over the targets: fewer where there are no more."""
    found: dict[str, Structure] = {}
    for index in range(number):
        family, target = FAMILIES[index % len(FAMILIES)], targets[index % len(targets)]
        try:
            one = _draw_new(ground, target, family, np.random.default_rng([seed, index]), set(found))
        except SecateurError:
            continue
        found[one.structure.id] = one.structure
    return tuple(found.values())


def _draw_new(
    ground: Ground, target: Target, family: str, rng: np.random.Generator, seen: set[str]
) -> SampledStructure:
    reason = "each was drawn before"
    for _ in range(ATTEMPTS):
        ray = _ray(ground, family, rng)
        found = project(ground.task.graph, ray.tables, ground.limits, ray, target, ground.costs)
        if isinstance(found, str):
            reason = found
        elif found.structure.id not in seen:
            return SampledStructure(family, found.structure, found.cost)
    raise SecateurError(f"family {family!r} gives no further structure within {target} in {ATTEMPTS} draws: {reason}")


def _ray(ground: Ground, family: str, rng: np.random.Generator) -> RatioRay | ShareRay:
    tables, limits = ground.tables, ground.limits
    if family in _RATIOS:
        return RatioRay(tables, limits, _RATIOS[family](tables, rng))
    norm, dist = shares(rng.random())
    return ShareRay(tables, limits, norm, dist, rng.uniform(0.0, limits.max_rate, len(tables.groups)))
