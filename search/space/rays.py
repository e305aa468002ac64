"""Directions through the space of structures, from the whole network down, with every strength at which one changes."""

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


class Ray(Protocol):
    """A proposal: structures by strength."""

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels; never rising with strength, everything at 0."""

    def places(self, strength: float) -> Ints:
        """(units,) place of each channel in its group in the order of staying."""

    def steps(self) -> Floats:
        """The strengths at which the widths may change, in any order, infinite ones and repetitions included."""

    def effective(self, strength: float) -> Mapping[str, float]:
        """What the strength makes of the proposal, by name, for people: the thresholds that were really used."""


@dataclass(frozen=True, eq=False)
class HybridRay:
    """Thresholds scaled together.

    Attributes:
        tables: of the network.
        limits: pruning-rate constraint.
        t_norm, t_dist: thresholds at strength 1.
    """

    tables: FilterTables
    limits: Limits
    t_norm: float
    t_dist: float

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        return hybrid_widths(self.tables, self.t_norm * strength, self.t_dist * strength, self.limits)

    def places(self, strength: float) -> Ints:
        """(units,) representatives by norm, then the others by the height at which they merge."""
        return hybrid_ranks(self.tables, self.t_dist * strength)

    def steps(self) -> Floats:
        """Where a filter falls below a threshold."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.fmin(self.tables.norms / self.t_norm, self.tables.heights / self.t_dist))

    def effective(self, strength: float) -> Mapping[str, float]:
        """The thresholds, in mean norms and mean distances."""
        return {"t_norm": self.t_norm * strength, "t_dist": self.t_dist * strength}


@dataclass(frozen=True, eq=False)
class ShareRay:
    """Thresholds that rise together by the share of the network's filters that each would take alone.

    In a trained network most norms lie within a tenth of their mean, and most distances too, so along a straight line
    of thresholds one of the two does nothing unless the line is one of very few: of 200 directions on a trained
    ResNet-56 only 12 gave different structures. Shares spread the directions evenly over what there is to choose.

    Attributes:
        tables: of the network.
        limits: pruning-rate constraint.
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
        """(groups,) kept channels."""
        counts = hybrid_widths(self.tables, *self._thresholds(strength), self.limits)
        if self.caps is None:
            return counts
        loose = min(1.0, max(0.0, 2.0 * strength - 1.0))
        rates = self.caps + loose * (self.limits.max_rate - self.caps)
        least = np.ceil(self.tables.sizes * (1.0 - rates) - SLACK).astype(np.int64)
        return self.limits.admit(np.maximum(counts, least), self.tables)

    def places(self, strength: float) -> Ints:
        """(units,) representatives by norm, then the others by the height at which they merge."""
        return hybrid_ranks(self.tables, self._thresholds(strength)[1])

    def steps(self) -> Floats:
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
        places = np.arange(len(owners)) - self.tables.starts[owners] + 1
        caps, room = self.caps[owners], (self.limits.max_rate - self.caps)[owners]
        with np.errstate(divide="ignore", invalid="ignore"):
            loose = (1.0 - places / self.tables.sizes[owners] - caps) / room
        return np.concatenate([falls, (1.0 + loose[(loose > 0) & (loose <= 1)]) / 2, [1.0]])

    def effective(self, strength: float) -> Mapping[str, float]:
        """The thresholds, in mean norms and mean distances."""
        t_norm, t_dist = self._thresholds(strength)
        return {"t_norm": t_norm, "t_dist": t_dist}


def _quantile(ordered: Floats, share: float) -> float:
    """The least threshold below which that share of the values lies: 0 takes none, 1 takes all."""
    taken = int(share * len(ordered) + SLACK)
    if taken == 0:
        return 0.0
    return float(ordered[taken] if taken < len(ordered) else np.nextafter(ordered[-1], np.inf))


@dataclass(frozen=True, eq=False)
class RatioRay:
    """Keep ratios divided by the strength; a ratio of 1 shrinks too once the strength is above 1.

    Attributes:
        tables: of the network.
        limits: pruning-rate constraint.
        ratios: (groups,) shares to keep at strength 1.
    """

    tables: FilterTables
    limits: Limits
    ratios: Floats

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        shares = np.minimum(1.0, self.ratios / max(strength, 1e-9))
        return self.limits.admit(np.rint(shares * self.tables.sizes).astype(np.int64), self.tables)

    @cached_property
    def _places(self) -> Ints:
        return self.tables.ranks_by_norm

    def places(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self._places

    def steps(self) -> Floats:
        """Where the rounded width of a group falls by one."""
        owners = self.tables.owners
        place = np.arange(len(owners)) - self.tables.starts[owners] + 0.5
        return np.asarray((self.ratios * self.tables.sizes)[owners] / place, dtype=np.float64)

    def effective(self, strength: float) -> Mapping[str, float]:
        """Nothing beyond the widths themselves."""
        return {}
