"""One proposal: what the sampler suggests, the structure that follows from it, and the facts that a trial keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from backbones.cost_table import Cost
from search.space.budget import Bound, Target
from search.space.packing import pack
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, Projected, project

TARGET, AIMED = "target", " aimed at"
"""Names of the parameters that say which target a trial aims at, and where in a band."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What became of a suggestion.

    Attributes:
        found: the structure inside the budget; None when there is none.
        facts: user attributes of the trial.
    """

    found: Projected | None
    facts: Mapping[str, Any]


def propose(problem: SearchProblem, trial: optuna.Trial) -> Proposal:
    """Asks the sampler and projects what it suggests onto the budget."""
    band, target = _target(problem, trial)
    allocation = problem.suggest(trial)
    found = project(problem, allocation, target)
    if isinstance(found, Infeasible) and target is not band:  # the point aimed at is too close to the band's lower end
        found = project(problem, allocation, band)
    if isinstance(found, Infeasible):
        return Proposal(None, {"reason": found.reason})
    facts = {"structure": found.structure.id, **pack(problem.graph, found.structure, found.cost)}
    resolved = {"effective": dict(found.resolved_params)} if found.resolved_params else {}
    return Proposal(found, {**facts, **resolved, "strength": found.strength})


def target_params(
    problem: SearchProblem, number: int, cost: Cost | None = None
) -> Iterator[tuple[str, BaseDistribution, float]]:
    """The parameters that say which target a trial aims at: name, distribution, and the value for a known structure.

    Args:
        problem: whose targets they are.
        number: the target's place among them.
        cost: what the structure costs, for the place inside a band; without it the value there means nothing.
    """
    target = problem.targets[number]
    if len(problem.targets) > 1:
        yield TARGET, IntDistribution(0, len(problem.targets) - 1), number
    if not target.capped:
        first = target.bounds[target.aimed]
        dense = getattr(problem.cost_model.dense, first.axis)
        low, high = first.low / dense, first.high / dense
        share = low if cost is None else getattr(cost, first.axis) / dense
        yield first.axis + AIMED, FloatDistribution(low, high), min(max(share, low), high)


def _target(problem: SearchProblem, trial: optuna.Trial) -> tuple[Target, Target]:
    """What this trial aims at: the cap or one of several targets (twice the same), or a band and a point inside it."""
    number = trial.suggest_int(TARGET, 0, len(problem.targets) - 1) if len(problem.targets) > 1 else 0
    target = problem.targets[number]
    if target.capped:
        return target, target
    first = target.bounds[target.aimed]
    dense = getattr(problem.cost_model.dense, first.axis)
    goal = trial.suggest_float(first.axis + AIMED, first.low / dense, first.high / dense) * dense
    point = Bound(first.axis, first.low, max(first.low, goal))
    return target, replace(target, bounds=tuple(point if bound is first else bound for bound in target.bounds))
