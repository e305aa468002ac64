"""One proposal: what the sampler suggests, the structure that follows from it, and the facts that a trial keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from backbones.cost_table import Cost
from backbones.graph import ChannelGraph
from scoring.tables import FilterTables
from search.space.budget import Bound, Target
from search.space.ground import Ground
from search.space.packing import pack
from search.space.projection import Projected, project

TARGET, AIMED = "target", " aimed at"
"""Names of the parameters that say which target a trial aims at, and where in a band."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What all trials of a study propose from.

    Attributes:
        graph: of the network.
        tables: of its filters.
        space: what is suggested, prepared for this network.
        targets: of the budget.
        objectives: 1 (score) or 2 (score, MACs).
    """

    graph: ChannelGraph
    tables: FilterTables
    space: Ground
    targets: tuple[Target, ...]
    objectives: int

    def values(self, score: float, macs: float) -> list[float]:
        """The objectives' values."""
        return [score, float(macs)][: self.objectives]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What became of a suggestion.

    Attributes:
        found: the structure inside the budget; None when there is none.
        facts: user attributes of the trial.
    """

    found: Projected | None
    facts: Mapping[str, Any]


def propose(aim: Aim, trial: optuna.Trial) -> Proposal:
    """Asks the sampler and projects what it suggests onto the budget."""
    band, target = _target(aim, trial)
    ray = aim.space.propose(trial, aim.tables)
    found = project(aim.graph, aim.tables, aim.space.limits, ray, target, aim.space.costs)
    if isinstance(found, str) and target is not band:  # the point aimed at is too close to the band's lower end
        found = project(aim.graph, aim.tables, aim.space.limits, ray, band, aim.space.costs)
    if isinstance(found, str):
        return Proposal(None, {"reason": found})
    facts = {"structure": found.structure.id, **pack(aim.graph, found.structure, found.cost)}
    effective = {"effective": dict(found.effective)} if found.effective else {}
    return Proposal(found, {**facts, **effective, "strength": found.strength})


def aims(aim: Aim, number: int, cost: Cost | None = None) -> Iterator[tuple[str, BaseDistribution, float]]:
    """The parameters that say which target a trial aims at: name, distribution, and the value for a known structure.

    Args:
        aim: of the study.
        number: of the target.
        cost: of the structure, for the place inside a band; without it the value there means nothing.
    """
    if len(aim.targets) > 1:
        yield TARGET, IntDistribution(0, len(aim.targets) - 1), number
    if not aim.targets[number].capped:
        first = aim.targets[number].bounds[aim.targets[number].aimed]
        dense = getattr(aim.space.costs.dense, first.axis)
        low, high = first.low / dense, first.high / dense
        share = low if cost is None else getattr(cost, first.axis) / dense
        yield first.axis + AIMED, FloatDistribution(low, high), min(max(share, low), high)


def _target(aim: Aim, trial: optuna.Trial) -> tuple[Target, Target]:
    """What this trial aims at: the cap or one of several targets (twice the same), or a band and a point inside it."""
    number = trial.suggest_int(TARGET, 0, len(aim.targets) - 1) if len(aim.targets) > 1 else 0
    target = aim.targets[number]
    if target.capped:
        return target, target
    first = target.bounds[target.aimed]
    dense = getattr(aim.space.costs.dense, first.axis)
    goal = trial.suggest_float(first.axis + AIMED, first.low / dense, first.high / dense) * dense
    point = Bound(first.axis, first.low, max(first.low, goal))
    return target, replace(target, bounds=tuple(point if bound is first else bound for bound in target.bounds))
