"""The first trials of every search: what simple rules give, so that no search ends below one by its own score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from backbones.cost_table import Cost
from backbones.errors import SecateurError, check_name
from backbones.structure import Structure
from scoring.ratios import kept_shares
from search.space.allocations import KeepRatios, WidthAllocation
from search.space.budget import Target
from search.space.layer_removal import ReducedAllocation
from search.space.problem import LAYERS, SearchProblem
from search.space.projection import Infeasible, Projected, project
from search.space.proposals import AIM, aim_of, pack, point_in
from search.study.rules import BASELINES, RuleSettings, structure_cost

RULES = ("uniform", "global", "sensitivity", "error")
"""The rules whose structures are the first trials, unless others are given."""
POINTS = 4
"""Places in a band, evenly from its upper to its lower end, at which each rule is tried."""
WARM = "warm"
"""User attribute: the trial's place in the warm start; trials that a sampler proposed have none."""


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
            settings = RuleSettings(self.problem.space.criterion, seed=self.seed)
            self._allocations[rule] = BASELINES[rule](self.problem, settings)
        allocation = self._allocations[rule]
        found = project(self.problem, allocation, aim)
        order = self.problem.removal_order
        if order is None or order.least == 0 or isinstance(found, Infeasible):
            return found
        # Some layers must go: the rule's widths on what is then left, scaled back onto the budget.
        network = order.without(order.least)
        shares = kept_shares(allocation.tables, found.structure)[network.dense_groups]
        reduced = KeepRatios(network.tables, self.problem.limits, shares)
        return project(
            self.problem, ReducedAllocation(reduced, network, self.problem.cost_model_without(order.least)), aim
        )


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
        wanted[LAYERS] = problem.removal_order.least
    fixed = FixedTrial(wanted)
    problem.suggest(fixed)  # type: ignore[arg-type] # a stand-in that notes the distributions
    return wanted, fixed.distributions


def _aims(target: Target) -> list[Target]:
    """The target, or of a band some points in it, the upper end first."""
    if target.capped:
        return [target]
    return [point_in(target, 1.0 - number / POINTS) for number in range(POINTS)]
