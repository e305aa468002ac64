"""How long a batch of a structure takes on an engine: predicted by arithmetic, calibrated by one measurement.

Measuring the latency of every step of a bisection would be slow and noisy, so it is *predicted*. The layers of the
dense network and of a few random structures are timed in torch, which gives each layer's seconds at no width and per
MAC. Whole passes of all these on the engine itself (torch, compiled code, onnxruntime), in turns, then say by
non-negative least squares what a second in a layer counts there, what any structure takes, and what a kept channel
takes outside of counted operations. Kernels compute in blocks, so that 13 channels may take the time of 16: of several
sizes of a block the one counts that predicts best. How far predictions are off is found by leaving each structure out
of the fit in turn.
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
DRAWN, NARROWEST = 10, 0.2
"""Structures with random widths beside the dense network, and the least share of its channels that a group keeps."""
TAKEN_APART = 5
"""The dense network and so many of them but one have their layers timed."""
BLOCKS = (1, 4, 8, 16)
"""Channels that a kernel may compute at a time."""
DENSE_WEIGHT = 4.0
"""Of the dense network among the others, for budgets are shares of what it takes."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds a batch as a sum over operations, calibrated once by measurement.

    Attributes:
        rest: seconds that any structure takes outside counted operations.
        fixed: module -> seconds of its operations at any width.
        per_mac: module -> seconds per MAC of its operations; never negative, so that latency never falls with width.
        per_unit: seconds per kept channel, for what is not counted in MACs (normalisation, activations, additions).
        batch: samples in the batch.
        block: widths count as the next multiple of it where MACs are counted.
        engine: what ran it, one of `backbones.onnx_network.ENGINES`.
        error: the largest relative difference of a prediction from what was measured, over the structures of the
            calibration, each left out of the fit in turn; None in tables of before.
    """

    rest: float
    fixed: Mapping[str, float]
    per_mac: Mapping[str, float]
    per_unit: float
    batch: int
    block: int = 1
    engine: str = "eager"
    error: float | None = None

    def seconds(self, table: CostTable, kept: Ints) -> Floats:
        """(rows,) for (rows, groups) kept channel counts."""
        rates = np.array([self.per_mac.get(layer, 0.0) for layer in table.op_layers])
        always = self.rest + sum(self.fixed.get(layer, 0.0) for layer in set(table.op_layers))
        counted = op_macs(table, kept, self.block) @ rates
        return np.asarray(always + counted + self.per_unit * kept.sum(1), dtype=np.float64)


def op_macs(table: CostTable, kept: Ints, block: int) -> Ints:
    """(rows, ops) MACs for (rows, groups) kept channel counts, widths that can be pruned rounded up to whole blocks."""
    sizes = kept @ table.widths.T + table.fixed
    rounded = np.where(table.widths.any(1), -(-sizes // block) * block, sizes)
    return np.asarray(rounded[:, table.op_sizes].prod(2) * table.op_constants, dtype=np.int64)


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
    shares = np.random.default_rng(0).uniform(NARROWEST, 1.0, (DRAWN, len(dense)))
    rows = np.maximum(1, np.rint(np.concatenate([np.ones((1, len(dense))), shares]) * dense)).astype(np.int64)
    nets = [prune(model, graph, narrow(graph, row), check=False).eval() for row in rows]
    example = as_arguments(images)
    passes = np.array(timings([on_engine(net, engine, example) for net in nets], example, rounds))
    # Quotients within a round, for a busy machine slows all of it alike.
    totals = np.median(passes / passes[0], axis=1) * np.median(passes[0])
    timed = _layer_times(nets[:TAKEN_APART], list(dict.fromkeys(graph.costs.op_layers)), images, rounds)
    fits = [_fit_blocks(graph.costs, rows, totals, timed, block) for block in BLOCKS]
    _, error, parts = min(fits, key=lambda fit: fit[0])
    return LatencyTable(*parts[:4], sample_count(images), parts[4], engine, error)


Parts = tuple[float, dict[str, float], dict[str, float], float, int]
"""The first four attributes of a table, and its block."""


def _fit_blocks(
    costs: CostTable, rows: Ints, totals: Floats, timed: Mapping[str, Floats], block: int
) -> tuple[float, float, Parts]:
    """How far predictions by such blocks are off, root mean square and at most, and the parts of the table.

    Args:
        costs: counts MACs.
        rows: (structures, groups) kept channels, the dense network's first.
        totals: (structures,) seconds on the engine.
        timed: layer -> (timed structures,) its seconds in torch.
        block: channels that are computed at a time.
    """
    counts, owners = op_macs(costs, rows, block).astype(np.float64), np.array(costs.op_layers)
    fixed, per_mac = {}, {}
    for layer, times in timed.items():
        macs = counts[:, owners == layer].sum(1)
        most = max(macs[0], 1.0)
        (start, slope), _ = nnls(np.stack([np.ones(len(times)), macs[: len(times)] / most], axis=1), times)
        fixed[layer], per_mac[layer] = float(start), float(slope / most)
    inside = counts @ np.array([per_mac[layer] for layer in owners])
    columns = np.stack([np.ones(len(rows)), inside, rows.sum(1)], axis=1)
    always, scale, per_unit = _weights(columns, totals)
    own = sum(fixed.values())
    part = min(scale, always / own) if own > 0 else 0.0  # layers take their part along when they go
    errors = _left_out(columns, totals)
    parts = (
        max(0.0, always - part * own),
        {layer: part * value for layer, value in fixed.items()},
        {layer: scale * value for layer, value in per_mac.items()},
        per_unit,
        block,
    )
    return float(np.sqrt((errors**2).mean())), float(np.abs(errors).max()), parts


def _weights(columns: Floats, totals: Floats) -> tuple[float, float, float]:
    """What a constant, seconds in layers and a kept channel count, by relative differences; the first row is heavy."""
    sizes = np.maximum(columns.max(0), 1e-300)
    heavy = np.where(np.arange(len(totals)) == 0, DENSE_WEIGHT, 1.0)
    found, _ = nnls(columns / sizes * (heavy / totals)[:, None], heavy)
    always, scale, per_unit = (found / sizes).tolist()
    return always, scale, per_unit


def _left_out(columns: Floats, totals: Floats) -> Floats:
    """(structures but the dense,) relative errors of predicting one from the others."""
    errors = []
    for number in range(1, len(totals)):
        others = np.arange(len(totals)) != number
        predicted = columns[number] @ np.array(_weights(columns[others], totals[others]))
        errors.append(float(totals[number] / predicted) - 1)
    return np.array(errors)


def _layer_times(nets: Sequence[nn.Module], layers: list[str], images: Any, rounds: int) -> dict[str, Floats]:
    """Layer -> (networks,) seconds in torch; timing each layer slows all of them alike."""
    parts: list[dict[str, list[float]]] = [defaultdict(list) for _ in nets]
    for number in range(rounds + 1):
        for net, part in zip(nets, parts, strict=True):
            timed = _timed(net, layers, images)
            if number:  # the first round only warms up
                for layer, seconds in timed.items():
                    part[layer].append(seconds)
    return {layer: np.array([statistics.median(part[layer] or [0.0]) for part in parts]) for layer in layers}


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
