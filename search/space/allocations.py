"""Width allocations: how many channels each group keeps, from the whole network down, as a function of one strength.

A trial proposes an allocation; its *strength* says how far it is followed. At strength 0 everything is kept, and no
group's width ever rises with the strength, so that a budget is met by bisection (`search.space.projection`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scoring.hybrid import hybrid_ranks, hybrid_widths
from scoring.limits import SLACK, Limits
from scoring.tables import FilterTables

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class WidthAllocation(Protocol):
    """Structures by strength."""

    @property
    def tables(self) -> FilterTables:
        """The filter tables of the network whose channels are allocated."""

    @property
    def limits(self) -> Limits:
        """The pruning-rate limits that every width keeps to."""

    def widths(self, strength: float) -> Ints:
        """(groups,) number of kept channels; never rising with strength, everything at 0."""

    def ranks(self, strength: float) -> Ints:
        """(units,) rank of each channel in its group: a group of width w keeps the ranks below w."""

    def breakpoints(self) -> Floats:
        """The strengths at which widths may change, in any order, infinite ones and repetitions included."""

    def resolved_params(self, strength: float) -> Mapping[str, float]:
        """What the strength makes of the proposal, name -> value: for people, such as the thresholds really used."""


@dataclass(frozen=True, eq=False)
class QuantileThresholds:
    """A norm and a distance threshold, each given by the share of the network's filters that it would take alone.

    In a trained network most norms lie within a tenth of their mean, and most distances too, so along a straight line
    of thresholds one of the two does nothing unless the line is one of very few: of 200 directions on a trained
    ResNet-56 only 12 gave different structures. Shares spread the directions evenly over what there is to choose.

    Attributes:
        tables: the network's filter tables.
        limits: pruning-rate limits.
        norm, dist: at strength s the thresholds would take the shares norm * s and dist * s; the larger is 1, so that
            strength 1 is the end.
        caps: (groups,) pruning-rate cap of each group, or None. Small budgets lie beyond what caps allow; so in the
            second half of the way, from strength 1/2 on, each rises evenly until all are `limits.max_rate` at 1.
    """

    tables: FilterTables
    limits: Limits
    norm: float
    dist: float
    caps: Floats | None = None

    @cached_property
    def _norms(self) -> Floats:
        return np.sort(self.tables.norms)

    @cached_property
    def _heights(self) -> Floats:
        return np.sort(self.tables.heights[np.isfinite(self.tables.heights)])

    def _thresholds(self, strength: float) -> tuple[float, float]:
        return _quantile(self._norms, self.norm * strength), _quantile(self._heights, self.dist * strength)

    def widths(self, strength: float) -> Ints:
        """(groups,) number of kept channels."""
        counts = hybrid_widths(self.tables, *self._thresholds(strength), self.limits)
        if self.caps is None:
            return counts
        loose = min(1.0, max(0.0, 2.0 * strength - 1.0))
        rates = self.caps + loose * (self.limits.max_rate - self.caps)
        least = np.ceil(self.tables.sizes * (1.0 - rates) - SLACK).astype(np.int64)
        return self.limits.admit(np.maximum(counts, least), self.tables)

    def ranks(self, strength: float) -> Ints:
        """(units,) representatives of clusters by norm, then the others by the height at which they merge."""
        return hybrid_ranks(self.tables, self._thresholds(strength)[1])

    def breakpoints(self) -> Floats:
        """Where a filter falls below a threshold, and where a loosening cap lets one more go."""
        norms = np.searchsorted(self._norms, self.tables.norms, "right") / max(1, len(self._norms))
        heights = np.searchsorted(self._heights, self.tables.heights, "right") / max(1, len(self._heights))
        with np.errstate(divide="ignore"):
            falls = np.minimum(
                norms / self.norm, np.where(np.isfinite(self.tables.heights), heights / self.dist, np.inf)
            )
        if self.caps is None:
            return np.asarray(falls)
        owners = self.tables.owners
        ranks = np.arange(len(owners)) - self.tables.starts[owners] + 1
        caps, room = self.caps[owners], (self.limits.max_rate - self.caps)[owners]
        with np.errstate(divide="ignore", invalid="ignore"):
            loose = (1.0 - ranks / self.tables.sizes[owners] - caps) / room
        return np.concatenate([falls, (1.0 + loose[(loose > 0) & (loose <= 1)]) / 2, [1.0]])

    def resolved_params(self, strength: float) -> Mapping[str, float]:
        """The thresholds, in mean norms and mean distances of a group."""
        t_norm, t_dist = self._thresholds(strength)
        return {"t_norm": t_norm, "t_dist": t_dist}


def _quantile(ordered: Floats, share: float) -> float:
    """The least threshold below which that share of the values lies: 0 takes none, 1 takes all."""
    taken = int(share * len(ordered) + SLACK)
    if taken == 0:
        return 0.0
    return float(ordered[taken] if taken < len(ordered) else np.nextafter(ordered[-1], np.inf))


@dataclass(frozen=True, eq=False)
class KeepRatios:
    """Keep ratios divided by the strength; a ratio of 1 shrinks too once the strength is above 1.

    Attributes:
        tables: the network's filter tables.
        limits: pruning-rate limits.
        ratios: (groups,) shares of channels to keep at strength 1.
    """

    tables: FilterTables
    limits: Limits
    ratios: Floats

    def widths(self, strength: float) -> Ints:
        """(groups,) number of kept channels."""
        shares = np.minimum(1.0, self.ratios / max(strength, 1e-9))
        return self.limits.admit(np.rint(shares * self.tables.sizes).astype(np.int64), self.tables)

    def ranks(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self.tables.ranks_by_norm

    def breakpoints(self) -> Floats:
        """Where the rounded width of a group falls by one."""
        owners = self.tables.owners
        halves = np.arange(len(owners)) - self.tables.starts[owners] + 0.5
        return np.asarray((self.ratios * self.tables.sizes)[owners] / halves, dtype=np.float64)

    def resolved_params(self, strength: float) -> Mapping[str, float]:
        """Nothing: the widths themselves say all."""
        return {}


@dataclass(frozen=True, eq=False)
class GlobalThreshold:
    """One threshold for all groups: channels whose worth is below the strength go, whatever their group.

    With criterion `bn_gamma` and exponent 1 this is the rule of network slimming (Liu et al., ICCV 2017): one threshold
    on |gamma| for the whole network. The exponent leads from there (1) to worth relative to the group's mean (0).

    Attributes:
        tables: the network's filter tables.
        limits: pruning-rate limits.
        exponent: worth is (norm over the group's mean) * (group's mean over the network's mean) ** exponent.
    """

    tables: FilterTables
    limits: Limits
    exponent: float = 1.0

    @cached_property
    def worth(self) -> Floats:
        """(units,) what is compared with the strength."""
        means = np.array([table.mean_norm for table in self.tables.groups.values()])
        scale = means / max(float(means.mean()), 1e-300)
        return np.asarray(self.tables.norms * (scale**self.exponent)[self.tables.owners], dtype=np.float64)

    def widths(self, strength: float) -> Ints:
        """(groups,) number of kept channels."""
        counts = np.add.reduceat(self.worth >= strength, self.tables.starts, dtype=np.int64)
        return self.limits.admit(counts, self.tables)

    def ranks(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self.tables.ranks_by_norm

    def breakpoints(self) -> Floats:
        """Where the threshold passes a channel's worth."""
        return self.worth

    def resolved_params(self, strength: float) -> Mapping[str, float]:
        """The threshold, in mean worths of the network."""
        return {"threshold": strength}
