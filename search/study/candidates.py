"""Trials as candidates, which of these are worth retraining, and their scores confirmed on images that no trial saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.checks import check_count
from search.review.candidate import Candidate, Retraining, ranked
from search.review.front import Front
from search.space.proposals import AIM, WARM, Layout, cost_of, unpack
from search.study.trials import TrialWriter

APART = 0.03
"""Least distance between two structures that are retrained, while there are others: see `distance`."""
STEP_OVER = 0.02
"""Share of the MACs by which a step may be exceeded: the very cheapest point often scores far below the next."""
CONFIRMED = "confirmed "
"""Begins the user attributes of the Optuna study that hold the scores, a structure's id behind it."""
LOOKED_AT = 16
"""Structures that are looked at again, at least; twice as many as are wanted where that is more."""


def candidate_of(
    graph: Layout | None,
    trial: FrozenTrial,
    retrainings: Mapping[int, Sequence[Retraining]],
    confirmed: Mapping[str, float] | None = None,
) -> Candidate:
    """A finished trial with the results of its structure's retrainings.

    Args:
        graph: the network's channel graph, or its layout; without one the candidate has no structure, and the
            structure's id as its label.
        trial: a finished trial.
        retrainings: number of a trial -> what was retrained of it, the best first (`search.study.retrain`).
        confirmed: structure id -> score on images that no trial saw.
    """
    facts = trial.user_attrs
    own = Candidate(
        number=trial.number,
        structure=unpack(graph, facts) if graph is not None and "kept" in facts else None,
        parameters={**trial.params, **facts.get(AIM, {}), **facts.get("effective", {})},
        cost=cost_of(facts) if "macs" in facts else None,
        score=float(trial.values[0]) if trial.state is TrialState.COMPLETE else None,
        confirmed=(confirmed or {}).get(facts.get("structure", "")),
        rule=str(facts["rule"]) if WARM in facts else "",
        seconds=float(facts.get("seconds", 0.0)),
        reason=str(facts["reason"]) if "reason" in facts else None,
        label="" if graph is not None else str(facts.get("structure", "")),
    )
    found = tuple(
        replace(one, structure=one.structure or own.structure, cost=one.cost or own.cost)
        for one in retrainings.get(trial.number, ())
    )
    return replace(own.after(found[0]), retrainings=found) if found else own


def given_structure(one: Candidate | Structure) -> Structure:
    """The structure itself, or that of a candidate.

    Raises:
        SecateurError: for a candidate without one.
    """
    if isinstance(one, Structure):
        return one
    if one.structure is None:
        raise SecateurError(f"{one.name} has no structure" + (f": {one.reason}" if one.reason else ""))
    return one.structure


def choose(front: Front, top: int, *, spread: bool, rules: bool = False) -> list[Candidate]:
    """The structures worth retraining: best scores first, spread over the front, different from each other.

    A search ends among neighbours of one structure, and a score that was optimised hard can be wrong about all of them
    at once: so a structure closer than `APART` to one already taken comes last.

    Args:
        front: with the scores.
        top: structures that are wanted.
        spread: of a band or several targets: first the best score of all, then the best at even steps in MACs down to
            the cheapest point of the front. Of a cap all structures cost the same but for a filter, and their scores
            alone count.
        rules: as for `take_in_turn`.

    Raises:
        SecateurError: when `top` is below 1 or no candidate is feasible.
    """
    check_count("top", top)
    best_first = feasible_ranked(front)
    first = _steps(front.points("score"), top) if spread else []
    [chosen] = take_in_turn([[*first, *best_first]], top, rules=rules)
    return chosen


def feasible_ranked(front: Front) -> list[Candidate]:
    """What may be retrained, the best score first.

    Raises:
        SecateurError: when no candidate is feasible.
    """
    found = ranked([one for one in front.candidates if one.reason is None], "score")
    if not found:
        raise SecateurError(f"study {front.name!r} has no feasible trial to retrain; search first")
    return found


def take_in_turn(bins: Sequence[Sequence[Candidate]], count: int, *, rules: bool = False) -> list[list[Candidate]]:
    """Takes structures from several lists in turn, of each the first that is left; neighbours of what is taken last.

    Args:
        bins: candidates with structures, the best first.
        count: how many are taken, where there are so many.
        rules: what comes from a simple rule is taken by its score alone, also as a neighbour: a search that began with
            it may have stayed near it.

    Returns:
        what was taken from each list.
    """
    taken: list[list[Candidate]] = [[] for _ in bins]
    chosen: dict[str, Candidate] = {}
    left = [_neighbours_last(ones, chosen, rules) for ones in bins]
    more = True
    while more:
        more = False
        for own, following in zip(taken, left, strict=True):
            if len(chosen) < count and (one := next(following, None)) is not None:
                chosen[one.id], more = one, True
                own.append(one)
    return taken


def _neighbours_last(ones: Sequence[Candidate], chosen: Mapping[str, Candidate], rules: bool) -> Iterator[Candidate]:
    """The candidates whose structures are not chosen when it is their turn."""
    for least in (APART, 0.0):
        for one in ones:
            apart = (rules and one.rule) or all(_distance(one, other) >= least for other in chosen.values())
            if apart and one.id not in chosen:
                yield one


def _steps(points: Sequence[Candidate], top: int) -> list[Candidate]:
    """The best score within about each of `top` limits on MACs, from a front's dearest point down to its cheapest."""
    macs = np.array([one.on("macs") for one in points], dtype=float)  # rises, and the scores with it
    limits = np.linspace(macs[-1], macs[0], top) if top > 1 else macs[-1:]
    return [points[place - 1] for place in np.searchsorted(macs, (1 + STEP_OVER) * limits, "right")]


def distance(one: Structure, other: Structure) -> float:
    """Mean over groups of the difference in width, as a share of the larger width; 1 when other layers are removed."""
    if one.removed != other.removed:
        return 1.0
    widths = np.array([[len(channels) for _, channels in structure.kept] for structure in (one, other)], dtype=float)
    return float(np.mean(np.abs(widths[0] - widths[1]) / widths.max(0)))


def _distance(one: Candidate, other: Candidate) -> float:
    assert one.structure is not None
    assert other.structure is not None
    return distance(one.structure, other.structure)


def confirmed_scores(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Structure id -> confirmed score, from the attributes of an Optuna study."""
    return {key.removeprefix(CONFIRMED): value for key, value in attributes.items() if key.startswith(CONFIRMED)}


def confirm(front: Front, scorer: str, task: ScoringTask, store: TrialWriter, wanted: int, *, spread: bool) -> Front:
    """The front of the best by score alone, their scores replaced by those on images that no trial saw.

    A search tries hundreds of structures on the same images, and what wins there is in part what suits just these. So
    before anything is retrained the scores at the top are made anew, with more images to fit and others to look at;
    those of the best rules too, which no image chose, so that a rule comes first where nothing that wins is better.

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
    rules = replace(front, candidates=tuple(one for one in front.candidates if one.rule and one.reason is None))
    taken = {one.id for one in pool}
    pool += [one for one in rules.points("score") if one.id not in taken]
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
