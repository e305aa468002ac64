"""Operations that pick, order or scatter positions: fine along any dimension but that of the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import along, compact, compress, varying
from backbones.program import Step
from backbones.rules.pointwise import unite

PICKED = "channels picked by number"


def index(run: Interpreter, step: Step, x: Any, indices: Sequence[Any], *rest: Any) -> Any:
    """x[:, :, rows, columns]: positions by number, the same ones of every channel."""
    labels = _columns(run, step, x, indices) if isinstance(x, Param) else run.labels(x, step)
    if any(found is not None and dim in varying(labels) for dim, found in enumerate(indices)):
        return run.unknown(step, (x, indices), PICKED)
    run.freeze_all(indices, step, "read as positions")
    zeros = [None if one is None else torch.zeros(tuple(one.shape), dtype=torch.int64) for one in indices]
    result = torch.ops.aten.index(compact(labels).expand(labels.shape), zeros)
    return compress(result) if tuple(result.shape) == step.shape else run.unknown(step, x, "a mask picks the elements")


def _columns(run: Interpreter, step: Step, table: Param, indices: Sequence[Any]) -> Tensor:
    """The labels of a table of which the code picks rows by number: of relative positions, one column for each head."""
    picked = [dim for dim, found in enumerate(indices) if found is not None]
    columns = [dim for dim, size in enumerate(table.shape) if size > 1 and dim not in picked]
    if len(columns) != 1 or table.name in run.elements:
        return run.labels(table, step)
    vector = run.bind(table, columns[0], "vector", run.constraints.new_labels(table.shape[columns[0]]), step)
    return along(columns[0], vector, table.shape)


def index_select(run: Interpreter, step: Step, x: Any, dim: int, chosen: Any) -> Any:
    """Positions of one dimension by number."""
    labels = run.labels(x, step)
    if dim % labels.ndim in varying(labels):
        return run.unknown(step, (x, chosen), PICKED)
    run.freeze_all(chosen, step, "read as positions")
    return labels.narrow(dim, 0, 1).expand(step.shape)


def gather_positions(run: Interpreter, step: Step, x: Any, dim: int, chosen: Any, **options: Any) -> Any:
    """Positions by number, other ones for each channel: the numbers then go with their channel."""
    labels, chosen = run.labels(x, step), run.labels(chosen, step)
    dim %= labels.ndim
    moving = varying(labels)
    if dim in moving or any(step.shape[other] != labels.shape[other] for other in moving):
        return run.unknown(step, (labels, chosen), PICKED)
    result = _collapsed(labels, dim, step.shape)
    return unite(run, step, result, chosen) if bool((compact(chosen) >= 0).any()) else result


def along_positions(run: Interpreter, step: Step, x: Any, *args: Any, **options: Any) -> Any:
    """topk, sort, cumsum, argmax …: values and their numbers, each in the channel that they come from."""
    labels = run.labels(x, step)
    place = DIMENSION_AT[step.op.removeprefix("aten.")]
    dim = options.get("dim", args[place] if len(args) > place else -1)
    moving = varying(labels)
    if (dim is None and moving) or (dim is not None and dim % labels.ndim in moving):
        return run.unknown(step, x, "the order of channels")
    several = bool(step.shape) and isinstance(step.shape[0], tuple)
    shape = step.shape[0] if several else step.shape
    if dim is None:
        return run.nothing(step)
    dim %= labels.ndim
    first = labels.narrow(dim, 0, 1)
    result = (first.squeeze(dim) if len(shape) < labels.ndim else first).expand(shape)
    return (result,) * len(step.shape) if several else result


def unpool(run: Interpreter, step: Step, x: Any, places: Any, *rest: Any) -> Any:
    """max_unpool2d, max_unpool3d: values go back to where a pooling of the same channels found them."""
    labels, places = run.labels(x, step), run.labels(places, step)
    channel = labels.ndim - (3 if "2d" in step.op else 4)
    vector = run.constraints.channels(labels, channel, step)
    run.constraints.tie(vector, run.constraints.channels(places, channel, step), step)
    return along(channel, vector, step.shape)


def _collapsed(labels: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Labels that do not change along `dim`, for a result whose other positions are the first ones."""
    for other, size in enumerate(shape):
        labels = labels.narrow(other, 0, 1 if other == dim else size)
    return labels.expand(tuple(shape))


DIMENSION_AT = {
    **dict.fromkeys(("topk", "kthvalue"), 1),
    **dict.fromkeys(("sort", "argsort", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), 0),
    **dict.fromkeys(("argmax", "argmin", "median", "nanmedian", "mode"), 0),
}
"""Operation -> which of the arguments behind the first is the dimension."""

RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(DIMENSION_AT, along_positions),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), unpool),
    "index": index,
    "index_select": index_select,
    "gather": gather_positions,
}
