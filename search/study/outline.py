"""What a front needs besides the trials, noted in the storage: with it a study can be read without its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backbones.cost import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.study.ledger import Ledger

OUTLINE = "outline"
"""User attribute of the study."""


@dataclass(frozen=True, slots=True)
class Channels:
    """A group of coupled channels: its name and how many there are in the dense network."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Outline:
    """Of one study.

    Attributes:
        id: of the channel graph.
        groups: of the channel graph, in its order.
        dense: cost of the dense network, on every axis of the budget.
        scorer: what the score is.
        caps: the budget in MACs, one per target.
    """

    id: str
    groups: tuple[Channels, ...]
    dense: Cost
    scorer: str
    caps: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channel units."""
        return sum(group.size for group in self.groups)

    @property
    def full(self) -> Structure:
        """Everything kept."""
        return Structure(self.id, tuple((group.name, tuple(range(group.size))) for group in self.groups))


def outline(graph: ChannelGraph, dense: Cost, scorer: str, caps: tuple[int, ...]) -> Outline:
    """The outline of a study of that graph."""
    return Outline(graph.id, tuple(Channels(group.name, group.size) for group in graph.groups), dense, scorer, caps)


def note(ledger: Ledger, known: Outline) -> None:
    """Writes the outline into the storage, unless one is there: the first worker's holds for all."""
    if OUTLINE not in ledger.safely(lambda: ledger.study.user_attrs):
        record = dataclasses.asdict(known)
        record["groups"] = [[group.name, group.size] for group in known.groups]
        ledger.safely(lambda: ledger.study.set_user_attr(OUTLINE, record))


def noted(facts: Mapping[str, Any]) -> Outline | None:
    """The outline among a study's user attributes; None where an older version made it.

    Raises:
        SecateurError: when it cannot be read.
    """
    record = facts.get(OUTLINE)
    if record is None:
        return None
    try:
        groups = tuple(Channels(str(name), int(size)) for name, size in record["groups"])
        caps = tuple(int(cap) for cap in record["caps"])
        return Outline(str(record["id"]), groups, Cost(**record["dense"]), str(record["scorer"]), caps)
    except (TypeError, KeyError, ValueError) as error:
        raise SecateurError(f"the stored outline of the study cannot be read ({error!r}); was it edited?") from None
