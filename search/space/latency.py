"""How long a batch of a structure takes on an engine: predicted by arithmetic, calibrated by one measurement.

Measuring the latency of every step of a bisection would be slow and noisy, so it is *predicted*. The layers of a few
structures are timed in torch, which gives each layer's seconds at no width and per MAC. Whole passes of these
structures and of a few random ones on the engine itself (torch, compiled code, onnxruntime), all in turns, then say by
non-negative least squares what a second in a layer counts there, what any structure takes, and what a kept channel
takes outside of counted operations. How far such predictions are off is found by leaving each structure out of the fit.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from backbones.cost_table import CostTable
from backbones.files import write_text
from backbones.graph import ChannelGraph
from backbones.inputs import as_arguments, move_tensors, run_on, sample_count, tensors_in
from backbones.measure import timings
from backbones.modes import device_of, evaluating
from backbones.onnx_network import on_engine
from backbones.structure import Structure
from backbones.surgery import prune

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Every group of the structures whose layers are timed keeps this share of its channels."""
DRAWN = 4
"""Structures with random widths beside them."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds a batch as a sum over operations, calibrated once by measurement.

    Attributes:
        rest: seconds that any structure takes outside counted operations.
        fixed: module -> seconds of its operations at any width.
        per_mac: module -> seconds per MAC of its operations; never negative, so that latency never falls with width.
        per_unit: seconds per kept channel, for what is not counted in MACs (normalisation, activations, additions).
        batch: samples in the batch.
        engine: what ran it, one of `backbones.onnx_network.ENGINES`.
        error: the largest relative difference of a prediction from what was measured, over the structures of the
            calibration, each left out of the fit in turn; None in tables of before.
    """

    rest: float
    fixed: Mapping[str, float]
    per_mac: Mapping[str, float]
    per_unit: float
    batch: int
    engine: str = "eager"
    error: float | None = None

    def seconds(self, table: CostTable, kept: Ints) -> Floats:
        """(rows,) for (rows, groups) kept channel counts."""
        rates = np.array([self.per_mac.get(layer, 0.0) for layer in table.op_layers])
        always = self.rest + sum(self.fixed.get(layer, 0.0) for layer in set(table.op_layers))
        sizes = kept @ table.widths.T + table.fixed
        macs = sizes[:, table.op_sizes].prod(2) * table.op_constants
        return np.asarray(always + macs @ rates + self.per_unit * kept.sum(1), dtype=np.float64)


def calibrated(
    model: nn.Module,
    graph: ChannelGraph,
    images: Any,
    known: Path | None = None,
    *,
    engine: str = "eager",
    rounds: int = 7,
) -> LatencyTable:
    """The latency table of a network on this machine.

    It takes as many exports or compilations as there are structures in it: a minute or more with other engines than
    "eager".

    Args:
        model: the dense network.
        graph: its channel graph.
        images: (B, C, H, W) the batch whose latency counts, or inputs of another form, as the network takes them.
        known: a file that keeps the table, so that a resumed search predicts the same; measured and written when it
            does not exist or was made with another network, batch size, device, engine or number of threads.
        engine: one of `backbones.onnx_network.ENGINES`.
        rounds: measurements of each structure.

    Raises:
        SecateurError: for an engine that is unknown, not there, or cannot take the network.
    """
    device = device_of(model)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    shapes = ", ".join(str(tuple(one.shape)) for one in tensors_in(images))
    key = f"{graph.id} {shapes} {where} {torch.get_num_threads()} threads" + f" {engine}" * (engine != "eager")
    if known is not None and known.is_file():
        try:
            record = json.loads(known.read_text(encoding="utf-8"))
            if record.pop("key") == key:
                return LatencyTable(**record)
        except (ValueError, TypeError, KeyError, AttributeError):
            warnings.warn(f"{known} is no latency table; it is measured again and replaced", stacklevel=2)
    table = _fit(model, graph, move_tensors(images, device), engine, rounds)
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, json.dumps({"key": key, **asdict(table)}, indent=1))
    return table


def _fit(model: nn.Module, graph: ChannelGraph, images: Any, engine: str, rounds: int) -> LatencyTable:
    dense = graph.costs.dense_kept
    drawn = np.random.default_rng(0).uniform(SHARES[-1], 1.0, (DRAWN, len(dense)))
    shares = np.concatenate([np.repeat(np.array(SHARES)[:, None], len(dense), 1), drawn])
    rows = np.maximum(1, np.rint(shares * dense)).astype(np.int64)
    nets = [prune(model, graph, narrow(graph, row), check=False).eval() for row in rows]
    example = as_arguments(images)
    passes = np.array(timings([on_engine(net, engine, example) for net in nets], example, rounds))
    # Quotients within a round, for a busy machine slows all of it alike.
    totals = np.median(passes / passes[0], axis=1) * np.median(passes[0])
    layers = list(dict.fromkeys(graph.costs.op_layers))
    fixed, per_mac = _rates(nets[: len(SHARES)], rows[: len(SHARES)], graph.costs, layers, images, rounds)
    owners = np.array([per_mac[layer] for layer in graph.costs.op_layers])
    inside = np.array([(graph.costs.op_macs(row) * owners).sum() for row in rows])
    columns = np.stack([np.ones(len(rows)), inside, rows.sum(1)], axis=1)
    always, scale, per_unit = _weights(columns, totals)
    own = sum(fixed.values())
    part = min(scale, always / own) if own > 0 else 0.0  # layers take their part along when they go
    return LatencyTable(
        always - part * own,
        {layer: part * value for layer, value in fixed.items()},
        {layer: scale * value for layer, value in per_mac.items()},
        per_unit,
        sample_count(images),
        engine,
        _left_out(columns, totals),
    )


def _weights(columns: Floats, totals: Floats) -> tuple[float, float, float]:
    """What a constant, seconds in layers and a kept channel count, by relative differences."""
    sizes = np.maximum(columns.max(0), 1e-300)
    found, _ = nnls(columns / sizes / totals[:, None], np.ones(len(totals)))
    always, scale, per_unit = (found / sizes).tolist()
    return always, scale, per_unit


def _left_out(columns: Floats, totals: Floats) -> float:
    """The largest relative error of predicting one structure from the others."""
    errors = []
    for number in range(len(totals)):
        others = np.arange(len(totals)) != number
        predicted = columns[number] @ np.array(_weights(columns[others], totals[others]))
        errors.append(abs(float(predicted / totals[number]) - 1))
    return max(errors)


def _rates(
    nets: Sequence[nn.Module], rows: Ints, costs: CostTable, layers: list[str], images: Any, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Layer -> seconds in torch at any width, and per MAC; timing each layer slows all of them alike."""
    parts: list[dict[str, list[float]]] = [defaultdict(list) for _ in nets]
    for number in range(rounds + 1):
        for net, part in zip(nets, parts, strict=True):
            timed = _timed(net, layers, images)
            if number:  # the first round only warms up
                for layer, seconds in timed.items():
                    part[layer].append(seconds)
    counts = np.array([costs.op_macs(row) for row in rows], dtype=np.float64)
    owners = np.array(costs.op_layers)
    fixed: dict[str, float] = {}
    per_mac: dict[str, float] = {}
    for layer in layers:
        macs = counts[:, owners == layer].sum(1)
        times = np.array([statistics.median(part[layer]) if part[layer] else 0.0 for part in parts])
        most = max(macs[0], 1.0)
        (start, slope), _ = nnls(np.stack([np.ones(len(rows)), macs / most], axis=1), times)
        fixed[layer], per_mac[layer] = float(start), float(slope / most)
    return fixed, per_mac


def narrow(graph: ChannelGraph, widths: Ints) -> Structure:
    """The structure that keeps the first channels of every group, (groups,) so many."""
    return Structure.of(graph, {group.name: range(int(n)) for group, n in zip(graph.groups, widths, strict=True)})


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
        with evaluating(net), torch.inference_mode():
            run_on(net, images)
    finally:
        for handle in handles:
            handle.remove()
    return spent


def _settle(images: Any) -> None:
    device = tensors_in(images)[0].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
