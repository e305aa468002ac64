"""What the dense network computes: each layer's outputs at sampled positions, gathered once for all structures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.inputs import NamedInputs, as_arguments, named, output_of, sample_count, tensors_in
from backbones.modes import device_of, evaluating
from backbones.module_copy import copy_with
from scoring.batch_norm import BatchNorm
from scoring.reconstruction.additions import WatchAdditions
from scoring.reconstruction.layers import RefitLayer, refit_layers
from scoring.reconstruction.patches import Sample, channel_rows, padded, positions, sample, weight_matrix

Inputs = tuple[Any, ...]
ROWS = 16_384
"""Output positions a layer is fitted at."""
LEAST_IMAGES = 2
"""Fewer images than this have no variance."""


@dataclass(eq=False)
class LayerTarget:
    """One layer of the dense network.

    Attributes:
        layer: which.
        where: the sampled positions.
        positions: shape of its (padded) input without the channels.
        left: shape of its output without the channels.
        outputs: (rows, outputs) what the dense layer gave there.
        other: (rows, outputs) what it is added to, where an addition alone reads the layer.
    """

    layer: RefitLayer
    where: Sample
    positions: tuple[int, ...]
    left: tuple[int, ...]
    outputs: Tensor
    other: Tensor | None = None


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """What every structure of a network is fitted to; gathered once a study.

    Attributes:
        model: the dense network.
        graph: of `trace`.
        inputs: the images, as the network takes them.
        layers: module path -> target.
        moments: batch norm -> mean and biased variance of its inputs over the images, a pair a call.
        left: module path -> why the layer stays as cut.
    """

    model: nn.Module
    graph: ChannelGraph
    inputs: Inputs
    layers: Mapping[str, LayerTarget]
    moments: Mapping[str, Sequence[tuple[Tensor, Tensor]]]
    left: Mapping[str, str] = field(default_factory=dict)


@explained
def gather_targets(
    model: nn.Module,
    graph: ChannelGraph,
    images: Any,
    *,
    rows: int = ROWS,
    rows_per_unknown: int | None = None,
    seed: int = 0,
) -> DenseTargets:
    """Runs the dense network once over the images, in eval mode, and keeps what refitting needs.

    Args:
        model: the traced network; not changed.
        graph: of `trace`.
        images: (B, …) as the network takes them; a tuple for several inputs, a dictionary for inputs by name; a list of
            such batches, which are joined.
        rows: output positions a layer, equally many an image.
        rows_per_unknown: at most so many for each weight that an output of the dense layer has, for speed: layers with
            few weights need fewer rows. None for no such limit.
        seed: of the positions.

    Raises:
        SecateurError: for images of another shape than the example's, on another device, too few, or not finite; for a
            network that gives NaN.
    """
    for name, value in (("rows", rows), ("rows_per_unknown", rows_per_unknown)):
        if value is not None and value < 1:
            raise SecateurError(f"{name} >= 1 must hold, but got {name}={value}")
    inputs = as_inputs(model, graph, images)
    dense = copy_with(model, {id(value): value for value in [*model.parameters(), *model.buffers()]})
    layers, left = refit_layers(dense, graph)
    found: dict[str, LayerTarget] = {}
    moments_of: dict[str, list[tuple[Tensor, Tensor]]] = {}
    additions = WatchAdditions()
    for path, layer in layers.items():
        module = dense.get_submodule(path)
        assert isinstance(module.weight, Tensor)
        unknowns = weight_matrix(module, module.weight).shape[1]
        count = rows if rows_per_unknown is None else min(rows, rows_per_unknown * unknowns)
        module.register_forward_hook(_keeping(layer, found, left, count, seed), with_kwargs=True)
        if layer.summed:
            dense.get_submodule(layer.end).register_forward_hook(_awaiting(additions, found, path, module))
    for path, module in dense.named_modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            moments_of[path] = []
            module.register_forward_pre_hook(_measuring(moments_of[path]))
    with evaluating(dense), torch.no_grad(), additions:
        output = output_of(dense, inputs)
    refuse_nonfinite(output, "the dense network's output")
    missing = {path: "its module is never called" for path in layers if path not in found and path not in left}
    return DenseTargets(model, graph, inputs, found, moments_of, {**left, **missing})


def _keeping(
    layer: RefitLayer, found: dict[str, LayerTarget], left: dict[str, str], rows: int, seed: int
) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        entered = padded(args[0] if args else kwargs["input"], module)
        if isinstance(module, nn.Linear) or entered.ndim == module.weight.ndim:
            drawn = sample(module, entered.shape, output.shape, rows, seed + zlib.crc32(layer.path.encode()))
            where = drawn.to(output.device)
            rows_kept = channel_rows(output, module).index_select(0, where.outputs)
            shapes = positions(entered, module), positions(output, module)
            found[layer.path] = LayerTarget(layer, where, *shapes, rows_kept)
        else:
            left[layer.path] = "its input has no batch dimension"

    return keep


def _awaiting(
    additions: WatchAdditions, found: Mapping[str, LayerTarget], path: str, module: nn.Module
) -> Callable[..., None]:
    def expect(_: nn.Module, __: object, output: Tensor) -> None:
        def see(other: Tensor) -> None:
            if path in found:
                found[path].other = channel_rows(other, module).index_select(0, found[path].where.outputs)

        additions.expect(output, see)

    return expect


def _measuring(seen: list[tuple[Tensor, Tensor]]) -> Callable[..., None]:
    def measure(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(moments(args[0]))

    return measure


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """(channels,) mean and biased variance over everything but dimension 1, in float32 at least."""
    rows = values.movedim(1, -1).reshape(-1, values.shape[1])
    rows = rows if rows.dtype == torch.float64 else rows.float()
    share = rows.new_full((len(rows),), 1 / len(rows))
    mean = share @ rows  # many times faster than var_mean on channels-last memory
    return mean, share @ (rows - mean).square_()


def as_inputs(model: nn.Module, graph: ChannelGraph, images: Any) -> Inputs:
    """The images as the network's arguments, checked against the example it was traced with.

    Raises:
        SecateurError: as `gather_targets`.
    """
    batches = images if isinstance(images, list) else [images]
    if not batches:
        raise SecateurError(f"images: at least {LEAST_IMAGES} are needed to refit on, but got an empty list")
    rows = [as_arguments(batch) for batch in batches]
    expected, form = tree_flatten(NamedInputs(graph.example, named(graph.example)))
    columns = []
    for row in rows:
        leaves, found = tree_flatten(NamedInputs(row, named(row)))
        if len(leaves) != len(expected):
            raise SecateurError(f"images: the network takes {len(expected)} inputs, but a batch has {len(leaves)}")
        if found != form:
            raise SecateurError(
                "images: the inputs of a batch lie in other containers than those of the traced example"
            )
        for given, wanted in zip(leaves, expected, strict=True):
            if isinstance(wanted, Tensor):
                _check_input(given, wanted, device_of(model))
        columns.append(leaves)
    joined = [
        torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in zip(*columns, strict=True)
    ]
    count = sample_count(joined)
    if count < LEAST_IMAGES:
        raise SecateurError(f"images: at least {LEAST_IMAGES} are needed to refit on, but got {count}")
    inputs: Inputs = tree_unflatten(joined, form)
    return inputs


def _check_input(given: Any, expected: Tensor, place: torch.device) -> None:
    if not isinstance(given, Tensor):
        raise SecateurError(f"images must be a tensor like the traced example, but got {type(given).__name__}")
    if given.shape[1:] != expected.shape[1:] or given.ndim != expected.ndim:
        wanted = ", ".join(["B", *map(str, expected.shape[1:])])
        raise SecateurError(f"images have shape {tuple(given.shape)}; the network was traced with ({wanted})")
    if given.dtype != expected.dtype:
        raise SecateurError(f"images are {given.dtype}; the network was traced with {expected.dtype}")
    if given.device != place:
        raise SecateurError(f"images are on {given.device}, the network is on {place}; move them with .to('{place}')")
    refuse_nonfinite(given, "images")


def refuse_nonfinite(values: Any, name: str) -> None:
    """Raises SecateurError when a floating tensor, or one inside nested containers, holds NaN or infinity."""
    if not all(bool(one.isfinite().all()) for one in tensors_in(values) if one.is_floating_point()):
        raise SecateurError(f"{name}: not finite (NaN or infinity); look at the data and the weights")
