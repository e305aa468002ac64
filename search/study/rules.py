"""Structures without a search: from simple rules, or made elsewhere; on the same budget and under the same limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from backbones.cost import cost
from backbones.cost_table import Cost
from backbones.errors import SecateurError, check_name
from backbones.structure import Structure
from scoring.essentiality import accuracy_of
from scoring.limits import Limits
from scoring.ratios import widths_mask
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure, ScoringTask
from scoring.tables import FilterTables, channels_by_group, error_table
from search.review.candidate import Candidate
from search.space.allocations import GlobalThreshold, KeepRatios, WidthAllocation
from search.space.budget import Target
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, project
from search.space.proposals import pack
from search.study.scores import ScoreCache
from search.study.trials import TrialStore

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
        criterion: name of the criterion that filters are kept by; None for that of the problem's space. The rule
            "random" draws them instead.
        measure: what "sensitivity" watches fall: "accuracy" on the scoring batch, or a key of `SCORERS`; None for
            accuracy, and "fidelity" where the task has no classes.
        seed: seed of the rule "random".
    """

    criterion: str | None = None
    measure: str | None = None
    seed: int = 0


def rule_candidates(
    name: str, problem: SearchProblem, scores: ScoreCache, settings: RuleSettings
) -> tuple[Candidate, ...]:
    """What a rule gives for each target of a budget, scored.

    Args:
        name: a key of `BASELINES`.
        problem: network, targets of the budget and rate limits.
        scores: holds the scorer.
        settings: criterion, measure and seed of the rule.

    Returns:
        one candidate a target; with a reason where the rule misses it.

    Raises:
        SecateurError: for unknown names.
    """
    check_name("baseline", name, BASELINES)
    if settings.measure is not None:
        check_name("measure", settings.measure, ("accuracy", *SCORERS))
    start = time.perf_counter()
    allocation = BASELINES[name](problem, settings)
    preparing = (time.perf_counter() - start) / len(problem.targets)
    return tuple(_candidate(name, problem, scores, allocation, target, preparing) for target in problem.targets)


def structure_of(name: str, problem: SearchProblem, target: Target, settings: RuleSettings | None = None) -> Structure:
    """The structure that a rule gives without a study.

    Args:
        name: a key of `BASELINES`.
        problem: network, filter tables and rate limits.
        target: what the structure may cost.
        settings: criterion, measure and seed of the rule.

    Raises:
        SecateurError: for an unknown name, or when the rule misses the target.
    """
    check_name("baseline", name, BASELINES)
    found = project(problem, BASELINES[name](problem, settings or RuleSettings()), target)
    if isinstance(found, Infeasible):
        raise SecateurError(f"baseline {name!r} {found.reason}")
    return found.structure


def _candidate(
    name: str, problem: SearchProblem, scores: ScoreCache, allocation: WidthAllocation, target: Target, preparing: float
) -> Candidate:
    start = time.perf_counter()
    found = project(problem, allocation, target)
    if isinstance(found, Infeasible):
        return Candidate(-1, label=name, reason=found.reason, seconds=preparing + time.perf_counter() - start)
    value = scores.scorer(ScoredStructure(problem.task, found.structure))
    return Candidate(
        -1,
        found.structure,
        found.resolved_params,
        found.cost,
        value,
        seconds=preparing + time.perf_counter() - start,
        label=name,
    )


@dataclass(frozen=True, eq=False)
class EqualLoss:
    """The same loss is allowed to every group: the strength, and each keeps the least width that stays below it.

    Attributes:
        tables: the network's filter tables.
        limits: pruning-rate limits of every group.
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

    def ranks(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self.tables.ranks_by_norm

    def breakpoints(self) -> Floats:
        """Every loss that was found."""
        return np.concatenate(self.falls)

    def resolved_params(self, strength: float) -> Mapping[str, float]:
        """The loss allowed to each group."""
        return {"allowed loss": strength}


def _tables(problem: SearchProblem, criterion: str | None, seed: int = 0) -> FilterTables:
    if criterion in (None, problem.tables.criterion):
        return problem.tables
    data = (problem.task.batch, problem.task.labels)
    space = replace(problem.space, criterion=criterion)
    return space.tables(problem.task.model, problem.graph, data, seed, problem.cache)


def _uniform(problem: SearchProblem, settings: RuleSettings) -> WidthAllocation:
    tables = _tables(problem, settings.criterion)
    return KeepRatios(tables, problem.limits, np.ones(len(tables.groups)))


def _global(problem: SearchProblem, settings: RuleSettings) -> WidthAllocation:
    return GlobalThreshold(_tables(problem, settings.criterion), problem.limits)


def _random(problem: SearchProblem, settings: RuleSettings) -> WidthAllocation:
    """Random ratios and random channels."""
    tables = _tables(problem, "random", settings.seed)
    ratios = np.random.default_rng(settings.seed).uniform(1.0 - problem.limits.max_rate, 1.0, len(tables.groups))
    return KeepRatios(tables, problem.limits, np.maximum(ratios, 1e-3))


def _sensitivity(problem: SearchProblem, settings: RuleSettings) -> WidthAllocation:
    """Narrows one group at a time and looks at what that costs; between the widths looked at it is interpolated."""
    tables, task = _tables(problem, settings.criterion), problem.task
    floors = problem.limits.floors(tables)
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
    return EqualLoss(tables, problem.limits, tuple(falls))


def _value(task: ScoringTask, structure: Structure, measure: str | None) -> float:
    scored = ScoredStructure(task, structure)
    measure = measure or ("accuracy" if task.has_logits else "fidelity")
    return accuracy_of(scored.folded, task) if measure == "accuracy" else SCORERS[measure](scored)


def _error(problem: SearchProblem, settings: RuleSettings) -> WidthAllocation:
    """Greedy by the error table: always the channels whose loss raises the error least for the MACs that it saves.

    The error is that of the layers that read a group, refitted (`error_table`); MACs are counted with all groups at
    half their width. Along the convex hull of each group's table, as in any greedy multiple-choice knapsack: a channel
    that costs more than the next one goes together with it.
    """
    tables = _tables(problem, "reconstruction", settings.seed)
    half = np.maximum(tables.sizes // 2, 1)
    one_more = problem.graph.costs.evaluate_many(half + np.eye(len(half), dtype=np.int64))[:, 0]
    saved = np.maximum(one_more - problem.graph.costs.evaluate(half).macs, 1)
    falls = []
    for name, size, macs in zip(tables.groups, tables.sizes, saved, strict=True):
        steps = np.diff(error_table(tables, name)[::-1], prepend=0.0)[: size - 1]
        rates = isotonic_regression(steps).x / macs if size > 1 else steps
        falls.append(np.append(0.0, rates) + TIE / macs * np.arange(size) / size)
    return EqualLoss(_tables(problem, settings.criterion, settings.seed), problem.limits, tuple(falls))


BASELINES: dict[str, Callable[[SearchProblem, RuleSettings], WidthAllocation]] = {
    "uniform": _uniform,
    "global": _global,
    "sensitivity": _sensitivity,
    "error": _error,
    "random": _random,
}


GIVEN = "given"
"""The attribute "rule" of a trial whose structure was made elsewhere."""


def use_rule(problem: SearchProblem, scores: ScoreCache, store: TrialStore, rule: str | Structure, seed: int) -> None:
    """Writes what a rule gives as finished trials with the study's score; trials that are there are left alone.

    Args:
        problem: the study's network, budget, rate limits and criterion.
        scores: holds the study's scorer.
        store: the study's trials.
        rule: a key of `BASELINES`, or a structure that was made elsewhere.
        seed: seed of the rule "random".

    Raises:
        SecateurError: for an unknown rule, or one that misses the budget; as `_use_structure`.
    """
    if isinstance(rule, Structure):
        _use_structure(problem, scores, store, rule)
    elif len(_written(store)) < len(problem.targets):
        _write(problem, store, rule, rule_candidates(rule, problem, scores, RuleSettings(seed=seed)))


def _use_structure(problem: SearchProblem, scores: ScoreCache, store: TrialStore, structure: Structure) -> None:
    """Writes a structure that was made elsewhere as the study's only trial.

    Args:
        problem: the study's network and budget; rate limits and space do not matter.
        scores: holds the study's scorer.
        store: the study's trials.
        structure: a structure of the network.

    Raises:
        SecateurError: for a structure of another network or over the budget, or a budget of several targets.
    """
    structure.check(problem.graph)
    if len(problem.targets) > 1:
        raise SecateurError(f"a given structure needs a budget of one target, but got {len(problem.targets)}")
    [target] = problem.targets
    spent = structure_cost(problem, structure)
    if target.over(spent):
        raise SecateurError(
            f"structure {structure.id} is over the budget: {spent.macs:,} MACs, {spent.params:,} parameters, "
            f"wanted {target}"
        )
    if not _written(store):
        score = scores.scorer(ScoredStructure(problem.task, structure))
        _write(problem, store, GIVEN, [Candidate(-1, structure, cost=spent, score=score)])


def structure_cost(problem: SearchProblem, structure: Structure) -> Cost:
    """What a structure costs on every axis of the budget.

    Raises:
        SecateurError: for one without whole layers where the budget bounds anything but MACs and parameters.
    """
    if not structure.removed:
        return problem.cost_model.evaluate(np.array([len(channels) for _, channels in structure.kept]))
    axes = [bound.axis for target in problem.targets for bound in target.bounds]
    if not set(axes) <= {"macs", "params"}:
        raise SecateurError(f"a given structure without whole layers needs a budget of macs or params, not {axes}")
    return cost(problem.graph, structure)


def _written(store: TrialStore) -> set[int]:
    """Numbers of the targets that have their trial; a study that has searched is refused."""
    if any("target" not in trial.user_attrs for trial in store.finished):
        raise SecateurError(f"study {store.name!r} has searched already; a rule needs a study of its own")
    return {trial.user_attrs["target"] for trial in store.finished}


def _write(problem: SearchProblem, store: TrialStore, rule: str, found: Sequence[Candidate]) -> None:
    """Writes one trial a target; a target that has its trial is left alone."""
    known = _written(store)
    for number, one in enumerate(found):
        if one.structure is None or one.cost is None or one.score is None:
            raise SecateurError(f"rule {rule!r} {one.reason or 'gives a structure without a score'}")
        if number in known:
            continue
        trial = optuna.trial.create_trial(
            values=problem.values(one.score, one.cost.macs),
            user_attrs={
                "rule": rule,
                "target": number,
                "structure": one.id,
                **pack(problem.graph, one.structure, one.cost),
                "seconds": one.seconds,
            },
        )
        store.safely(partial(store.study.add_trial, trial))
    store.sync()
