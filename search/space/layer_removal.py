"""Layers that may go: which, how many, in what order or each by itself; the network without them to propose from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph, Index
from backbones.removal import Reduction, reduced, removable
from backbones.structure import Structure
from scoring.essentiality import ESSENTIALITY, essentiality, removable_blocks
from scoring.scoring_task import ScoringTask
from scoring.tables import FilterTables
from search.space.allocations import WidthAllocation
from search.space.cost_model import CostModel

Ints = NDArray[np.int64]

LAYERS = "layers removed"
"""The parameter that says how many of the least essential layers go."""
REMOVE = "remove "
"""In front of a layer's name: the parameter that says whether it goes, where each may go by itself."""
CHOICES = ("order", "each")
KEPT_NETWORKS = 64
"""Networks without some layers that are kept at hand."""


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Removal:
    """Which layers a trial may remove.

    Attributes:
        measure: how essential a layer is, a key of `ESSENTIALITY`: "cosine", "accuracy" or "score".
        most: at most so many go; below 1 a share of those that may.
        layers: globs of module paths; by default the residual blocks, or the single layers of a network without any.
        least: at least so many go.
        choice: "order": the least essential go first, so that their number is all that a trial proposes; "each": a
            trial proposes of every layer whether it goes, and the measure decides only where `least` or `most` binds.

    Raises:
        SecateurError: for values out of range.
    """

    measure: str = "cosine"
    most: int | float = 0.5
    layers: tuple[str, ...] = ()
    least: int = 0
    choice: str = "order"

    def __post_init__(self) -> None:
        check_name("essentiality", self.measure, ESSENTIALITY)
        check_name("choice", self.choice, CHOICES)
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
        order: paths of the layers that may go, the least essential first; where their number is what is proposed, no
            more than may go together.
        essentiality: how essential each of them is, in the same order.
        make: builds the filter tables of a reduced graph.
        least: so many of them go in any case.
        most: no more of them go together.
        dense: where each may go by itself, the dense network's tables, of which those of a reduced graph are a part
            while no groups are united; None where they go in order.
    """

    graph: ChannelGraph
    order: tuple[str, ...]
    essentiality: tuple[float, ...]
    make: Callable[[ChannelGraph], FilterTables]
    least: int
    most: int
    dense: FilterTables | None = None
    _networks: dict[tuple[str, ...], ReducedNetwork] = field(default_factory=dict, repr=False)
    _gone: dict[str, Ints] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        removal: Removal,
        task: ScoringTask,
        make: Callable[[ChannelGraph], FilterTables],
        scorer: str,
        dense: FilterTables,
    ) -> LayerRemovalOrder:
        """Measures the layers of a network.

        Args:
            removal: which, and by what measure.
            task: the dense network and images to measure on.
            make: builds the filter tables of a reduced graph.
            scorer: for the measure "score".
            dense: the dense network's filter tables.

        Raises:
            SecateurError: when no layer may go, or the measure needs what the task does not have.
        """
        layers = removal.candidates(task.graph)
        found = essentiality(removal.measure, task, layers, scorer)
        order = sorted(layers, key=lambda layer: (found[layer], layers.index(layer)))
        most, each = removal.count(len(layers)), removal.choice == "each"
        order = order if each else order[:most]
        worth = tuple(found[layer] for layer in order)
        return LayerRemovalOrder(task.graph, tuple(order), worth, make, removal.least, most, dense if each else None)

    @property
    def each(self) -> bool:
        """Whether each may go by itself."""
        return self.dense is not None

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Whole-number parameter -> lowest and highest value: what a trial proposes."""
        if self.each:
            return {REMOVE + layer: (0, 1) for layer in self.order}
        return {LAYERS: (self.least, self.most)}

    def chosen(self, params: Mapping[str, int]) -> tuple[str, ...]:
        """The layers that go, the least essential first.

        Args:
            params: what a trial proposes, as in `ranges`; what it does not name stays.
        """
        if not self.each:
            return self.order[: int(params.get(LAYERS, 0))]
        wanted = [layer for layer in self.order if params.get(REMOVE + layer)][: self.most]
        others = [layer for layer in self.order if layer not in wanted]
        gone = {*wanted, *others[: max(0, self.least - len(wanted))]}
        return tuple(layer for layer in self.order if layer in gone)

    def params(self, removed: Iterable[str] = ()) -> dict[str, int]:
        """What a trial would propose so that these layers go, as far as it can; without any, the least that must."""
        if not self.each:
            return {LAYERS: self.least}
        gone = set(removed)
        return {REMOVE + layer: int(layer in gone) for layer in self.order}

    def without(self, removed: Sequence[str]) -> ReducedNetwork:
        """The network without some layers (at least one), as `chosen` lists them."""
        key = tuple(removed)
        if key not in self._networks:
            if len(self._networks) == KEPT_NETWORKS:
                del self._networks[next(iter(self._networks))]
            self._networks[key] = reduced_network(self.graph, key, self.make, self.dense)
        return self._networks[key]

    def gone_with(self, layer: str) -> Ints:
        """Numbers of the dense network's groups of which nothing is left without a layer."""
        if layer not in self._gone:
            sources = reduced(self.graph, (layer,)).sources.values()
            left = np.concatenate([units for several in sources for units in several])
            self._gone[layer] = np.setdiff1d(np.arange(len(self.graph.groups)), _owners(self.graph, left))
        return self._gone[layer]


def reduced_network(
    graph: ChannelGraph,
    removed: Sequence[str],
    make: Callable[[ChannelGraph], FilterTables],
    dense: FilterTables | None = None,
) -> ReducedNetwork:
    """A network without some of its layers.

    Args:
        graph: the network's channel graph.
        removed: paths of the layers.
        make: builds the filter tables of the reduced graph.
        dense: the dense network's tables, whose part is taken where no groups are united; None to make them anew.

    Raises:
        SecateurError: for a layer that cannot be removed, or when no prunable group is left.
    """
    reduction = reduced(graph, removed)
    groups = [reduction.sources[group.name] for group in reduction.graph.groups]
    own = _owners(graph, np.array([int(sources[0][0]) for sources in groups], dtype=np.int64))
    whole = [
        len(sources) == 1 and len(sources[0]) == graph.groups[place].size
        for sources, place in zip(groups, own, strict=True)
    ]
    if dense is None or not all(whole):
        tables = make(reduction.graph)
    else:
        names = list(dense.groups)
        renamed = zip((group.name for group in reduction.graph.groups), own.tolist(), strict=True)
        parts = {name: replace(dense.groups[names[place]], name=name) for name, place in renamed}
        tables = replace(dense, groups=parts)
    return ReducedNetwork(tuple(sorted(removed)), reduction, tables, own)


def _owners(graph: ChannelGraph, units: Index) -> Ints:
    """Number of the group that each channel unit belongs to."""
    starts = np.array(list(graph.offsets.values()))
    return np.asarray(np.searchsorted(starts, units, side="right") - 1, dtype=np.int64)
