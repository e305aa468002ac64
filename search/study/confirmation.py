"""The best of a search looked at again, on images that no trial saw.

A search tries hundreds of structures on the same images, and what wins there is in part what suits just these images.
So before anything is retrained the scores at the top are made anew, with more images to fit and others to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from backbones.errors import SecateurError
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.review.candidate import Candidate
from search.review.front import Front
from search.study.candidates import choose
from search.study.trials import TrialWriter

CONFIRMED = "confirmed "
"""Begins the user attributes of the Optuna study that hold the scores, a structure's id behind it."""
LOOKED_AT = 16
"""Structures that are looked at again, at least; twice as many as are wanted where that is more."""


def confirmed_scores(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Structure id -> confirmed score, from the attributes of an Optuna study."""
    return {key.removeprefix(CONFIRMED): value for key, value in attributes.items() if key.startswith(CONFIRMED)}


def confirm(front: Front, scorer: str, task: ScoringTask, store: TrialWriter, wanted: int, *, spread: bool) -> Front:
    """The front of the best by score alone, their scores replaced by those on images that no trial saw.

    Args:
        front: of the search.
        scorer: the study's.
        task: of `confirming_task`.
        store: keeps the scores, so that none is made twice.
        wanted: structures that are wanted in the end.
        spread: as for `choose`.

    Raises:
        SecateurError: when no trial is feasible, or none can be scored again.
    """
    pool = choose(front, max(LOOKED_AT, 2 * wanted), spread=spread, rules=True)
    known = confirmed_scores(store.safely(lambda: store.study.user_attrs))
    for one in pool:
        if one.id not in known and one.structure is not None:
            try:
                known[one.id] = scorer_of(scorer)(ScoredStructure(task, one.structure))
            except SecateurError:
                continue
            store.safely(partial(store.study.set_user_attr, CONFIRMED + one.id, known[one.id]))
    return replace(front, candidates=_again(pool, known))


def _again(pool: Sequence[Candidate], known: Mapping[str, float]) -> tuple[Candidate, ...]:
    again = tuple(replace(one, score=known[one.id], confirmed=known[one.id]) for one in pool if one.id in known)
    if not again:
        raise SecateurError("none of the best structures could be scored on other images")
    return again
