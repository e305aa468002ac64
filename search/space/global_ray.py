"""One threshold for all layers, as in network slimming: worth compared across groups, not within them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scoring.limits import Limits
from scoring.tables import FilterTables

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GlobalRay:
    """Channels whose worth is below the strength go, whatever their group (a `Ray` of `search.space.space`).

    With criterion `bn_gamma` and exponent 1 this is the rule of network slimming (Liu et al., ICCV 2017): one threshold
    on |gamma| for the whole network. The exponent leads from there (1) to worth relative to the group's mean (0).

    Attributes:
        tables: of the network.
        limits: pruning-rate constraint.
        exponent: worth is (norm over the group's mean) * (group's mean over the network's mean) ** exponent.
    """

    tables: FilterTables
    limits: Limits
    exponent: float = 1.0

    @cached_property
    def worth(self) -> NDArray[np.float64]:
        """(units,) what is compared with the strength."""
        means = np.array([table.mean_norm for table in self.tables.groups.values()])
        scale = means / max(float(means.mean()), 1e-300)
        return np.asarray(self.tables.norms * (scale**self.exponent)[self.tables.owners], dtype=np.float64)

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels; never rising with strength."""
        counts = np.add.reduceat(self.worth >= strength, self.tables.starts, dtype=np.int64)
        return self.limits.admit(counts, self.tables)

    def places(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self.tables.ranks_by_norm

    def steps(self) -> NDArray[np.float64]:
        """Where a channel's worth is passed."""
        return self.worth

    def effective(self, strength: float) -> Mapping[str, float]:
        """The threshold, in mean worths of the network."""
        return {"threshold": strength}
