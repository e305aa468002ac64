"""What is known of the filters of one group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GroupTable:
    """What is known of the filters of one group.

    Attributes:
        name: the group's.
        norms: (n,) worth of each filter by the criterion, over the group's mean (all 0 where the mean is 0).
        heights: (n,) merge height at which the filter stops to represent its cluster, infinite for the best filter,
            over the group's mean pairwise distance (0 where all filters are equal).
        tree: (n - 1, 4) the merges in scipy's form, heights over the mean pairwise distance.
        mean_norm: the mean worth, in units of the criterion.
        mean_distance: the mean pairwise distance, in units of the mean filter norm.
    """

    name: str
    norms: Floats
    heights: Floats
    tree: Floats
    mean_norm: float
    mean_distance: float

    @property
    def size(self) -> int:
        """Number of filters."""
        return len(self.norms)
