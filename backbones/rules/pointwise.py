"""Operations element by element: labels pass through, two labelled operands are united."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import NONE, UNIFORM, compact, compress, constant_labels, varying
from backbones.program import Step


def pointwise(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """Any number of operands, broadcast together; plain numbers don't matter."""
    operands = [value for value in (*args, *kwargs.values()) if isinstance(value, (Tensor, Param))]
    labelled = [value for value in operands if isinstance(value, Tensor)]
    known = [value for value in labelled if bool((compact(value) >= 0).any())]
    if not known:
        labelled = [run.labels(value, step) for value in operands]
    result = lift(labelled[0], step.shape)
    for value in labelled[1:]:
        result = unite(run, step, result, lift(value, step.shape))
    result = result.expand(step.shape)
    if known:
        for operand in operands:
            if isinstance(operand, Param):
                run.bind_elementwise(operand, result, step)
    return result


def lift(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """The same labels with as many dimensions as `shape` has."""
    return labels.reshape((1,) * (len(shape) - labels.ndim) + tuple(labels.shape))


def unite(run: Interpreter, step: Step, left: Tensor, right: Tensor) -> Tensor:
    """The labels of what two operands of as many dimensions make, broadcast; where they meet, they are tied."""
    left, right = compress(left), compress(right)
    shape = torch.broadcast_shapes(left.shape, right.shape)
    for one, other in ((left, right), (right, left)):
        if _is_single(one, other):
            return _pinned(run, step, one, other, shape)
    for one, other in sorted(((left, right), (right, left)), key=lambda pair: not run.constraints.is_value(pair[0])):
        if _is_elsewhere(one, other):
            return _pinned(run, step, one, other, shape)
    for one, other in ((left, right), (right, left)):
        if not bool((compact(one) != NONE).any()) and bool((compact(other) >= 0).any()):
            dims = [dim for dim, size in enumerate(one.shape) if size > 1]
            run.constraints.freeze_along(other, dims, step, "coupled with values that always stay (input, constant)")
            return torch.where(other == UNIFORM, NONE, other).expand(shape)
    left, right = torch.broadcast_tensors(compact(left), compact(right))
    run.constraints.tie(left, right, step)
    fixed = torch.where(right >= 0, right, torch.maximum(left, right))
    return compress(torch.where(left >= 0, left, fixed)).expand(shape)


def _pinned(run: Interpreter, step: Step, one: Tensor, other: Tensor, shape: Sequence[int]) -> Tensor:
    """One value for all the channels of the other operand: it must stay, they need not."""
    run.constraints.freeze(one, step, "one channel is applied to many")
    return other.expand(tuple(shape))


def _is_single(one: Tensor, other: Tensor) -> bool:
    """Whether `one` has a single position along all dimensions of the other's channels."""
    moving = varying(other)
    return bool(moving) and all(one.shape[dim] == 1 for dim in moving)


def _is_elsewhere(one: Tensor, other: Tensor) -> bool:
    """Whether the channels of `one` are along other dimensions than those of `other`."""
    moving = varying(other)
    return bool(moving) and bool((compact(one) >= 0).any()) and not set(varying(one)) & set(moving)


def filled(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
    """zeros, ones, full: the same value everywhere, so any slice of it fits."""
    return constant_labels(step.shape, UNIFORM)


def like(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """zeros_like and friends follow the shape of their argument."""
    return run.labels(x, step)


def cast(run: Interpreter, step: Step, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Another type, device or place in memory, also those of another tensor: a parameter stays a parameter."""
    return x


NAMES = """
abs acos acosh add addcdiv addcmul alpha_dropout asin asinh atan atan2 atanh bernoulli bitwise_and bitwise_not
bitwise_or ceil celu clamp clamp_max clamp_min clip cos cosh deg2rad div divide
dropout elu eq erf erfc erfinv exp exp2 expm1 feature_alpha_dropout feature_dropout fill float floor floor_divide
floor_mod fmax fmin fmod frac ge gelu gt hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu
lerp log log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor logit lt masked_fill
maximum minimum mish mul multiply nan_to_num ne neg negative pow reciprocal relu relu6 remainder round rrelu rsqrt
rsub selu sgn sigmoid sign silu sin sinh softplus softshrink softsign sqrt square sub subtract tan tanh threshold
true_divide trunc where xlogy special_expit special_erf log_sigmoid_forward
"""
"""Operations without weights whose result has one element per element of their broadcast operands."""

CASTS = "_to_copy alias clone contiguous cpu cuda detach detach_copy lift lift_fresh to to_dense type_as"
"""Operations whose result has the elements of their first operand."""

RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(NAMES.split(), pointwise),
    **dict.fromkeys(CASTS.split(), cast),
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "scalar_tensor"), filled),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), like),
}
