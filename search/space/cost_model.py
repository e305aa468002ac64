"""What structures cost on every axis that a budget bounds: predicted by arithmetic, calibrated by one measurement.

Measuring the latency of every step of a bisection would be slow and noisy, so it is *predicted*: seconds per MAC of
each operation and seconds per kept channel for the rest, by non-negative least squares on the whole network and a few
structures, all measured in turns. Peak memory is counted, not timed, and linear in the kept channels of each group, so
one count with each group narrowed gives it exactly; a network where that does not hold (products of two pruned sizes)
is refused.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from backbones.cost_table import Cost, CostTable
from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.graph import ChannelGraph
from backbones.inputs import move_tensors, run_on, sample_count, tensors_in
from backbones.measure import memory_course
from backbones.modes import device_of, evaluating
from backbones.structure import Structure
from backbones.surgery import prune

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds a batch as a sum over operations, calibrated once by measurement.

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


SHARES = (1.0, 0.75, 0.5, 0.25)
"""Every group of the measured structures keeps this share of its channels."""
TOLERANCE = 0.01
"""A counted peak may differ by so much from the predicted one."""
Build = Callable[[Structure], nn.Module]


def calibrated(
    model: nn.Module, graph: ChannelGraph, images: Any, known: Path | None = None, *, rounds: int = 7
) -> LatencyTable:
    """The latency table of a network on this machine.

    Args:
        model: the dense network.
        graph: its channel graph.
        images: (B, C, H, W) the batch whose latency counts, or inputs of another form, as the network takes them.
        known: a file that keeps the table, so that a resumed search predicts the same; measured and written when it
            does not exist or was made with another network, batch size, device or number of threads.
        rounds: measurements of each structure.
    """
    device = device_of(model)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    shapes = ", ".join(str(tuple(one.shape)) for one in tensors_in(images))
    key = f"{graph.id} {shapes} {where} {torch.get_num_threads()} threads"
    if known is not None and known.is_file():
        try:
            record = json.loads(known.read_text(encoding="utf-8"))
            if record.pop("key") == key:
                return LatencyTable(**record)
        except (ValueError, TypeError, KeyError, AttributeError):
            warnings.warn(f"{known} is no latency table; it is measured again and replaced", stacklevel=2)
    table = _fit(model, graph, move_tensors(images, device), rounds)
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, json.dumps({"key": key, **asdict(table)}, indent=1))
    return table


def _fit(model: nn.Module, graph: ChannelGraph, images: Any, rounds: int) -> LatencyTable:
    rows = [np.maximum(1, np.rint(share * graph.costs.dense_kept)).astype(np.int64) for share in SHARES]
    nets = [prune(model, graph, _narrow(graph, row), check=False) for row in rows]
    layers = list(dict.fromkeys(graph.costs.op_layers))
    whole: list[list[float]] = [[] for _ in nets]
    parts: list[dict[str, list[float]]] = [defaultdict(list) for _ in nets]
    for number in range(rounds + 1):
        for net, total, part in zip(nets, whole, parts, strict=True):
            plain, timed = _seconds(net, images), _timed(net, layers, images)
            if number:  # the first round only warms up
                total.append(plain)
                for layer, seconds in timed.items():
                    part[layer].append(seconds)
    counts = np.array([graph.costs.op_macs(row) for row in rows], dtype=np.float64)
    owners = np.array(graph.costs.op_layers)
    totals = np.array([statistics.median(values) for values in whole])
    fixed: dict[str, float] = {}
    per_mac: dict[str, float] = {}
    inside = np.zeros(len(rows))
    for layer in layers:
        macs = counts[:, owners == layer].sum(1)
        times = np.array([statistics.median(part[layer]) if part[layer] else 0.0 for part in parts])
        (start, slope), _ = nnls(np.stack([np.ones(len(rows)), macs / max(macs[0], 1.0)], axis=1), times)
        fixed[layer], per_mac[layer] = float(start), float(slope / max(macs[0], 1.0))
        inside += fixed[layer] + macs * per_mac[layer]
    units = np.array([row.sum() for row in rows], dtype=np.float64)
    # Timing each layer slows all of them, so the whole passes, which nothing disturbed, say how much of it counts.
    shares = np.stack([inside, np.full(len(rows), totals[0]), units / units[0] * totals[0]], axis=1)
    (scale, start, slope), _ = nnls(shares / totals[:, None], np.ones(len(rows)))
    return LatencyTable(
        float(start * totals[0]),
        {layer: float(scale) * value for layer, value in fixed.items()},
        {layer: float(scale) * value for layer, value in per_mac.items()},
        float(slope * totals[0] / units[0]),
        sample_count(images),
    )


def _narrow(graph: ChannelGraph, widths: Ints) -> Structure:
    return Structure.of(graph, {group.name: range(int(n)) for group, n in zip(graph.groups, widths, strict=True)})


def _seconds(net: nn.Module, images: Any) -> float:
    with evaluating(net), torch.inference_mode():
        _settle(images)
        start = time.perf_counter()
        run_on(net, images)
        _settle(images)
        return time.perf_counter() - start


def _timed(net: nn.Module, layers: list[str], images: Any) -> dict[str, float]:
    """Seconds inside each layer during one forward pass."""
    spent: dict[str, float] = {}
    begun: dict[str, float] = {}

    def enter(layer: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            _settle(images)
            begun[layer] = time.perf_counter()

        return note

    def leave(layer: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            _settle(images)
            spent[layer] = spent.get(layer, 0.0) + time.perf_counter() - begun[layer]

        return note

    handles = []
    for layer in layers:
        if layer:  # an operation in the network's own forward belongs to the rest
            module = net.get_submodule(layer)
            handles += [module.register_forward_pre_hook(enter(layer)), module.register_forward_hook(leave(layer))]
    try:
        _seconds(net, images)
    finally:
        for handle in handles:
            handle.remove()
    return spent


def _settle(images: Any) -> None:
    device = tensors_in(images)[0].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_table(graph: ChannelGraph, build: Build) -> MemoryTable:
    """Live bytes after each operation, exact in the kept channels, for the example that the graph was traced with.

    Args:
        graph: the network's channel graph.
        build: makes the pruned network of a structure of that graph.

    Raises:
        SecateurError: when the bytes are not linear in the kept channels.
    """
    dense = graph.costs.dense_kept
    whole = np.array(memory_course(build(_narrow(graph, dense)), graph.example), dtype=np.int64)

    def course(widths: Ints) -> Ints:
        found = np.array(memory_course(build(_narrow(graph, widths)), graph.example), dtype=np.int64)
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
