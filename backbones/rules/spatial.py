"""Channel-wise operations that change the spatial size, and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import along, compact, compress, varying
from backbones.program import Step, TensorShape
from backbones.rules.pointwise import pointwise


def pooling(run: Interpreter, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Pooling and interpolation: every channel keeps its place, in dimension 1 (0 without a batch)."""
    shapes: Sequence[TensorShape] = step.shape if isinstance(step.shape[0], tuple) else (step.shape,)
    run.freeze_all((rest, options), step, "read as coordinates")
    x = run.labels(x, step)
    channel = x.ndim - DIMENSIONS[step.op.removeprefix("aten.")] - 1
    moving = varying(x)
    if moving and channel not in moving and moving[-1] > channel:
        run.constraints.freeze(x, step, "pooled over positions that are channels")
    vector = run.constraints.channels(x, channel, step)
    results = tuple(along(channel, vector, shape) for shape in shapes)
    return results if isinstance(step.shape[0], tuple) else results[0]


def reduction(run: Interpreter, step: Step, x: Any, dims: Any = None, *rest: Any, **options: Any) -> Any:
    """mean, sum, amax …: fine over positions; over channels those of `MIXING` are statistics that pruning changes.

    A norm over channels divides by no count, so a dropped channel is one that is zero. Whatever else depends on all
    channels (products, any, all) leaves them as they are.
    """
    if isinstance(dims, (Tensor, Param)):  # max(x, y) and min(x, y) element by element
        return pointwise(run, step, x, dims)
    x = run.labels(x, step)
    order = None
    if step.op in VECTOR_NORMS:  # (x, order, dim, …)
        order, dims = dims, rest[0] if rest else None
    over = options.get("dim", dims)
    over = list(range(x.ndim)) if over is None or over == [] else [over] if isinstance(over, int) else list(over)
    over = [dim % x.ndim for dim in over]
    moving = varying(x)
    if any(dim in over for dim in moving):
        if all(dim in over for dim in moving) and is_norm(step, order):
            run.constraints.note_summed(x)
            return run.nothing(step)
        if all(dim in over for dim in moving) and step.op.removeprefix("aten.") in MIXING:
            run.constraints.note_mixed(x, over)
            return run.nothing(step)
        if all(dim in over for dim in moving) or len(moving) > 2:
            return run.unknown(step, x, "reduced over channels")
        kept = next(dim for dim in moving if dim not in over)
        x = along(kept, run.constraints.channels(x, kept, step), x.shape)
    shape = [1 if dim in over else size for dim, size in enumerate(x.shape)]
    small = compact(compress(x)).expand(shape)
    result = small if _rank(step.shape) == x.ndim else small.squeeze(tuple(over))
    return (result,) * len(step.shape) if step.shape and isinstance(step.shape[0], tuple) else result


def is_norm(step: Step, order: Any) -> bool:
    """Whether a step is a p-norm that adds up |x|^p, to which a channel of zeros contributes nothing."""
    return step.op in VECTOR_NORMS and (order is None or (isinstance(order, (int, float)) and 0 < order < math.inf))


def normalised(run: Interpreter, step: Step, x: Any, dim: Any, *rest: Any, **options: Any) -> Any:
    """Softmax and log_softmax: like a reduction over `dim`, but of the same shape."""
    x = run.labels(x, step)
    dim %= x.ndim
    moving = varying(x)
    if dim in moving:
        if len(moving) != 2:
            return run.unknown(step, x, "softmax over channels")
        kept = moving[0] if moving[1] == dim else moving[1]
        return along(kept, run.constraints.channels(x, kept, step), x.shape)  # branches side by side: channels are tied
    return x


def _rank(shape: Any) -> int:
    return len(shape[0]) if shape and isinstance(shape[0], tuple) else len(shape)


DIMENSIONS = {
    **{f"{kind}_pool{n}d": n for kind in ("adaptive_avg", "adaptive_max", "avg", "max") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": n for n in (1, 2, 3)},
    "upsample_nearest1d": 1,
    "upsample_nearest2d": 2,
    "upsample_nearest3d": 3,
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "upsample_bicubic2d": 2,
    "upsample_trilinear3d": 3,
    "grid_sampler": 2,
}
"""Operation -> number of spatial dimensions behind the channel dimension."""

MIXING = frozenset(["mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean"])
"""Reductions over channels that code uses as statistics: gates of spatial attention, a layer norm written by hand."""
VECTOR_NORMS = ("aten.norm", "aten.linalg_vector_norm")

REDUCING = [
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "prod",
    "any",
    "all",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
]

RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(DIMENSIONS, pooling),
    **dict.fromkeys(REDUCING, reduction),
    "softmax": normalised,
    "_softmax": normalised,
    "log_softmax": normalised,
}
