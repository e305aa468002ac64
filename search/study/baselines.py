"""What a search must beat: simple rules on a study's own budget, as candidates to stand beside its front."""

from __future__ import annotations

from search.review.candidate import Candidate
from search.study.rules import RuleSettings, rule_candidates
from search.study.study import Study


def baseline(
    name: str, study: Study, *, criterion: str | None = None, measure: str = "accuracy", seed: int = 0
) -> tuple[Candidate, ...]:
    """The structures that a simple rule gives on a study's budget, one a target, to stand beside `Study.front()`.

    Put them there with `dataclasses.replace(front, baselines=...)`.

    Args:
        name: "uniform" (one keep ratio), "global" (one threshold for all filters' worth), "sensitivity" (the same loss
            allowed to each group, found by bisection, as FastNAS of NVIDIA's ModelOpt does), "random".
        study: whose network, budget, limits and scorer.
        criterion: what filters are kept by; the study's own by default.
        measure: whose fall "sensitivity" looks at: "accuracy" on the scoring batch, or a key of `SCORERS`.
        seed: of "random".

    Returns:
        candidates with structure, cost and the study's score; with a reason where the rule misses the target.

    Raises:
        SecateurError: for unknown names.
    """
    settings = RuleSettings(criterion or study.space.criterion, measure, seed)
    return rule_candidates(name, study.problem, study.scores, settings)
