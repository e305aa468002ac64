"""A study whose structures come from a simple rule or from elsewhere instead of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import optuna

from backbones.cost import Cost, cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.review.front import Candidate
from search.space.baselines import baseline
from search.study.trial_facts import pack

if TYPE_CHECKING:
    from search.study.study import Study

GIVEN = "given"
"""What trials of a structure from elsewhere have for a rule."""


def use_rule(study: Study, rule: str) -> None:
    """Writes what a rule gives as finished trials with the study's score; trials that are there are left alone.

    Args:
        study: whose network, budget, limits, criterion and scorer.
        rule: a key of `search.space.baselines.BASELINES`.

    Raises:
        SecateurError: for an unknown rule, or one that misses the budget.
    """
    if len(_written(study)) < len(study.targets):
        _write(study, rule, baseline(rule, study, seed=study.seed))


def use_structure(study: Study, structure: Structure) -> None:
    """Writes a structure that was made elsewhere as the study's only trial.

    Args:
        study: whose network, budget and scorer; limits and space do not matter.
        structure: of its network.

    Raises:
        SecateurError: for a structure of another network or over the budget, or a budget of several targets.
    """
    structure.check(study.graph)
    if len(study.targets) > 1:
        raise SecateurError(f"a given structure needs a budget of one target, but got {len(study.targets)}")
    [target] = study.targets
    spent = _cost(study, structure)
    if target.over(spent):
        raise SecateurError(
            f"structure {structure.id} is over the budget: {spent.macs:,} MACs, {spent.params:,} parameters, "
            f"wanted {target}"
        )
    if not _written(study):
        score = scorer_of(study.scorer)(ScoredStructure(study.ground.task, structure))
        _write(study, GIVEN, [Candidate(-1, structure, cost=spent, score=score)])


def _cost(study: Study, structure: Structure) -> Cost:
    if not structure.removed:
        return study.ground.costs.evaluate(np.array([len(channels) for _, channels in structure.kept]))
    axes = [bound.axis for target in study.targets for bound in target.bounds]
    if not set(axes) <= {"macs", "params"}:
        raise SecateurError(f"a given structure without whole layers needs a budget of macs or params, not {axes}")
    return cost(study.graph, structure)


def _written(study: Study) -> set[int]:
    """Targets that have their trial; a study that has searched is refused."""
    if any("target" not in trial.user_attrs for trial in study.store.finished):
        raise SecateurError(f"study {study.name!r} has searched already; a rule needs a study of its own")
    return {trial.user_attrs["target"] for trial in study.store.finished}


def _write(study: Study, rule: str, found: Sequence[Candidate]) -> None:
    """One trial a target, those that the storage has left out."""
    known = _written(study)
    for number, one in enumerate(found):
        if one.structure is None or one.cost is None or one.score is None:
            raise SecateurError(f"rule {rule!r} {one.reason or 'gives a structure without a score'}")
        if number in known:
            continue
        removed = {"removed": list(one.structure.removed)} if one.structure.removed else {}
        trial = optuna.trial.create_trial(
            values=study.aim.values(one.score, one.cost.macs),
            user_attrs={
                "rule": rule,
                "target": number,
                "structure": one.id,
                "kept": pack(study.graph, one.structure),
                **removed,
                **{axis: value for axis, value in asdict(one.cost).items() if value is not None},
                "seconds": one.seconds,
            },
        )
        study.store.safely(partial(study.store.study.add_trial, trial))
    study.store.sync()
