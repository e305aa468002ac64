"""A study whose structures come from a simple rule instead of proposals: one trial for each target of the budget."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import optuna

from backbones.errors import SecateurError
from search.space.baselines import baseline
from search.study.candidates import pack

if TYPE_CHECKING:
    from search.study.study import Study


def follow_rule(study: Study, rule: str) -> None:
    """Writes what a rule gives as finished trials with the study's score; trials that are there are left alone.

    Args:
        study: whose network, budget, limits, criterion and scorer.
        rule: a key of `search.space.baselines.BASELINES`.

    Raises:
        SecateurError: for an unknown rule, or one that misses the budget.
    """
    known = {trial.user_attrs.get("target") for trial in study.store.finished}
    if known and None in known:
        raise SecateurError(f"study {study.name!r} has searched already; a rule needs a study of its own")
    if len(known) == len(study.targets):
        return
    for number, one in enumerate(baseline(rule, study, seed=study.seed)):
        if one.structure is None or one.cost is None or one.score is None:
            raise SecateurError(f"rule {rule!r} {one.reason or 'gives a structure without a score'}")
        if number in known:
            continue
        trial = optuna.trial.create_trial(
            values=study.aim.values(one.score, one.cost.macs),
            user_attrs={
                "rule": rule,
                "target": number,
                "structure": one.id,
                "kept": pack(study.graph, one.structure),
                **{axis: value for axis, value in asdict(one.cost).items() if value is not None},
                "seconds": one.seconds,
            },
        )
        study.store.safely(partial(study.store.study.add_trial, trial))
    study.store.sync()
