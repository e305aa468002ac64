"""What a front needs besides the trials, noted in the storage: with it a study can be read without its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.data.task import ACCURACY, MetricSpec
from search.study.trials import TrialWriter

MOST_CHANNELS = 2**24
METADATA = "outline"
"""User attribute of the Optuna study that holds the metadata."""


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
