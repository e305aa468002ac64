"""Outer products of channels, whose elements belong to two channels at once (bilinear pooling, Gram matrices).

Each side is interpreted on its own: moving elements moves the channels of both sides, arithmetic with numbers leaves
them be, and a weight that reads rows and columns as two dimensions of its own (einsum `nij,kij->nk`, or the same as a
tensordot) has each bound to one side. Everything else freezes both sides, flattening included: a flat weight would hold
each channel's row and column crosswise in one dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import Pairs, compact, varying
from backbones.program import Step
from backbones.rules.pointwise import pointwise
from backbones.rules.products import einsum, tensordot
from backbones.rules.shapes import expand_as, move, transpose
from backbones.rules.spatial import is_norm


def arithmetic(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """Element by element, with numbers, values that belong to no channel, or another outer product."""
    operands = [*args, *kwargs.values()]
    if any(_has_channels(value) for value in operands if not isinstance(value, Pairs)):
        return run.unknown(step, operands, "pairs of channels combined with other channels")
    return _each_side(pointwise, run, step, args, kwargs)


def moved(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """permute, unsqueeze, expand …: both sides move alike."""
    return _each_side(move, run, step, args, kwargs)


def expanded(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """expand_as: as `shapes.expand_as`, for each side."""
    return _each_side(expand_as, run, step, args, kwargs)


def transposed_pairs(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """t, transpose, permute: both sides move alike."""
    return _each_side(transpose, run, step, args, kwargs)


def norm(run: Interpreter, step: Step, x: Any, order: Any = None, dims: Any = None, *rest: Any, **options: Any) -> Any:
    """A norm over all pairs: a dropped channel counts as zero in it."""
    rank = len(x.shape)
    over = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    inside = {dim % rank for dim in over}
    if not is_norm(step, order) or not {*varying(x.rows), *varying(x.columns)} <= inside:
        return run.unknown(step, x, "reduced over one side of pairs of channels")
    run.constraints.note_summed(x.rows)
    run.constraints.note_summed(x.columns)
    return run.nothing(step)


def flat(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """flatten, reshape: not followed, with a reason that says what would be."""
    return run.unknown(
        step,
        (args, kwargs),
        "an outer product of channels is reshaped; keep it (N, C, C) and read it by tensordot or einsum",
    )


def _each_side(
    rule: Callable[..., Any], run: Interpreter, step: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Pairs:
    rows = rule(run, step, *_side(args, "rows"), **_side(kwargs, "rows"))
    columns = rule(run, step, *_side(args, "columns"), **_side(kwargs, "columns"))
    return Pairs(rows, columns)


def _side(value: Any, side: str) -> Any:
    if isinstance(value, Pairs):
        return getattr(value, side)
    if isinstance(value, tuple):
        return tuple(_side(item, side) for item in value)
    if isinstance(value, Mapping):
        return {key: _side(item, side) for key, item in value.items()}
    return value


def _has_channels(value: Any) -> bool:
    return isinstance(value, Param) or (isinstance(value, Tensor) and bool((compact(value) >= 0).any()))


ARITHMETIC = """
abs add clamp clamp_max clamp_min clip clone contiguous detach div divide dropout mul multiply neg negative pow sgn sign
sqrt square sub subtract true_divide _to_copy alias
"""
"""Operations that outer products are known to go through."""

RULES: Mapping[str, Callable[..., Any]] = {
    **{f"{name} of pairs": arithmetic for name in ARITHMETIC.split()},
    **{f"{name} of pairs": moved for name in ("squeeze", "unsqueeze", "expand", "movedim", "mT")},
    "expand_as of pairs": expanded,
    **{f"{name} of pairs": transposed_pairs for name in ("transpose", "permute", "swapdims")},
    **{f"{name} of pairs": norm for name in ("norm", "linalg_vector_norm")},
    **{f"{name} of pairs": flat for name in ("flatten", "view", "reshape", "_unsafe_view", "unflatten")},
    "einsum of pairs": einsum,
    "tensordot of pairs": tensordot,
}
