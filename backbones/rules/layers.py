"""Operations with weights: convolutions, embeddings, normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import along, compact, varying
from backbones.program import Step


def convolution(run: Interpreter, step: Step, x: Any, weight: Any, bias: Any = None, *rest: Any, **options: Any) -> Any:
    """conv1d, conv2d, conv3d: (x, weight, bias, stride, padding, dilation, groups)."""
    groups = options.get("groups", rest[3] if len(rest) > 3 else 1)
    return _convolve(run, step, x, weight, bias, groups, transposed=False)


def transposed_convolution(
    run: Interpreter, step: Step, x: Any, weight: Any, bias: Any = None, *rest: Any, **options: Any
) -> Any:
    """conv_transpose1d/2d/3d: (x, weight, bias, stride, padding, output_padding, groups, dilation)."""
    groups = options.get("groups", rest[3] if len(rest) > 3 else 1)
    return _convolve(run, step, x, weight, bias, groups, transposed=True)


def general(run: Interpreter, step: Step, x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    """aten.convolution: (x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    return _convolve(run, step, x, weight, bias, rest[5], transposed=rest[3])


def _convolve(run: Interpreter, step: Step, x: Any, weight: Any, bias: Any, groups: int, *, transposed: bool) -> Any:
    x = run.labels(x, step)
    spatial = len(weight.shape) - 2
    channel = x.ndim - spatial - 1
    channel_only(run, step, x, channel, "a convolution over positions that are channels")
    inputs = run.constraints.channels(x, channel, step)
    outs = step.shape[channel]
    counted = x.shape if transposed else step.shape
    positions = math.prod(counted[:channel]) * math.prod(counted[channel + 1 :])
    run.count(step, math.prod(weight.shape[2:]) * positions, (weight, 0), (weight, 1))
    if not isinstance(weight, Param):
        return run.computed((inputs, weight, bias), step, outs)
    if groups == 1:
        run.bind(weight, 0 if transposed else 1, "input", inputs, step)
        filters = run.bind(weight, 1 if transposed else 0, "filter", run.constraints.new_labels(outs), step)
    elif groups == len(inputs):
        # depthwise: output channel c * multiplier + j is made of input channel c alone
        filters = inputs.repeat_interleave(outs // groups)
        run.bind(weight, 0, "filter", inputs if transposed else filters, step)
    else:
        filters = _grouped(run, step, weight, inputs, outs, groups, transposed)
    if bias is not None:
        run.bind(bias, 0, "vector", filters, step)
    return along(channel, filters, step.shape)


def _grouped(
    run: Interpreter, step: Step, weight: Param, inputs: Tensor, outs: int, groups: int, transposed: bool
) -> Tensor:
    """Every group of the convolution must keep the same positions: positions are tied across groups."""
    filters = run.constraints.new_labels(outs)
    for vector in (inputs, filters):
        rows = vector.reshape(groups, -1)
        run.constraints.tie(rows[:1].expand(groups - 1, -1), rows[1:], step)
    if transposed:  # weight: (in, out / groups, ...)
        run.bind(weight, 0, "input", inputs, step)
        bound = run.bind(weight, 1, "filter", filters.reshape(groups, -1)[0], step)
        run.constraints.tie(bound, filters.reshape(groups, -1)[0], step)
        return filters
    run.bind(weight, 1, "input", inputs.reshape(groups, -1)[0], step)
    return run.bind(weight, 0, "filter", filters, step)


def embedding(run: Interpreter, step: Step, weight: Any, index: Tensor, *rest: Any, **options: Any) -> Any:
    """Rows of a table: the table's columns are the channels."""
    if not isinstance(weight, Param) or bool((compact(run.labels(index, step)) >= 0).any()):
        return run.unknown(step, (weight, index))
    filters = run.bind(weight, 1, "filter", run.constraints.new_labels(weight.shape[1]), step)
    return along(-1, filters, step.shape)


def batch_norm(run: Interpreter, step: Step, x: Any, *vectors: Any, **options: Any) -> Any:
    """batch_norm and instance_norm: (x, weight, bias, running mean, running variance, …), one value per channel."""
    x = run.labels(x, step)
    if step.op.endswith("instance_norm"):
        channel_only(run, step, x, 1, "statistics over positions that are channels")
    elif 1 not in varying(x):  # fixed statistics of each position: channels elsewhere stay what they are
        return x
    filters = run.constraints.channels(x, 1, step)
    for vector in vectors[:4]:
        run.bind(vector, 0, "vector", filters, step)
    if all(vector is None for vector in vectors[:4]):
        run.constraints.sized[step.module] = filters.numpy().copy()
    return along(1, filters, step.shape)


def group_norm(
    run: Interpreter, step: Step, x: Any, groups: int, weight: Any = None, bias: Any = None, *rest: Any
) -> Any:
    """Statistics over groups of channels: every group keeps the same positions."""
    x = run.labels(x, step)
    channel_only(run, step, x, 1, "statistics over positions that are channels")
    filters = run.constraints.channels(x, 1, step)
    rows = filters.reshape(groups, -1)
    run.constraints.tie(rows[:1].expand(groups - 1, -1), rows[1:], step)
    if groups < len(filters):
        run.constraints.note_mixed(filters, [0])
    for vector in (weight, bias):
        run.bind(vector, 0, "vector", filters, step)
    if weight is None and bias is None:
        run.constraints.sized[step.module] = filters.numpy().copy()
    return along(1, filters, step.shape)


def channel_only(run: Interpreter, step: Step, x: Any, channel: int, reason: str) -> None:
    """Freezes labels that change along positions (dimensions behind `channel`) and not along `channel`."""
    moving = varying(x)
    if moving and channel not in moving and moving[-1] > channel:
        run.constraints.freeze(x, step, reason)


def layer_norm(
    run: Interpreter,
    step: Step,
    x: Any,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    *rest: Any,
    **options: Any,
) -> Any:
    """layer_norm and rms_norm over the last `len(shape)` dimensions."""
    x = run.labels(x, step)
    if any(dim >= x.ndim - len(shape) for dim in varying(x)):
        run.constraints.note_mixed(x, range(x.ndim - len(shape), x.ndim))
        if weight is None and varying(x) == [x.ndim - 1] and len(shape) == 1:
            run.constraints.sized[step.module] = run.constraints.channels(x, -1, step).numpy().copy()
    for vector in (weight, bias):
        if isinstance(vector, Param):
            run.bind_elementwise(vector, x, step)
    return x


def prelu(run: Interpreter, step: Step, x: Any, weight: Any) -> Any:
    """A slope per channel, or one for all."""
    x = run.labels(x, step)
    if weight.shape[0] > 1:
        filters = run.constraints.channels(x, 1, step)
        if isinstance(weight, Param):
            run.bind(weight, 0, "vector", filters, step)
        else:
            run.constraints.tie(filters, weight, step)
    elif not isinstance(weight, Param):
        run.constraints.freeze(weight, step, "one channel is applied to many")
    return x


RULES: Mapping[str, Callable[..., Any]] = {
    "conv1d": convolution,
    "conv2d": convolution,
    "conv3d": convolution,
    "conv_transpose1d": transposed_convolution,
    "conv_transpose2d": transposed_convolution,
    "conv_transpose3d": transposed_convolution,
    "convolution": general,
    "embedding": embedding,
    "batch_norm": batch_norm,
    "instance_norm": batch_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "prelu": prelu,
}
