"""Trials as candidates: how a structure is packed into a trial's attributes, and what a review needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from backbones.cost import Cost
from backbones.graph import ChannelGraph
from backbones.structure import Structure, keep_mask
from search.front import Candidate


def pack(graph: ChannelGraph, structure: Structure) -> str:
    """The kept channels as hex digits, one bit per channel unit in the graph's order."""
    return np.packbits(keep_mask(graph, structure)[:-1]).tobytes().hex()


def unpack(graph: ChannelGraph, text: str) -> Structure:
    """The structure that `pack` wrote."""
    mask = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=graph.channels)
    starts = np.cumsum([0, *(group.size for group in graph.groups)])
    kept = tuple(
        (group.name, tuple(np.flatnonzero(mask[start : start + group.size]).tolist()))
        for group, start in zip(graph.groups, starts, strict=False)
    )
    return Structure(graph.id, kept)


def candidate(graph: ChannelGraph, trial: FrozenTrial, results: Mapping[str, Mapping[str, Any]]) -> Candidate:
    """A finished trial with the result of its structure's retraining.

    Args:
        graph: of the network.
        trial: finished.
        results: structure id -> accuracy, test_accuracy, artefact.
    """
    facts = trial.user_attrs
    result = results.get(facts.get("structure", ""), {})
    return Candidate(
        number=trial.number,
        structure=unpack(graph, facts["kept"]) if "kept" in facts else None,
        parameters=trial.params,
        cost=Cost(facts["macs"], facts["params"]) if "macs" in facts else None,
        score=facts.get("score"),
        accuracy=result.get("accuracy"),
        test_accuracy=result.get("test_accuracy"),
        seconds=facts["seconds"],
        reason=facts.get("reason"),
        artefact=Path(result["artefact"]) if "artefact" in result else None,
    )
