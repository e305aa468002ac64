"""The hybrid rule: filters that are small or redundant go, within limits, by one pair of thresholds a network.

For each group, with norms over the group's mean norm and distances over its mean pairwise distance:

1. distance stage: filters whose merge height is below `t_dist` form a cluster, and its filter with the largest norm
   represents it;
2. norm stage: representatives with a norm below `t_norm` go;
3. limits: while fewer filters are left than `Limits` admit, filters come back in the reverse order of their going:
   representatives first, largest norm first; then the others, last merged first (the least redundant; ties by norm).

The number of kept filters never rises with either threshold, limits or not, and so neither do the MACs. The kept sets
are nested too: always along `t_norm`; along `t_dist` wherever limits do not bind, or `t_norm` is 0. More is impossible:
of filters A, B, C with norms 3, 2, 1 and leaving heights inf, 0.1, 0.5 the norm stage alone (t_norm 1.5) leaves {A, B},
the distance stage alone (t_dist 0.2) leaves {A, C}, and no set of two lies in both.

Both thresholds at 0 keep every filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backbones.arguments import explained
from backbones.cost_table import Ints
from backbones.errors import SecateurError
from scoring.limits import Limits
from scoring.tables import FilterTables, channels_by_group

Thresholds = float | NDArray[np.float64]


@explained
def hybrid(
    tables: FilterTables,
    t_norm: float,
    t_dist: float,
    limits: Limits | None = None,
    rates: Mapping[str, float] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The kept channels of every group.

    Args:
        tables: the network's filter tables.
        t_norm: least norm, in mean norms of the group; >= 0.
        t_dist: least distance between clusters, in mean pairwise distances of the group; >= 0.
        limits: `Limits()` by default.
        rates: group name -> its own `max_rate` instead of the limits', for some groups.

    Returns:
        Group name -> sorted channel indices.

    Raises:
        SecateurError: for thresholds that are negative or not finite; for limits that a group cannot meet.
    """
    return channels_by_group(tables, hybrid_mask(tables, t_norm, t_dist, limits, rates))


def hybrid_mask(
    tables: FilterTables,
    t_norm: float,
    t_dist: float,
    limits: Limits | None = None,
    rates: Mapping[str, float] | None = None,
) -> NDArray[np.bool_]:
    """The (units,) mask of kept channels in the order of `ChannelGraph.offsets`; arguments and errors as `hybrid`."""
    widths = hybrid_widths(tables, t_norm, t_dist, limits, rates)
    return np.asarray(hybrid_ranks(tables, t_dist) < widths[tables.owners])


def hybrid_ranks(tables: FilterTables, t_dist: float) -> Ints:
    """(units,) rank of each unit in its group in the order of staying: a group of width w keeps ranks below w."""
    representative = tables.heights >= t_dist
    ordered = representative[tables.sorted_by_norm]
    before: Ints = np.cumsum(ordered) - ordered.astype(np.int64)
    before -= before[tables.starts][tables.owners]
    ranks = np.empty_like(tables.sorted_by_norm)
    ranks[tables.sorted_by_norm] = before
    return np.where(representative, ranks, tables.ranks_by_height)


def hybrid_widths(
    tables: FilterTables,
    t_norm: Thresholds,
    t_dist: Thresholds,
    limits: Limits | None = None,
    rates: Mapping[str, float] | None = None,
) -> Ints:
    """How many channels `hybrid` keeps in each group, without naming them: what a bisection needs.

    Args:
        tables: the network's filter tables.
        t_norm: least norm as in `hybrid`, or (s,) of them to try s pairs at once.
        t_dist: least distance as in `hybrid`, or (s,) of them.
        limits: `Limits()` by default.
        rates: group name -> its own `max_rate` instead of the limits', for some groups.

    Returns:
        (groups,) or (s, groups) numbers of kept channels, fit for `CostTable.evaluate`.

    Raises:
        SecateurError: as `hybrid`.
    """
    _check("t_norm", t_norm)
    _check("t_dist", t_dist)
    low_norm = np.asarray(t_norm)[..., None]
    low_dist = np.asarray(t_dist)[..., None]
    kept = (tables.norms >= low_norm) & (tables.heights >= low_dist)
    counts = np.add.reduceat(kept, tables.starts, axis=-1, dtype=np.int64)
    return (limits or Limits()).admit(counts, tables, rates)


def _check(name: str, value: Thresholds) -> None:
    lowest, highest = (value, value) if isinstance(value, float | int) else (np.min(value), np.max(value))
    if not (lowest >= 0 and highest < math.inf):
        raise SecateurError(f"0 <= {name} < inf must hold, but got {name}={value}")
