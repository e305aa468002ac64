"""Layers that may go: which, how many, and in what order; the network without them, ready to propose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.removal import Reduction, reduced, removable
from backbones.structure import Structure
from scoring.essentiality import ESSENTIALITY, essentiality, removable_blocks
from scoring.scoring_task import ScoringTask
from scoring.tables import FilterTables
from search.space.allocations import WidthAllocation
from search.space.cost_model import CostModel

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Removal:
    """Which layers a trial may remove; the least essential ones go first, so that their number is all it proposes.

    Attributes:
        measure: how essential a layer is, a key of `ESSENTIALITY`: "cosine", "accuracy" or "score".
        most: at most so many go; below 1 a share of those that may.
        layers: globs of module paths; by default the residual blocks, or the single layers of a network without any.
        least: at least so many go.

    Raises:
        SecateurError: for values out of range.
    """

    measure: str = "cosine"
    most: int | float = 0.5
    layers: tuple[str, ...] = ()
    least: int = 0

    def __post_init__(self) -> None:
        check_name("essentiality", self.measure, ESSENTIALITY)
        most = self.most
        if isinstance(most, bool) or not (0 < most < 1 or (most >= 1 and float(most).is_integer())):
            raise SecateurError(f"most must be a share in (0, 1) or a whole number of layers, but got most={most}")
        if self.least < 0 or (most >= 1 and self.least > most):
            raise SecateurError(f"0 <= least <= most must hold, but got least={self.least}, most={most}")

    def candidates(self, graph: ChannelGraph) -> tuple[str, ...]:
        """The layers that may go, outermost only.

        Raises:
            SecateurError: when there are none.
        """
        if not self.layers:
            found = removable_blocks(graph)
        else:
            named = [path for path in removable(graph) if any(fnmatchcase(path, glob) for glob in self.layers)]
            found = tuple(path for path in named if not any(path.startswith(other + ".") for other in named))
        if not found:
            wanted = f"of {', '.join(self.layers)} " if self.layers else ""
            raise SecateurError(f"no layer {wanted}can be removed: none has one input and one output of equal shape")
        return found

    def count(self, candidates: int) -> int:
        """How many of so many candidates may go at most.

        Raises:
            SecateurError: when that is less than must go.
        """
        most = min(candidates, int(self.most) if self.most >= 1 else int(self.most * candidates + 0.5))
        if most < self.least:
            raise SecateurError(f"least <= {most} must hold where {most} layers may go, but got least={self.least}")
        return most


@dataclass(frozen=True, slots=True, eq=False)
class ReducedNetwork:
    """The network without some of its layers.

    Attributes:
        removed: paths of the layers.
        reduction: the channel graph that is left, and where its channels come from.
        tables: filter tables of what is left; groups that a removal unites are one group with one table.
        dense_groups: (groups,) number of the dense network's group that each group of the reduced graph belongs to.
    """

    removed: tuple[str, ...]
    reduction: Reduction
    tables: FilterTables
    dense_groups: Ints

    def lift(self, structure: Structure) -> Structure:
        """A structure of the reduced graph as one of the original.

        United groups get equal indices. Groups that went with their layers are listed whole: nothing of them is left,
        so that equal networks have equal structures.
        """
        graph = self.reduction.original
        mask = np.ones(graph.channels, dtype=np.bool_)
        for name, kept in structure.kept:
            for units in self.reduction.sources[name]:
                mask[units] = False
                mask[units[np.asarray(kept)]] = True
        starts = graph.offsets
        chosen = {
            group.name: np.flatnonzero(mask[starts[group.name] : starts[group.name] + group.size]).tolist()
            for group in graph.groups
        }
        return Structure.of(graph, chosen, self.removed)


@dataclass(frozen=True, eq=False)
class ReducedAllocation:
    """A proposal on the network without some of its layers.

    Attributes:
        allocation: widths of the reduced graph's groups.
        network: the network without the layers.
        cost_model: what structures of the reduced graph cost.
    """

    allocation: WidthAllocation
    network: ReducedNetwork
    cost_model: CostModel


@dataclass(frozen=True, eq=False)
class LayerRemovalOrder:
    """The layers of one network in the order in which they go.

    Attributes:
        graph: the network's channel graph.
        order: paths of the layers that may go, the least essential first; no more than may go together.
        essentiality: how essential each of them is, in the same order.
        make: builds the filter tables of a reduced graph.
        least: so many of them go in any case.
    """

    graph: ChannelGraph
    order: tuple[str, ...]
    essentiality: tuple[float, ...]
    make: Callable[[ChannelGraph], FilterTables]
    least: int = 0
    _networks: dict[int, ReducedNetwork] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        removal: Removal, task: ScoringTask, make: Callable[[ChannelGraph], FilterTables], scorer: str
    ) -> LayerRemovalOrder:
        """Measures the layers of a network.

        Args:
            removal: which, and by what measure.
            task: the dense network and images to measure on.
            make: builds the filter tables of a reduced graph.
            scorer: for the measure "score".

        Raises:
            SecateurError: when no layer may go, or the measure needs what the task does not have.
        """
        layers = removal.candidates(task.graph)
        found = essentiality(removal.measure, task, layers, scorer)
        order = sorted(layers, key=lambda layer: (found[layer], layers.index(layer)))[: removal.count(len(layers))]
        return LayerRemovalOrder(task.graph, tuple(order), tuple(found[layer] for layer in order), make, removal.least)

    def without(self, count: int) -> ReducedNetwork:
        """The network without its `count` least essential layers (at least one)."""
        if count not in self._networks:
            self._networks[count] = reduced_network(self.graph, self.order[:count], self.make)
        return self._networks[count]


def reduced_network(
    graph: ChannelGraph, removed: Sequence[str], make: Callable[[ChannelGraph], FilterTables]
) -> ReducedNetwork:
    """A network without some of its layers.

    Args:
        graph: the network's channel graph.
        removed: paths of the layers.
        make: builds the filter tables of the reduced graph.

    Raises:
        SecateurError: for a layer that cannot be removed, or when no prunable group is left.
    """
    reduction = reduced(graph, removed)
    starts = np.array(list(graph.offsets.values()))
    first = [int(reduction.sources[group.name][0][0]) for group in reduction.graph.groups]
    own = np.searchsorted(starts, np.array(first, dtype=np.int64), side="right") - 1
    return ReducedNetwork(tuple(sorted(removed)), reduction, make(reduction.graph), np.asarray(own, dtype=np.int64))
