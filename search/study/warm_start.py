"""What a search begins with: the first trials, from simple rules; in a fork the trials and scores of another study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from backbones.cost_table import Cost
from backbones.errors import SecateurError, check_name
from backbones.structure import Structure
from scoring.ratios import kept_shares
from search.space.allocations import WidthAllocation
from search.space.budget import Target
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, Projected, project, project_without
from search.space.proposals import AIM, AIMED, TARGET, WARM, aim_of, cost_of, pack, point_in
from search.study.identity import IDENTITY, SCORE_ITEMS, VERSIONS, different_items, versions
from search.study.rules import BASELINES, RuleSettings, structure_cost
from search.study.scores import ScoreCache, StructureScore
from search.study.storage import existing_storage, find_study, quiet
from search.study.trials import FINISHED, TrialStore, make_study

RULES = ("uniform", "global", "sensitivity", "error")
"""The rules whose structures are the first trials, unless others are given."""
POINTS = 4
"""Places in a band, evenly from its upper to its lower end, at which each rule is tried."""
REMEMBERED = " (scores)"
"""A study of this name keeps scores from elsewhere, a thousand in an attribute."""


@dataclass(frozen=True, eq=False)
class WarmStart:
    """What is tried before a sampler is asked.

    Attributes:
        problem: the search's problem.
        sources: keys of `BASELINES`, and structures that were made elsewhere, by name.
        seed: of the rule "random".
    """

    problem: SearchProblem
    sources: Mapping[str, Structure | None] = field(default_factory=lambda: dict.fromkeys(RULES))
    seed: int = 0
    _allocations: dict[str, WidthAllocation] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(problem: SearchProblem, sources: Sequence[str | Structure], seed: int) -> WarmStart:
        """The warm start of a list of rules and structures.

        Raises:
            SecateurError: for an unknown rule, or a structure of another network.
        """
        named: dict[str, Structure | None] = {}
        for one in sources:
            if isinstance(one, Structure):
                one.check(problem.graph)
                named[f"given {one.id}"] = one
            else:
                check_name("rule", one, BASELINES)
                named[one] = None
        return WarmStart(problem, named, seed)

    @property
    def text(self) -> str:
        """What other sources than the usual ones make of a study, for its identity; empty for the usual ones."""
        return "" if tuple(self.sources) == RULES else f", after {', '.join(self.sources) or 'nothing'}"

    @property
    def places(self) -> list[tuple[str, int, Target]]:
        """Source, number of the target, and what is aimed at there, in the order of the trials."""
        aims = [(number, aim) for number, target in enumerate(self.problem.targets) for aim in _aims(target)]
        return [(source, number, aim) for source in self.sources for number, aim in aims]

    def proposed(self, place: int) -> FrozenTrial:
        """A trial before it is scored: its structure's facts, or the reason why a rule gives nothing there."""
        source, number, aim = self.places[place]
        facts: dict[str, Any] = {WARM: place, "rule": source}
        structure, cost, reason = self._found(source, aim)
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        if structure is None or cost is None:
            facts["reason"] = reason
        else:
            facts |= {"structure": structure.id, **pack(self.problem.graph, structure, cost)}
            aim_facts = aim_of(self.problem, number, aim)
            facts |= {AIM: aim_facts} if aim_facts else {}
            params, distributions = parameters(self.problem, structure)
        return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=facts)

    def missing(self, trials: Iterable[FrozenTrial]) -> list[int]:
        """The places that a study lacks, in order; none where a sampler has been asked already.

        Args:
            trials: the study's finished and claimed trials.
        """
        done = set()
        for one in trials:
            if WARM not in one.user_attrs and "forked" not in one.user_attrs:
                return []
            done.add(one.user_attrs.get(WARM))
        return [place for place in range(len(self.places)) if place not in done]

    def _found(self, source: str, aim: Target) -> tuple[Structure | None, Cost | None, str | None]:
        given = self.sources[source]
        try:
            if given is not None:
                cost = structure_cost(self.problem, given)
                return (None, None, f"is over the budget: wanted {aim}") if aim.over(cost) else (given, cost, None)
            found = self._ruled(source, aim)
        except SecateurError as error:
            return None, None, str(error)
        if isinstance(found, Infeasible):
            return None, None, found.reason
        return found.structure, found.cost, None

    def _ruled(self, rule: str, aim: Target) -> Projected | Infeasible:
        if rule not in self._allocations:
            self._allocations[rule] = BASELINES[rule](self.problem, RuleSettings(seed=self.seed))
        allocation = self._allocations[rule]
        found = project(self.problem, allocation, aim)
        order = self.problem.removal_order
        if order is None or order.least == 0 or isinstance(found, Infeasible):
            return found
        # Some layers must go: the rule's widths on what is then left, scaled back onto the budget.
        shares = kept_shares(allocation.tables, found.structure)
        return project_without(self.problem, order.chosen(order.params()), shares, aim)


def parameters(problem: SearchProblem, structure: Structure) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """What a sampler would have had to propose for a structure; nothing in spaces of thresholds.

    Args:
        problem: whose space it is.
        structure: of the problem's network.

    Returns:
        parameters and their distributions, by name.
    """
    names = problem.space.share_params(problem.tables)
    if not names:
        return {}, {}
    shares = np.clip(kept_shares(problem.tables, structure), 1.0 - problem.limits.max_rate, 1.0)
    wanted: dict[str, Any] = dict(zip(names, shares.tolist(), strict=True))
    if problem.removal_order is not None:
        wanted |= problem.removal_order.params(structure.removed)
    fixed = FixedTrial(wanted)
    problem.suggest(fixed)  # type: ignore[arg-type] # a stand-in that notes the distributions
    return wanted, fixed.distributions


def _aims(target: Target) -> list[Target]:
    """The target, or of a band some points in it, the upper end first."""
    if target.capped:
        return [target]
    return [point_in(target, 1.0 - number / POINTS) for number in range(POINTS)]


@dataclass(frozen=True, slots=True)
class ForkResult:
    """What was taken over.

    Attributes:
        trials: number of finished trials that the new study has now.
        scores: number of structures that will not be scored again.
    """

    trials: int
    scores: int


def fork_study(store: TrialStore, problem: SearchProblem, name: str, url: str, scores: ScoreCache) -> ForkResult:
    """Fills an empty study from another one.

    Args:
        store: the new study's trials, none so far.
        problem: what the new study proposes from.
        name: the old study's name.
        url: URL of the old study's storage.
        scores: the new study's scores; learns the old ones.

    Raises:
        SecateurError: as `Study.fork`.
    """
    if store.total:
        raise SecateurError(f"study {store.name!r} has {store.total} trials; only a new study can take over another's")
    with quiet(), existing_storage(url) as storage:
        old = find_study(name, url, storage)
        theirs, ours = old.user_attrs.get(IDENTITY, {}), store.identity
        same_torch = old.user_attrs.get(VERSIONS, {}).get("torch") == versions()["torch"]
        trials = [one for one in old.get_trials(deepcopy=False, states=FINISHED) if "structure" in one.user_attrs]
    different = different_items(theirs, ours, SCORE_ITEMS, same_torch=same_torch)
    if different:
        item = different[0]
        raise SecateurError(
            f"the scores of study {name!r} do not hold for {store.name!r}: another {item} ({theirs.get(item)}, now "
            f"{ours.get(item)})"
        )
    scores.learn(trials)
    _remember(store, scores.known)
    valid = [made for one in trials if (made := _valid(one, problem))] if theirs["space"] == ours["space"] else []
    for one in valid:
        store.safely(partial(store.study.add_trial, one))
    store.sync()
    return ForkResult(len(valid), len(scores.known))


def recall_scores(store: TrialStore, scores: ScoreCache) -> None:
    """Learns the scores that a fork left in the storage."""
    if store.name + REMEMBERED in store.safely(lambda: optuna.get_all_study_names(store.storage)):
        memory = store.safely(lambda: optuna.load_study(study_name=store.name + REMEMBERED, storage=store.storage))
        for part in memory.user_attrs.values():
            scores.known |= {key: StructureScore(*value) for key, value in part.items()}


def _remember(store: TrialStore, known: Mapping[str, StructureScore]) -> None:
    name = store.name + REMEMBERED
    memory = store.safely(lambda: make_study(name, store.storage, store.directions[:1]))
    items = iter(known.items())
    parts = iter(lambda: {key: [one.score, one.reason] for key, one in islice(items, 1000)}, {})
    for number, part in enumerate(parts):
        store.safely(partial(memory.set_user_attr, f"part {number}", part))


def _valid(old: FrozenTrial, problem: SearchProblem) -> FrozenTrial | None:
    """The trial as one of the new study, when its structure lies inside the new budget."""
    if old.state is not TrialState.COMPLETE:
        return None
    cost = cost_of(old.user_attrs)
    inside = [i for i, target in enumerate(problem.targets) if not target.over(cost) and not target.under(cost)]
    if not inside:
        return None
    own = [name for name in old.params if name != TARGET and not name.endswith(AIMED)]  # parameters in old studies
    aim = aim_of(problem, inside[0], cost)
    facts = {key: value for key, value in old.user_attrs.items() if key != AIM} | ({AIM: aim} if aim else {})
    return optuna.trial.create_trial(
        values=problem.values(old.values[0], cost.macs),
        params={name: old.params[name] for name in own},
        distributions={name: old.distributions[name] for name in own},
        user_attrs={**facts, "forked": old.number},
    )
