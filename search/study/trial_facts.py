"""Trials as candidates: how a structure is packed into a trial's attributes, and what a review needs of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from backbones.cost import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure, keep_mask
from search.review.front import Candidate


class Named(Protocol):
    """A group of coupled channels."""

    @property
    def name(self) -> str:
        """Of the group."""

    @property
    def size(self) -> int:
        """Number of channels."""


class Layout(Protocol):
    """What reading a stored structure needs: a `ChannelGraph`, or the outline of one in a storage."""

    @property
    def id(self) -> str:
        """Of the graph."""

    @property
    def groups(self) -> Sequence[Named]:
        """In the order of the forward pass."""

    @property
    def channels(self) -> int:
        """Number of channels over all groups."""


def pack(graph: ChannelGraph, structure: Structure) -> str:
    """The kept channels as hex digits, one bit per channel unit in the graph's order."""
    return np.packbits(keep_mask(graph, structure)[:-1]).tobytes().hex()


def unpack(graph: Layout, facts: Mapping[str, Any]) -> Structure:
    """The structure that a trial's attributes describe.

    Raises:
        SecateurError: when they describe none of this graph.
    """
    try:
        packed = np.frombuffer(bytes.fromhex(facts["kept"]), dtype=np.uint8)
        mask = np.unpackbits(packed, count=graph.channels)
        removed = tuple(str(name) for name in facts.get("removed", ()))
    except (ValueError, TypeError) as error:
        raise SecateurError(f"a stored structure cannot be read ({error}); was the storage edited?") from None
    starts = np.cumsum([0, *(group.size for group in graph.groups)])
    kept = tuple(
        (group.name, tuple(np.flatnonzero(mask[start : start + group.size]).tolist()))
        for group, start in zip(graph.groups, starts, strict=False)
    )
    return Structure(graph.id, kept, removed)


def cost_of(facts: Mapping[str, Any]) -> Cost:
    """The cost that a trial's attributes state."""
    return Cost(**{axis.name: facts[axis.name] for axis in fields(Cost) if axis.name in facts})


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
