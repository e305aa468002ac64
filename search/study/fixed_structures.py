"""A study whose structures come from a simple rule or from elsewhere instead of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import optuna

from backbones.cost import cost
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.scoring_task import ScoredStructure
from search.review.candidate import Candidate
from search.space.problem import SearchProblem
from search.space.proposals import pack
from search.study.rules import RuleSettings, rule_candidates
from search.study.scores import ScoreCache
from search.study.trials import TrialStore

GIVEN = "given"
"""The attribute "rule" of a trial whose structure was made elsewhere."""


def use_rule(problem: SearchProblem, scores: ScoreCache, store: TrialStore, rule: str, seed: int) -> None:
    """Writes what a rule gives as finished trials with the study's score; trials that are there are left alone.

    Args:
        problem: the study's network, budget, rate limits and criterion.
        scores: holds the study's scorer.
        store: the study's trials.
        rule: a key of `search.study.rules.BASELINES`.
        seed: seed of the rule "random".

    Raises:
        SecateurError: for an unknown rule, or one that misses the budget.
    """
    if len(_written(store)) < len(problem.targets):
        settings = RuleSettings(problem.space.criterion, seed=seed)
        _write(problem, store, rule, rule_candidates(rule, problem, scores, settings))


def use_structure(problem: SearchProblem, scores: ScoreCache, store: TrialStore, structure: Structure) -> None:
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
    spent = _cost(problem, structure)
    if target.over(spent):
        raise SecateurError(
            f"structure {structure.id} is over the budget: {spent.macs:,} MACs, {spent.params:,} parameters, "
            f"wanted {target}"
        )
    if not _written(store):
        score = scores.scorer(ScoredStructure(problem.task, structure))
        _write(problem, store, GIVEN, [Candidate(-1, structure, cost=spent, score=score)])


def _cost(problem: SearchProblem, structure: Structure) -> Cost:
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
