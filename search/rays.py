"""Directions through the space of structures, from the whole network down, with every strength at which one changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scoring.hybrid import hybrid_places, hybrid_widths
from scoring.limits import SLACK, Limits
from scoring.tables import FilterTables

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LOOSENING = 0.3
"""By how much the caps of `hybrid+ratios` rise with each unit of strength above 1."""


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
        caps: (groups,) pruning-rate cap of each group, or None. Where the thresholds alone cannot reach a small budget
            because caps bind, going further loosens them: above strength 1, thresholds of about the mean norm or the
            mean distance, every cap rises by `LOOSENING` a unit of strength until it is `limits.max_rate`. So every
            direction ends at the limits' floors, and the order of the caps decides who gets there first.
    """

    tables: FilterTables
    limits: Limits
    t_norm: float
    t_dist: float
    caps: Floats | None = None

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        counts = hybrid_widths(self.tables, self.t_norm * strength, self.t_dist * strength, self.limits)
        if self.caps is None:
            return counts
        rates = np.minimum(self.limits.max_rate, self.caps + LOOSENING * max(0.0, strength - 1.0))
        least = np.ceil(self.tables.sizes * (1.0 - rates) - SLACK).astype(np.int64)
        return self.limits.admit(np.maximum(counts, least), self.tables)

    def places(self, strength: float) -> Ints:
        """(units,) representatives by norm, then the others by the height at which they merge."""
        return hybrid_places(self.tables, self.t_dist * strength)

    def steps(self) -> Floats:
        """Where a filter falls below a threshold, and where a loosening cap lets one more go."""
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = np.fmin(self.tables.norms / self.t_norm, self.tables.heights / self.t_dist)
        if self.caps is None:
            return falls
        owners = self.tables.owners
        place = np.arange(len(owners)) - self.tables.starts[owners] + 1
        loose = 1.0 + (1.0 - place / self.tables.sizes[owners] - self.caps[owners]) / LOOSENING
        return np.concatenate([falls, loose[loose > 1.0]])

    def effective(self, strength: float) -> Mapping[str, float]:
        """The thresholds, in mean norms and mean distances."""
        return {"t_norm": self.t_norm * strength, "t_dist": self.t_dist * strength}


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
        return self.tables.norm_places

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
