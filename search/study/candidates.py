"""Trials as candidates, and which of these are worth retraining: the best scores, spread and not all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError
from backbones.structure import Structure
from search.checks import check_range
from search.review.candidate import Candidate, ranked
from search.review.front import Front
from search.space.proposals import AIM, Layout, cost_of, unpack

APART = 0.03
"""Least distance between two structures that are retrained, while there are others: see `distance`."""


def candidate_of(graph: Layout | None, trial: FrozenTrial, results: Mapping[str, Mapping[str, Any]]) -> Candidate:
    """A finished trial with the result of its structure's retraining.

    Args:
        graph: the network's channel graph, or its layout; without one the candidate has no structure, and the
            structure's id as its label.
        trial: a finished trial.
        results: structure id -> what its latest retraining gave: accuracy, test_accuracy, artefact.
    """
    facts = trial.user_attrs
    result = results.get(facts.get("structure", ""), {})
    if result.get("trial") != trial.number:  # another trial with this structure shows the result
        result = {}
    ended = result if "kept" in result else facts  # a flow that chose again has other filters than the trial
    return Candidate(
        number=trial.number,
        structure=unpack(graph, ended) if graph is not None and "kept" in ended else None,
        parameters={**trial.params, **facts.get(AIM, {}), **facts.get("effective", {})},
        cost=cost_of(ended) if "macs" in ended else None,
        score=trial.values[0] if trial.state is TrialState.COMPLETE else None,
        accuracy=result.get("accuracy"),
        test_accuracy=result.get("test_accuracy"),
        seconds=facts.get("seconds", 0.0),
        reason=facts.get("reason"),
        artefact=Path(result["artefact"]) if "artefact" in result else None,
        label="" if graph is not None else str(result.get("ended", facts.get("structure", ""))),
    )


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


def choose(front: Front, top: int, *, spread: bool) -> list[Candidate]:
    """The structures worth retraining: best scores first, spread over the front, different from each other.

    A search ends among neighbours of one structure, and a score that was optimised hard can be wrong about all of them
    at once: so a structure closer than `APART` to one already taken comes last.

    Args:
        front: with the scores.
        top: structures that are wanted.
        spread: of a band or several targets: first the best score of all, then the best at even steps in MACs down to
            the cheapest point of the front. Of a cap all structures cost the same but for a filter, and their scores
            alone count.

    Raises:
        SecateurError: when `top` is below 1 or no candidate is feasible.
    """
    check_range("top", top, 1)
    points = list(front.points("score"))
    if not points:
        raise SecateurError(f"study {front.name!r} has no feasible trial to retrain; search first")
    feasible = [one for one in front.candidates if one.reason is None]
    best_first = ranked(feasible, "score")
    first = _steps(points, top) if spread else []
    chosen: dict[str, Candidate] = {}
    for least in (APART, 0.0):
        for one in [*first, *best_first]:
            if len(chosen) == top:
                return list(chosen.values())
            if one.id not in chosen and all(_distance(one, other) >= least for other in chosen.values()):
                chosen[one.id] = one
    return list(chosen.values())


def _steps(points: Sequence[Candidate], top: int) -> list[Candidate]:
    """The best score within each of `top` limits on MACs, from the dearest point of a front down to the cheapest."""
    macs = np.array([one.on("macs") for one in points], dtype=float)  # rises, and the scores with it
    limits = np.linspace(macs[-1], macs[0], top) if top > 1 else macs[-1:]
    return [points[place - 1] for place in np.searchsorted(macs, limits, "right")]


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
