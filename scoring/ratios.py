"""The ratio rule: each group keeps a given share of its channels, the best or the most different ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from backbones.cost_table import Ints
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.channel_weights import FEATURES, feature_points
from scoring.clusters import CLUSTERINGS, LINKAGES, cluster
from scoring.criterion_inputs import check_weights
from scoring.limits import Limits
from scoring.tables import FilterTables, channels_by_group

Mask = NDArray[np.bool_]
Ratios = float | Mapping[str, float] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clusterings:
    """Clusterings of every group into any number of clusters; each is made when first asked for, and kept.

    Attributes:
        points: group name -> (n, k) feature vectors.
        method: a key of `CLUSTERINGS`.
        linkage: how "agglomerative" merges.
        seed: what "kmeans" and "spectral" draw by.
    """

    points: Mapping[str, NDArray[np.float64]]
    method: str
    linkage: str
    seed: int
    _made: dict[tuple[str, int], Ints] = field(default_factory=dict, repr=False)

    def labels(self, group: str, clusters: int) -> Ints:
        """(n,) cluster numbers of the group's filters."""
        if (group, clusters) not in self._made:
            self._made[group, clusters] = cluster(
                self.method, self.points[group], clusters, linkage=self.linkage, seed=self.seed
            )
        return self._made[group, clusters]


#: Which channels a group keeps when only their number is given: those with the largest norm; the representatives of
#: as many hierarchical clusters (the tables' linkage); or those of another clustering.
Pick = Literal["norm", "linkage"] | Clusterings


def clusterings(
    model: nn.Module,
    graph: ChannelGraph,
    method: str = "kmeans",
    *,
    features: str = "fan_in",
    linkage: str = "average",
    seed: int = 0,
) -> Clusterings:
    """Prepares the filters of a network to be clustered into given numbers of clusters.

    Args:
        model: the traced network.
        graph: what `trace` made of it.
        method: a key of `CLUSTERINGS`.
        features: a key of `FEATURES`.
        linkage: how "agglomerative" merges, a key of `LINKAGES`.
        seed: what "kmeans" and "spectral" draw by.

    Raises:
        SecateurError: for unknown names, or weights that are not finite.
    """
    check_name("clustering", method, CLUSTERINGS)
    check_name("features", features, FEATURES)
    check_name("linkage", linkage, LINKAGES)
    tensors = model.state_dict()
    check_weights(graph, tensors)
    with threadpool_limits(1):
        points = {group.name: feature_points(group, tensors, features) for group in graph.groups}
    return Clusterings(points, method, linkage, seed)


def ratios(
    tables: FilterTables, keep: Ratios, limits: Limits | None = None, pick: Pick = "norm"
) -> dict[str, tuple[int, ...]]:
    """The kept channels of every group for given keep ratios.

    Args:
        tables: the network's filter tables.
        keep: the share of its channels that each group keeps, in (0, 1]: one number, by group name (others stay
            whole), or (groups,).
        limits: `Limits()` by default.
        pick: which channels, see `Pick`.

    Returns:
        Group name -> sorted channel indices.

    Raises:
        SecateurError: for ratios out of range or of unknown groups; for limits that a group cannot meet.
    """
    return channels_by_group(tables, widths_mask(tables, ratio_widths(tables, keep, limits), pick))


def ratio_widths(tables: FilterTables, keep: Ratios, limits: Limits | None = None) -> Ints:
    """How many channels `ratios` keeps in each group: the nearest number, moved up to the next one that is admitted.

    Never falls where a ratio rises.

    Args:
        tables: the network's filter tables.
        keep: the share that each group keeps as in `ratios`, or (s, groups) to try s of them at once.
        limits: `Limits()` by default.

    Returns:
        (groups,) or (s, groups) numbers of kept channels, fit for `CostTable.evaluate`.

    Raises:
        SecateurError: as `ratios`.
    """
    if isinstance(keep, Mapping):
        for name in keep:
            check_name("group", name, tables.groups)
        keep = np.asarray([keep.get(name, 1.0) for name in tables.groups])
    shares = np.broadcast_to(
        np.asarray(keep, dtype=np.float64), np.broadcast_shapes(np.shape(keep), (len(tables.sizes),))
    )
    if not ((shares > 0) & (shares <= 1)).all():
        wrong = shares[~((shares > 0) & (shares <= 1))][0]
        raise SecateurError(f"0 < keep <= 1 must hold, but got keep={wrong:g}")
    counts = np.floor(shares * tables.sizes + 0.5).astype(np.int64)
    return (limits or Limits()).admit(counts, tables)


def kept_shares(tables: FilterTables, structure: Structure) -> NDArray[np.float64]:
    """(groups,) the share of its channels that each group keeps; 1 for a group that went with its layer.

    Args:
        tables: of the structure's network.
        structure: of the whole network, or without some of its layers.
    """
    widths = structure.widths
    return np.asarray([widths[name] for name in tables.groups]) / tables.sizes


def widths_mask(tables: FilterTables, widths: Ints, pick: Pick = "norm") -> Mask:
    """The (units,) mask of a structure with given widths.

    Args:
        tables: the network's filter tables.
        widths: (groups,) number of channels to keep, 1 to the group's size.
        pick: which channels, see `Pick`.

    Raises:
        SecateurError: for an unknown `pick`, or widths out of range.
    """
    if not ((widths >= 1) & (widths <= tables.sizes)).all():
        wrong = int(np.flatnonzero((widths < 1) | (widths > tables.sizes))[0])
        size = tables.sizes[wrong]
        raise SecateurError(
            f"1 <= width <= {size} must hold for group {list(tables.groups)[wrong]!r}, but got width={widths[wrong]}"
        )
    if isinstance(pick, Clusterings):
        masks = [
            _representatives(pick.labels(name, int(width)), table.norms, int(width))
            for (name, table), width in zip(tables.groups.items(), widths, strict=True)
        ]
        return np.concatenate(masks)
    check_name("pick", pick, ("norm", "linkage"))
    ranks = tables.ranks_by_norm if pick == "norm" else tables.ranks_by_height
    return np.asarray(ranks < widths[tables.owners])


def _representatives(labels: Ints, norms: NDArray[np.float64], width: int) -> Mask:
    """The filter with the largest norm of each cluster; where clusters are too few, the largest of the others too."""
    order = np.argsort(-norms, kind="stable")
    _, first = np.unique(labels[order], return_index=True)
    first = np.concatenate([np.sort(first), np.setdiff1d(np.arange(len(order)), first)])
    mask = np.zeros(len(norms), dtype=np.bool_)
    mask[order[first[:width]]] = True
    return mask
