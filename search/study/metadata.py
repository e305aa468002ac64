"""What a front needs besides the trials, noted in the storage: with it a study can be read without its network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.data.data import SplitName
from search.data.task import ACCURACY, MetricSpec
from search.review.candidate import Candidate
from search.study.trials import TrialWriter

MOST_CHANNELS = 2**24
METADATA = "outline"
"""User attribute of the Optuna study that holds the metadata."""
SPLITS: tuple[SplitName, ...] = ("validation", "test")
"""Splits on which the dense network is measured."""
DENSE_ACCURACY = "dense accuracy"
"""User attribute that holds what the dense network reaches: split -> the task's metric."""


@dataclass(frozen=True, slots=True)
class GroupSize:
    """A group of coupled channels: its name, and how many channels it has in the dense network."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class StudyMetadata:
    """What is known of a study's network and budget without the network.

    Attributes:
        id: the channel graph's id.
        groups: the channel graph's groups, in its order.
        dense: cost of the dense network, on every axis of the budget.
        scorer: name of the scorer.
        caps: the budget in MACs, one per target.
        metric: what the retrained networks are judged by.
    """

    id: str
    groups: tuple[GroupSize, ...]
    dense: Cost
    scorer: str
    caps: tuple[int, ...]
    metric: MetricSpec = ACCURACY

    @classmethod
    def of(
        cls, graph: ChannelGraph, dense: Cost, scorer: str, caps: tuple[int, ...], metric: MetricSpec = ACCURACY
    ) -> StudyMetadata:
        """The metadata of a study of the network that `graph` belongs to."""
        groups = tuple(GroupSize(group.name, group.size) for group in graph.groups)
        return cls(graph.id, groups, dense, scorer, caps, metric)

    @property
    def channels(self) -> int:
        """Number of channels over all groups."""
        return sum(group.size for group in self.groups)

    @property
    def full(self) -> Structure:
        """The dense network's structure: everything kept."""
        return Structure(self.id, tuple((group.name, tuple(range(group.size))) for group in self.groups))


def write_metadata(writer: TrialWriter, metadata: StudyMetadata) -> None:
    """Writes the metadata into the storage, unless some is there: the first worker's holds for all."""
    if METADATA not in writer.safely(lambda: writer.study.user_attrs):
        record = dataclasses.asdict(metadata)
        record["groups"] = [[group.name, group.size] for group in metadata.groups]
        writer.safely(lambda: writer.study.set_user_attr(METADATA, record))


def read_metadata(attributes: Mapping[str, Any]) -> StudyMetadata | None:
    """The metadata among the user attributes of a study; None where an older version made the study.

    Raises:
        SecateurError: when the attribute cannot be read.
    """
    record = attributes.get(METADATA)
    if record is None:
        return None
    try:
        groups = tuple(GroupSize(str(name), int(size)) for name, size in record["groups"])
        if not 0 <= sum(group.size for group in groups) <= MOST_CHANNELS or min(group.size for group in groups) < 0:
            raise ValueError("no network has so many channels")
        caps = tuple(int(cap) for cap in record["caps"])
        metric = MetricSpec(**record.get("metric", {}))  # which older versions did not write
        return StudyMetadata(str(record["id"]), groups, Cost(**record["dense"]), str(record["scorer"]), caps, metric)
    except (TypeError, KeyError, ValueError, ArithmeticError, AttributeError) as error:
        raise SecateurError(f"the stored outline of the study cannot be read ({error!r}); was it edited?") from None


def dense_accuracy_of(attributes: Mapping[str, Any]) -> dict[str, float]:
    """What the dense network reaches, from the user attributes of a study: split -> the metric; empty before that.

    Raises:
        SecateurError: when the attribute cannot be read.
    """
    try:
        return {str(split): float(value) for split, value in attributes.get(DENSE_ACCURACY, {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise SecateurError(
            f"the stored accuracy of the dense network cannot be read ({error}); was it edited?"
        ) from None


def known_dense_accuracy(writer: TrialWriter, measure: Callable[[SplitName], float] | None = None) -> dict[str, float]:
    """What the dense network reaches, as far as the storage knows it: "validation" and "test" -> the metric.

    Args:
        writer: of the search's trials.
        measure: gives the metric on a split; what is not known is then measured, and noted in the storage.
    """
    known = dense_accuracy_of(writer.safely(lambda: writer.study.user_attrs))
    missing: list[SplitName] = [split for split in SPLITS if split not in known]
    if missing and measure is not None:
        known |= {split: measure(split) for split in missing}
        note_dense_accuracy(writer, known)
    return known


def note_dense_accuracy(writer: TrialWriter, known: Mapping[str, float]) -> None:
    """Notes in the storage what the dense network reaches: split -> the metric."""
    writer.safely(lambda: writer.study.set_user_attr(DENSE_ACCURACY, dict(known)))


def dense_candidate(structure: Structure | None, cost: Cost | None, known: Mapping[str, float]) -> Candidate:
    """The dense network as the first row of a front.

    Args:
        structure: everything kept; None where it is not known.
        cost: of the dense network.
        known: split -> the metric, as far as it was measured.
    """
    found = {split: value for split, value in known.items() if math.isfinite(value)}
    return Candidate(
        -1, structure, cost=cost, accuracy=found.get("validation"), test_accuracy=found.get("test"), label="dense"
    )
