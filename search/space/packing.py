"""How a structure is stored with a trial: packed into the trial's attributes, and read from them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Protocol

import numpy as np

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure, keep_mask


class Named(Protocol):
    """A group of coupled channels."""

    @property
    def name(self) -> str:
        """The group's name in the channel graph."""

    @property
    def size(self) -> int:
        """How many channels the group has in the dense network."""


class Layout(Protocol):
    """What reading a stored structure needs: a `ChannelGraph`, or the outline of one in a storage."""

    @property
    def id(self) -> str:
        """The channel graph's id."""

    @property
    def groups(self) -> Sequence[Named]:
        """The channel groups in the order of the forward pass."""

    @property
    def channels(self) -> int:
        """Number of channels over all groups."""


def pack(graph: ChannelGraph, structure: Structure, cost: Cost) -> dict[str, Any]:
    """A structure and its cost as attributes of a trial; its id is noted beside them.

    Args:
        graph: the dense network's channel graph.
        structure: of that graph.
        cost: what the structure costs; axes that are None are left out.

    Returns:
        "kept" (hex digits, one bit per channel in the graph's order), "removed" where layers are, and one item per axis
        of the cost.
    """
    kept = np.packbits(keep_mask(graph, structure)[:-1]).tobytes().hex()
    removed = {"removed": list(structure.removed)} if structure.removed else {}
    return {"kept": kept, **removed, **{axis: value for axis, value in asdict(cost).items() if value is not None}}


def unpack(graph: Layout, facts: Mapping[str, Any]) -> Structure:
    """The structure that a trial's attributes describe.

    Args:
        graph: layout of the channels.
        facts: attributes of a trial, as `pack` made them.

    Raises:
        SecateurError: when they describe no structure of this graph.
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
