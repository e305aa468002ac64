"""Simple rules that give a structure without a search, on the same budget and under the same limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backbones.errors import SecateurError, check_name
from backbones.structure import Structure
from scoring.essentiality import accuracy_of
from scoring.limits import Limits
from scoring.ratios import widths_mask
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure, ScoringTask
from scoring.tables import FilterTables, channels_by_group
from search.review.candidate import Candidate
from search.space.budget import Target
from search.space.global_ray import GlobalRay
from search.space.ground import Ground
from search.space.projection import project
from search.space.proposals import Aim
from search.space.rays import RatioRay
from search.study.scores import ScoreCache

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEVELS = 4
"""Widths of each group at which `sensitivity` looks, evenly down to the group's floor."""
TIE = 1e-9
"""Losses this small only put widths that lose equally much in an order."""


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What a rule may be asked to do otherwise.

    Attributes:
        criterion: what filters are kept by; of the random baseline's channels nothing.
        measure: whose fall `sensitivity` looks at: "accuracy" on the scoring batch, or a key of `SCORERS`.
        seed: of the random baseline.
    """

    criterion: str = "l2"
    measure: str = "accuracy"
    seed: int = 0


def rule_candidates(name: str, aim: Aim, scores: ScoreCache, settings: RuleSettings) -> tuple[Candidate, ...]:
    """What a rule gives for each target of a budget, scored.

    Args:
        name: a key of `BASELINES`.
        aim: network, budget and limits.
        scores: their scorer is asked.
        settings: criterion, measure and seed of the rule.

    Returns:
        one candidate a target; with a reason where the rule misses it.

    Raises:
        SecateurError: for unknown names.
    """
    check_name("baseline", name, BASELINES)
    check_name("measure", settings.measure, ("accuracy", *SCORERS))
    start = time.perf_counter()
    ray = BASELINES[name](aim.space, settings)
    preparing = (time.perf_counter() - start) / len(aim.targets)
    return tuple(_candidate(name, aim, scores, ray, target, preparing) for target in aim.targets)


def structure_of(name: str, ground: Ground, target: Target, settings: RuleSettings | None = None) -> Structure:
    """The structure that a baseline gives without a study.

    Args:
        name: a key of `BASELINES`.
        ground: network, tables and limits (`search.space.ground.lay`).
        target: of a budget.
        settings: the defaults otherwise.

    Raises:
        SecateurError: for an unknown name, or when the rule misses the target.
    """
    check_name("baseline", name, BASELINES)
    ray = BASELINES[name](ground, settings or RuleSettings())
    found = project(ground.task.graph, ray.tables, ground.limits, ray, target, ground.costs)
    if isinstance(found, str):
        raise SecateurError(f"baseline {name!r} {found}")
    return found.structure


def _candidate(
    name: str, aim: Aim, scores: ScoreCache, ray: BaselineRay, target: Target, preparing: float
) -> Candidate:
    start = time.perf_counter()
    found = project(aim.graph, ray.tables, aim.space.limits, ray, target, aim.space.costs)
    if isinstance(found, str):
        return Candidate(-1, label=name, reason=found, seconds=preparing + time.perf_counter() - start)
    value = scores.scorer(ScoredStructure(aim.space.task, found.structure))
    return Candidate(
        -1,
        found.structure,
        found.effective,
        found.cost,
        value,
        seconds=preparing + time.perf_counter() - start,
        label=name,
    )


@dataclass(frozen=True, eq=False)
class SensitivityRay:
    """The same loss is allowed to every group: the strength, and each keeps the least width that stays below it.

    Attributes:
        tables: of the network.
        limits: pruning-rate constraint.
        falls: group by group, what is lost at each width from the group's size (nothing) down to 1; never less at a
            smaller width.
    """

    tables: FilterTables
    limits: Limits
    falls: tuple[Floats, ...]

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        narrowest = [len(fall) - np.searchsorted(fall, strength, "right") + 1 for fall in self.falls]
        return self.limits.admit(np.array(narrowest, dtype=np.int64), self.tables)

    def places(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self.tables.ranks_by_norm

    def steps(self) -> Floats:
        """Every loss that was found."""
        return np.concatenate(self.falls)

    def effective(self, strength: float) -> Mapping[str, float]:
        """The loss allowed to each group."""
        return {"allowed loss": strength}


BaselineRay = RatioRay | GlobalRay | SensitivityRay


def _tables(ground: Ground, criterion: str, seed: int = 0) -> FilterTables:
    if criterion == ground.tables.criterion:
        return ground.tables
    data = (ground.task.batch, ground.task.labels)
    return replace(ground.space, criterion=criterion).tables(ground.task.model, ground.task.graph, data, seed)


def _uniform(ground: Ground, settings: RuleSettings) -> BaselineRay:
    tables = _tables(ground, settings.criterion)
    return RatioRay(tables, ground.limits, np.ones(len(tables.groups)))


def _global(ground: Ground, settings: RuleSettings) -> BaselineRay:
    return GlobalRay(_tables(ground, settings.criterion), ground.limits)


def _random(ground: Ground, settings: RuleSettings) -> BaselineRay:
    """Random ratios and random channels."""
    tables = _tables(ground, "random", settings.seed)
    ratios = np.random.default_rng(settings.seed).uniform(1.0 - ground.limits.max_rate, 1.0, len(tables.groups))
    return RatioRay(tables, ground.limits, np.maximum(ratios, 1e-3))


def _sensitivity(ground: Ground, settings: RuleSettings) -> BaselineRay:
    """Narrows one group at a time and looks at what that costs; between the widths looked at it is interpolated."""
    tables, task = _tables(ground, settings.criterion), ground.task
    floors = ground.limits.floors(tables)
    whole = _value(task, Structure.full(task.graph), settings.measure)
    falls = []
    for number, (size, floor) in enumerate(zip(tables.sizes, floors, strict=True)):
        looked = np.unique(np.rint(np.linspace(floor, size, LEVELS + 1)).astype(np.int64))[::-1]
        lost = [0.0]
        for width in looked[1:]:
            widths = tables.sizes.copy()
            widths[number] = width
            structure = Structure.of(task.graph, channels_by_group(tables, widths_mask(tables, widths)))
            lost.append(max(lost[-1], whole - _value(task, structure, settings.measure)))
        per_filter = np.interp(np.arange(size, 0, -1), looked[::-1], lost[::-1])
        # Widths that lose nothing still go one after the other, all groups alike.
        falls.append(per_filter + TIE * (1.0 - np.arange(size, 0, -1) / size))
    return SensitivityRay(tables, ground.limits, tuple(falls))


def _value(task: ScoringTask, structure: Structure, measure: str) -> float:
    scored = ScoredStructure(task, structure)
    return accuracy_of(scored.pruned, task) if measure == "accuracy" else SCORERS[measure](scored)


BASELINES: dict[str, Callable[[Ground, RuleSettings], BaselineRay]] = {
    "uniform": _uniform,
    "global": _global,
    "sensitivity": _sensitivity,
    "random": _random,
}
