"""What structures cost on every axis that a budget bounds, by arithmetic, for many structures at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backbones.cost_table import Cost, CostTable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds a batch as a sum over operations, calibrated once by measurement (`search.space.calibration`).

    Attributes:
        rest: seconds that any structure takes outside counted operations.
        fixed: module -> seconds of its operations at any width.
        per_mac: module -> seconds per MAC of its operations; never negative, so that latency never falls with width.
        per_unit: seconds per kept channel, for what is not counted in MACs (normalisation, activations, additions).
        batch: images in the batch.
    """

    rest: float
    fixed: Mapping[str, float]
    per_mac: Mapping[str, float]
    per_unit: float
    batch: int

    def seconds(self, table: CostTable, kept: Ints) -> Floats:
        """(rows,) for (rows, groups) kept channel counts."""
        rates = np.array([self.per_mac.get(layer, 0.0) for layer in table.op_layers])
        always = self.rest + sum(self.fixed.get(layer, 0.0) for layer in set(table.op_layers))
        sizes = kept @ table.widths.T + table.fixed
        macs = sizes[:, table.op_sizes].prod(2) * table.op_constants
        return np.asarray(always + macs @ rates + self.per_unit * kept.sum(1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class MemoryTable:
    """Bytes of live activations after every operation of the forward pass, linear in the kept channels.

    Attributes:
        fixed: (ops,) bytes that stay whatever is kept.
        per_channel: (ops, groups) bytes a channel of each group takes.
    """

    fixed: Ints
    per_channel: Ints

    def peak(self, kept: Ints) -> Ints:
        """(rows,) for (rows, groups) kept channel counts."""
        return np.asarray((kept @ self.per_channel.T + self.fixed).max(1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class CostModel:
    """What any structure of one network costs: MACs and parameters counted, latency and memory predicted.

    Attributes:
        table: counts MACs and parameters.
        latency: predicts the seconds of a batch; None unless a budget bounds them.
        memory: predicts the peak bytes of activations; None unless a budget bounds them.
    """

    table: CostTable
    latency: LatencyTable | None = None
    memory: MemoryTable | None = None

    def evaluate(self, kept: Ints) -> Cost:
        """The cost for (groups,) kept channel counts."""
        cost = self.table.evaluate(kept)
        if self.latency is None and self.memory is None:
            return cost
        seconds = None if self.latency is None else float(self.latency.seconds(self.table, kept[None])[0])
        peak = None if self.memory is None else int(self.memory.peak(kept[None])[0])
        return Cost(cost.macs, cost.params, seconds, peak)

    def amounts(self, kept: Ints, axes: Sequence[str]) -> Floats:
        """(rows, axes) costs for (rows, groups) kept channel counts."""
        counted = self.table.evaluate_many(kept)
        columns: list[Ints | Floats] = []
        for axis in axes:
            if axis == "latency" and self.latency is not None:
                columns.append(self.latency.seconds(self.table, kept))
            elif axis == "memory" and self.memory is not None:
                columns.append(self.memory.peak(kept))
            else:
                columns.append(counted[:, ("macs", "params").index(axis)])
        return np.stack(columns, axis=1).astype(np.float64)

    @cached_property
    def dense(self) -> Cost:
        """The cost of the whole network."""
        return self.evaluate(self.table.dense_kept)
