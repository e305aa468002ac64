"""Rank sums of scores: "a+b" is where a structure stands by a, and where it stands by b, among a reference set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backbones.errors import SecateurError
from scoring.channel_weights import Floats
from scoring.scoring_task import ScoredStructure, Scorer, ScoringTask

TINY = 1e-9
"""A reference set is never taken to be narrower than this share of its values, or of 1."""


def rank_sum_score(parts: Mapping[str, Scorer], scored: ScoredStructure) -> float:
    """Mean over the parts of the structure's standing among the task's reference structures.

    Scores of different units cannot be added; ranks can (Borda, 1770). Ranks need company: the reference set is scored
    once a task, and the standing is linear between its scores and goes on at their mean slope outside, so that a search
    can leave the set behind without ties. What the parts need, and their cost, add up; work that they share is done
    once.

    Args:
        parts: scorer by name.
        scored: a structure of a task with a reference set.

    Raises:
        SecateurError: when the task has fewer than two reference structures that can be scored; as the parts.
    """
    return float(
        np.mean([rank_among(part(scored), _reference(scored.task, name, parts)) for name, part in parts.items()])
    )


def rank_among(value: float, reference: Floats) -> float:
    """The share of a sorted reference set below `value`, linear in between and outside: 0 to 1 within the set."""
    values, first = np.unique(reference, return_index=True)
    ends = np.append(first[1:], len(reference))
    ranks = (first + ends) / 2 / len(reference)
    span = max(float(values[-1] - values[0]), TINY * max(1.0, float(np.abs(values).max())))
    if value < values[0]:
        return float(ranks[0] - (values[0] - value) / span)
    if value > values[-1]:
        return float(ranks[-1] + (value - values[-1]) / span)
    return float(np.interp(value, values, ranks))


def _reference(task: ScoringTask, name: str, parts: Mapping[str, Scorer]) -> Floats:
    """Sorted scores of the reference set by one part; all parts look at a structure before the next one is cut."""
    if name not in task.reference_scores:
        found: dict[str, list[float]] = {part: [] for part in parts}
        for structure in task.reference:
            scored = ScoredStructure(task, structure)
            for part, scorer in parts.items():
                try:
                    found[part].append(scorer(scored))
                except SecateurError:
                    continue
        for part, values in found.items():
            if len(values) < 2:
                raise SecateurError(
                    f"a rank sum needs at least 2 reference structures that {part!r} can score, but got {len(values)}"
                )
            task.reference_scores[part] = np.sort(values)
    return task.reference_scores[name]
