"""What structures cost on every axis that a budget bounds: predicted by arithmetic.

MACs and parameters are counted, latency is predicted from a calibration (`search.space.latency`). Peak memory is
counted, not timed, and linear in the kept channels of each group, so one count with each group narrowed gives it
exactly; a network where that does not hold (products of two pruned sizes) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from backbones.cost_table import Cost, CostTable
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.measure import memory_course
from backbones.structure import Structure
from search.space.latency import LatencyTable, narrow

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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


TOLERANCE = 0.01
"""A counted peak may differ by so much from the predicted one."""
Build = Callable[[Structure], nn.Module]


def memory_table(graph: ChannelGraph, build: Build) -> MemoryTable:
    """Live bytes after each operation, exact in the kept channels, for the example that the graph was traced with.

    Args:
        graph: the network's channel graph.
        build: makes the pruned network of a structure of that graph.

    Raises:
        SecateurError: when the bytes are not linear in the kept channels.
    """
    dense = graph.costs.dense_kept
    whole = np.array(memory_course(build(narrow(graph, dense)), graph.example), dtype=np.int64)

    def course(widths: Ints) -> Ints:
        found = np.array(memory_course(build(narrow(graph, widths)), graph.example), dtype=np.int64)
        if len(found) != len(whole):
            raise SecateurError("budget memory: the network's operations depend on its widths; bound macs instead")
        return found

    per_channel = np.zeros((len(whole), len(dense)), dtype=np.int64)
    for number, size in enumerate(dense):
        widths = dense.copy()
        widths[number] = max(1, size // 2)
        per_channel[:, number] = np.rint((whole - course(widths)) / (size - widths[number]))
    table = MemoryTable(whole - per_channel @ dense, per_channel)
    probe = np.maximum(1, dense // 3)
    counted = int(course(probe).max())
    if (per_channel < 0).any() or abs(int(table.peak(probe[None])[0]) - counted) > TOLERANCE * counted:
        raise SecateurError(
            "budget memory: the activations of this network are not linear in its widths, so they cannot be predicted; "
            "bound macs or params instead"
        )
    return table
