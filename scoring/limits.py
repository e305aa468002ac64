"""How far a rule may go in one group: the pruning-rate constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backbones.arguments import explains
from backbones.cost_table import Ints
from backbones.errors import SecateurError, check_name
from scoring.tables import FilterTables

#: Slack for shares such as 0.9 * 10, so that rounding does not cost a channel.
SLACK = 1e-9


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Limits:
    """Bounds on the number of channels that a group keeps.

    Attributes:
        max_rate: at most this share of a group goes, in [0, 1].
        min_channels: at least so many channels of a group stay (all of a smaller group).
        divisor: widths are multiples of it. Kernels compute in blocks of 8 or 16 channels, so that a width of 13 takes
            the time of 16. A group whose size is no multiple may also stay whole, and a group thinner than the divisor
            always does: it fills less than a block as it is.

    Raises:
        SecateurError: for values out of range.
    """

    max_rate: float = 0.9
    min_channels: int = 1
    divisor: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_rate <= 1:
            raise SecateurError(f"0 <= max_rate <= 1 must hold, but got max_rate={self.max_rate}")
        if self.min_channels < 1:
            raise SecateurError(f"min_channels >= 1 must hold, but got min_channels={self.min_channels}")
        if self.divisor < 1:
            raise SecateurError(f"divisor >= 1 must hold, but got divisor={self.divisor}")

    def floors(self, tables: FilterTables, rates: Mapping[str, float] | None = None) -> Ints:
        """(groups,) least number of channels that stay.

        Args:
            tables: names and sizes of the groups.
            rates: group name -> its own `max_rate`, for some groups.

        Raises:
            SecateurError: when the divisor is larger than every group; for rates out of range or of unknown groups.
        """
        return self.admit(np.zeros_like(tables.sizes), tables, rates)

    def admit(self, counts: Ints, tables: FilterTables, rates: Mapping[str, float] | None = None) -> Ints:
        """The least admissible numbers of channels that are not below `counts`; they never fall where counts rise.

        Args:
            counts: (..., groups) numbers of channels that a rule would keep.
            tables: names and sizes of the groups.
            rates: group name -> its own `max_rate`, for some groups.

        Raises:
            SecateurError: as `floors`.
        """
        sizes = tables.sizes
        if self.divisor > 1 and self.divisor > sizes.max():
            widest = int(sizes.argmax())
            raise SecateurError(
                f"divisor must not exceed the widest group, but got divisor={self.divisor} and group "
                f"{list(tables.groups)[widest]!r} has {sizes[widest]} channels"
            )
        share = self.max_rate if not rates else _own_rates(self.max_rate, tables, rates)
        least = np.ceil(sizes * (1.0 - share) - SLACK).astype(np.int64)
        widths = np.maximum(counts, np.maximum(least, self.min_channels))
        whole = -(-widths // self.divisor) * self.divisor
        return np.asarray(np.minimum(whole, sizes), dtype=np.int64)


def _own_rates(rate: float, tables: FilterTables, rates: Mapping[str, float]) -> NDArray[np.float64]:
    for name, own in rates.items():
        check_name("group", name, tables.groups)
        if not 0 <= own <= 1:
            raise SecateurError(f"0 <= rate <= 1 must hold, but got rate={own} for group {name!r}")
    return np.asarray([rates.get(name, rate) for name in tables.groups])
