"""Operations that only move elements: they run as they are on the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from backbones.constraints import DeferredTie
from backbones.interpret import Interpreter, Param
from backbones.labels import UNIFORM, along, compact, compress, constant_labels, varying
from backbones.program import Step


def move(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """permute, expand, squeeze, flip …: every kept element stays where the code puts it, whatever the sizes."""
    labels = run.labels(x, step).detach()
    assert step.target is not None
    return compress(step.target(labels, *args, **kwargs))


def expand(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """expand: what has a single channel, or none, is the same along the new positions."""
    return move(run, step, _copied(run, step, x), *args, **kwargs)


def _copied(run: Interpreter, step: Step, x: Any) -> Tensor:
    """The labels of what is copied along other dimensions than that of the samples."""
    labels = run.labels(x, step)
    old = (1,) * (len(step.shape) - labels.ndim) + tuple(labels.shape)
    return run.positions(labels, step) if old[1:] != step.shape[1:] else labels


def expand_as(run: Interpreter, step: Step, x: Any, other: Any) -> Any:
    """One value for all the channels of `other` (the norm in F.normalize) is the same for any of them."""
    labels, other = run.labels(x, step), run.labels(other, step)
    channels = varying(other)
    sizes = [1] * (len(step.shape) - labels.ndim) + list(labels.shape)
    if channels and all(sizes[dim] == 1 for dim in channels) and not bool((compact(labels) >= 0).any()):
        return constant_labels(step.shape, UNIFORM)
    return move(run, step, x, other)


def reshape(run: Interpreter, step: Step, x: Any, size: Any, *args: Any) -> Any:
    """view, reshape: one channel dimension split in two can shrink in one of them only.

    A -1 in the code says which one adapts; otherwise the last (`view(b, groups, channels // groups, …)`).
    """
    labels = run.labels(x, step).reshape(step.shape)
    return _joined(run, step, labels, [dim for dim, length in enumerate(size) if length == -1])


def reshape_as(run: Interpreter, step: Step, x: Any, other: Any) -> Any:
    """view_as, reshape_as: the sizes are those of another activation, whose channels are tied to these."""
    labels, wanted = run.labels(x, step).reshape(step.shape), run.labels(other, step)
    result = _joined(run, step, labels, varying(wanted))
    _tie(run, step, compact(compress(result)), compact(compress(wanted)))
    return result


def unflatten(run: Interpreter, step: Step, x: Any, dim: int, sizes: Any, *args: Any) -> Any:
    """A reshape of one dimension."""
    first = dim % run.labels(x, step).ndim
    labels = run.labels(x, step).reshape(step.shape)
    return _joined(run, step, labels, [first + i for i, length in enumerate(sizes) if length == -1])


def flatten(run: Interpreter, step: Step, x: Any, *args: Any) -> Any:
    """Dimensions merged into one: a channel becomes many positions."""
    return compress(run.labels(x, step).reshape(step.shape))


def shuffle(run: Interpreter, step: Step, x: Any, *args: Any) -> Any:
    """pixel_shuffle, pixel_unshuffle, channel_shuffle: the channel dimension is the one that shrinks."""
    assert step.target is not None
    labels = step.target(run.labels(x, step).double(), *args).long()
    if step.op == "aten.channel_shuffle":
        vector = run.constraints.channels(run.labels(x, step), -3, step)
        rows = vector.reshape(args[0], -1)
        run.constraints.tie(rows[:1].expand(args[0] - 1, -1), rows[1:], step)
    elif step.op == "aten.pixel_unshuffle":  # the r * r copies of a channel stand side by side and go together
        return compress(labels)
    return _joined(run, step, labels, [labels.ndim - 3])


def transpose(run: Interpreter, step: Step, x: Any, *args: Any) -> Any:
    """t, transpose, permute: a parameter stays a parameter."""
    if not isinstance(x, Param):
        return move(run, step, x, *args)
    assert step.target is not None
    order = step.target(torch.empty(tuple(range(2, 2 + len(x.shape))), device="meta"), *args).shape
    return x.permuted(tuple(size - 2 for size in order))


def concat(run: Interpreter, step: Step, tensors: Sequence[Any], dim: int = 0) -> Any:
    """cat: channels side by side; along any other dimension the operands' channels are united where they meet."""
    labels = [run.labels(tensor, step) for tensor in tensors if tuple(tensor.shape) != (0,)]
    dim %= labels[0].ndim
    moving = sorted({i for item in labels for i in varying(item)} - {dim})
    if len(moving) == 1 and all(dim not in varying(item) for item in labels):
        kept = moving[0]  # channels meet across the operands
        vectors = [run.constraints.channels(item, kept, step) for item in labels]
        for vector in vectors[1:]:
            run.constraints.tie(vectors[0], vector, step)
        fixed = torch.stack(vectors).amax(0)
        return along(kept, fixed, step.shape)
    shared = [i for i in range(labels[0].ndim) if i != dim and all(i not in varying(item) for item in labels)]
    small = [_narrowed(item, shared) for item in labels]
    joined = torch.cat(small, dim).expand(step.shape)
    moving = [i for i in varying(joined) if i != dim]
    return _joined(run, step, joined, moving)


def stack(run: Interpreter, step: Step, tensors: Sequence[Any], dim: int = 0) -> Any:
    """stack: cat along a new dimension."""
    dim %= len(step.shape)
    labels = [run.labels(tensor, step).unsqueeze(dim) for tensor in tensors]
    return concat(run, step, labels, dim)


def pieces(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """chunk, split: equal pieces of a channel dimension are tied position by position, unequal ones stay whole.

    Pieces of a parameter may be weights.
    """
    assert step.target is not None
    if isinstance(x, Param) and x.part is None and x.name not in run.elements:
        return _pieces_of_weight(x, step.shape)
    labels = run.labels(x, step)
    parts = [compress(part) for part in step.target(labels, *args, **kwargs)]
    cut = [dim for dim in varying(labels) if parts[0].shape[dim] != labels.shape[dim]]
    if cut and len(parts) > 1:
        if any(part.shape != parts[0].shape for part in parts):
            run.constraints.freeze(labels, step, "split into unequal pieces of literal size")
        else:
            for part in parts[1:]:
                _tie(run, step, compact(parts[0]), compact(part))
    return tuple(parts)


def _pieces_of_weight(param: Param, shapes: Sequence[tuple[int, ...]]) -> tuple[Param, ...]:
    dim = next((dim for dim, size in enumerate(param.shape) if shapes[0][dim] != size), 0)
    ends = list(accumulate(shape[dim] for shape in shapes))
    return tuple(param.piece(dim, end - shape[dim], end) for end, shape in zip(ends, shapes, strict=True))


def cut(run: Interpreter, step: Step, x: Any, dim: int = 0, start: Any = None, end: Any = None, stride: int = 1) -> Any:
    """slice, narrow: literal bounds inside a channel dimension keep everything up to the last bound."""
    labels = run.labels(x, step)
    assert step.target is not None
    dim %= labels.ndim
    size = labels.shape[dim]
    result = compress(step.target(labels, dim, start, end, *([stride] if step.op == "aten.slice" else [])))
    if dim in varying(labels) and result.shape[dim] != size:
        if step.op == "aten.narrow":
            end = start + end
        first = 0 if start is None else max(0, start + size if start < 0 else start)
        last = size if end is None else min(size, end + size if end < 0 else end)
        if stride == 1 and first % (last - first) == 0 and size % (last - first) == 0 and run.trusted():
            # the code may well say x[:, : c // 2]: equal pieces, tied; a trial pruning finds out
            run.constraints.assume(run.number, labels)
            parts = [compact(compress(part)) for part in labels.split(last - first, dim)]
            for part in parts[1:]:
                _tie(run, step, parts[0], part)
            return result
        counts_from_end = (start is not None and start < 0) or (end is not None and end < 0)
        stop = size if counts_from_end or stride != 1 else last if last < size else first
        run.constraints.freeze(labels.narrow(dim, 0, stop), step, "a slice with literal bounds")
    return result


def glu(run: Interpreter, step: Step, x: Any, dim: int = -1) -> Any:
    """One half gates the other: they are tied."""
    labels = run.labels(x, step)
    halves = [compress(half) for half in labels.chunk(2, dim)]
    _tie(run, step, compact(halves[0]), compact(halves[1]))
    return halves[0]


def select(run: Interpreter, step: Step, x: Any, dim: int, index: int) -> Any:
    """One position of a dimension."""
    return compress(_sides(run, step, run.labels(x, step), dim).select(dim, index))


def unbind(run: Interpreter, step: Step, x: Any, dim: int = 0) -> Any:
    """Every position of a dimension."""
    return tuple(compress(side) for side in _sides(run, step, run.labels(x, step), dim).unbind(dim))


def _sides(run: Interpreter, step: Step, labels: Tensor, dim: int) -> Tensor:
    """Labels of which the code takes single positions of a dimension: another dimension must be the one that shrinks.

    So with the queries, keys and values of one linear layer: they are tied.
    """
    labels = compress(labels)
    dim %= labels.ndim
    moving = varying(labels)
    if dim in moving and len(moving) == 1:
        run.constraints.freeze(labels, step, "one channel picked by number")
    elif dim in moving:
        small = compact(labels)
        first = small.narrow(dim, 0, 1)
        for side in small.split(1, dim)[1:]:
            run.constraints.tie(first.contiguous(), side.contiguous(), step)
        return first.expand(labels.shape)
    return labels


def roll(run: Interpreter, step: Step, x: Any, shifts: Any, dims: Any = ()) -> Any:
    """roll: fine over positions; channels rolled by a literal distance stay."""
    labels = run.labels(x, step)
    over = [dim % labels.ndim for dim in ([dims] if isinstance(dims, int) else dims)]
    if not over or any(dim in over for dim in varying(labels)):
        run.constraints.freeze(labels, step, "channels rolled by a literal distance")
    return compress(torch.roll(labels, shifts, dims))


def pad(run: Interpreter, step: Step, x: Any, pads: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    """pad: over positions a channel stays itself; in the channel dimension the padding makes new channels.

    New channels can go only where surgery can change the amount: inside a `ZeroPadShortcut`.
    """
    labels = compress(run.labels(x, step))
    moving = varying(labels)
    for i in range(len(pads) // 2):
        dim, before, after = labels.ndim - 1 - i, pads[2 * i], pads[2 * i + 1]
        if dim not in moving:
            shape = list(labels.shape)
            shape[dim] += before + after
            labels = compact(labels).expand(shape) if shape[dim] else constant_labels(shape, -1)
        elif before or after:
            labels = _new_channels(run, step, labels, dim, before, after)
    return labels


def _new_channels(run: Interpreter, step: Step, labels: Tensor, dim: int, before: int, after: int) -> Tensor:
    if before < 0 or after < 0:
        run.constraints.freeze(labels, step, "channels cropped by a literal number")
        return labels.narrow(dim, max(0, -before), labels.shape[dim] + min(0, before) + min(0, after))
    sides = []
    for count in (before, after):
        shape = [*labels.shape]
        shape[dim] = count
        sides.append(along(dim, run.constraints.new_labels(count), shape))
    if step.module in run.program.tensors.padding:
        vector = run.constraints.channels(labels, dim, step)
        labels = along(dim, vector, labels.shape)
        parts = (compact(sides[0]).reshape(-1)[:before], vector, compact(sides[1]).reshape(-1)[:after])
        run.constraints.sized[step.module] = torch.cat(parts).numpy().copy()
    else:
        for side in sides:
            run.constraints.freeze(side, step, "channel padding of a literal size")
    small = [
        _narrowed(item, [d for d in range(labels.ndim) if d not in varying(labels)])
        for item in (sides[0], labels, sides[1])
    ]
    shape = [*labels.shape]
    shape[dim] += before + after
    return torch.cat([item for item in small if item.shape[dim]], dim).expand(shape)


def repeat(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """repeat, tile, repeat_interleave: copies of a channel go together."""
    assert step.target is not None
    found = _copied(run, step, x)
    return _joined(run, step, compress(step.target(found, *args, **kwargs)), varying(found))


def getitem(run: Interpreter, step: Step, values: Any, index: Any) -> Any:
    """One of several results."""
    return values[index]


def _tie(run: Interpreter, step: Step, one: Tensor, other: Tensor) -> None:
    first, second = torch.broadcast_tensors(one, other)
    run.constraints.tie(first, second, step)


def _narrowed(labels: Tensor, dims: Sequence[int]) -> Tensor:
    return labels[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(labels.ndim))]


def _joined(run: Interpreter, step: Step, labels: Tensor, preferred: Sequence[int]) -> Tensor:
    """Notes labels that change along several dimensions; `preferred` (else the last) is the one that may shrink."""
    labels = compress(labels)
    moving = varying(labels)
    if len(moving) > 1:
        shrinks = next((dim for dim in preferred if dim in moving), moving[-1])
        run.constraints.deferred_ties.append(DeferredTie(labels, shrinks, step))
    return labels


MOVES = [
    "squeeze",
    "unsqueeze",
    "movedim",
    "moveaxis",
    "swapaxes",
    "flip",
    "narrow_copy",
    "positive",
    "view_as_real",
    "mT",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
]

RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias"), reshape),
    **dict.fromkeys(("t", "transpose", "permute", "numpy_T", "swapdims"), transpose),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"), shuffle),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), pieces),
    **dict.fromkeys(("repeat", "tile", "repeat_interleave"), repeat),
    **dict.fromkeys(("slice", "narrow"), cut),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    "expand": expand,
    "expand_as": expand_as,
    "view_as": reshape_as,
    "reshape_as": reshape_as,
    "unflatten": unflatten,
    "flatten": flatten,
    "cat": concat,
    "concat": concat,
    "concatenate": concat,
    "stack": stack,
    "select": select,
    "unbind": unbind,
    "glu": glu,
    "roll": roll,
    "getitem": getitem,
}
