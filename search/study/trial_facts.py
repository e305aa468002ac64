"""Trials as candidates: what a review needs of a trial and of its structure's retraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.review.candidate import Candidate
from search.space.packing import Layout, cost_of, unpack


def candidate(graph: Layout | None, trial: FrozenTrial, results: Mapping[str, Mapping[str, Any]]) -> Candidate:
    """A finished trial with the result of its structure's retraining.

    Args:
        graph: of the network; without one the candidate has the id of its structure as label, and no structure.
        trial: finished.
        results: structure id -> accuracy, test_accuracy, artefact.
    """
    facts = trial.user_attrs
    result = results.get(facts.get("structure", ""), {})
    if result.get("trial") != trial.number:  # another trial with this structure shows the result
        result = {}
    ended = result if "kept" in result else facts  # a flow that chose again has other filters than the trial
    return Candidate(
        number=trial.number,
        structure=unpack(graph, ended) if graph is not None and "kept" in ended else None,
        parameters={**trial.params, **facts.get("effective", {})},
        cost=cost_of(ended) if "macs" in ended else None,
        score=trial.values[0] if trial.state is TrialState.COMPLETE else None,
        accuracy=result.get("accuracy"),
        test_accuracy=result.get("test_accuracy"),
        seconds=facts.get("seconds", 0.0),
        reason=facts.get("reason"),
        artefact=Path(result["artefact"]) if "artefact" in result else None,
        label="" if graph is not None else str(result.get("ended", facts.get("structure", ""))),
    )
