"""Linear layers, matrix products and einsum."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import NONE, Pairs, along, compact, compress, constant_labels, varying
from backbones.program import Step
from backbones.rules.pointwise import lift, unite


def linear_layer(run: Interpreter, step: Step, x: Any, weight: Any, bias: Any = None) -> Any:
    """X @ weight.T + bias, weight (out, in)."""
    return _linear(run, step, x, weight, bias, 1, 0)


def matmul(run: Interpreter, step: Step, x: Any, other: Any) -> Any:
    """X @ other: a linear layer when `other` is a parameter, else a product of activations."""
    if isinstance(other, Param) and len(other.shape) == 2 and isinstance(x, Tensor):
        return _linear(run, step, x, other, None, 0, 1)
    return product(run, step, x, other)


def addmm(run: Interpreter, step: Step, bias: Any, x: Any, other: Any, **scales: Any) -> Any:
    """Bias + x @ other."""
    if isinstance(other, Param) and isinstance(x, Tensor) and isinstance(bias, Param):
        return _linear(run, step, x, other, bias, 0, 1)
    run.unknown(step, bias, "sum with a product of activations")
    return product(run, step, x, other)


def _linear(run: Interpreter, step: Step, x: Any, weight: Any, bias: Any, reads: int, makes: int) -> Any:
    x = run.labels(x, step)
    rows = [dim for dim in varying(x) if dim != x.ndim - 1]
    if not isinstance(weight, Param):
        run.count(step, math.prod(x.shape[:-1]) * math.prod(weight.shape))
        return run.computed((x, weight, bias), step, step.shape[-1])
    if rows and x.ndim - 1 not in varying(x):
        # a layer over positions: each channel is a row of its own and stays one in the result
        filters = run.bind(weight, makes, "filter", run.constraints.new_labels(weight.shape[makes]), step)
        run.count(step, 1, *run.extents(x, range(x.ndim - 1)), (weight, makes), (x, -1))
        run.constraints.freeze(filters, step, "its outputs are positions of channels that can shrink")
        return x.narrow(-1, 0, 1).expand(step.shape)
    inputs = run.constraints.channels(x, -1, step)
    run.bind(weight, reads, "input", inputs, step)
    filters = run.bind(weight, makes, "filter", run.constraints.new_labels(weight.shape[makes]), step)
    run.count(step, math.prod(x.shape[:-1]), (weight, 0), (weight, 1))
    if bias is not None:
        run.bind(bias, 0, "vector", filters, step)
    return along(-1, filters, step.shape)


def product(run: Interpreter, step: Step, left: Any, right: Any, *rest: Any, **options: Any) -> Any:
    """A matrix product of activations: rows of the left and columns of the right stay what they are.

    Where both are channels the result is an outer product, and each element belongs to one of either side.
    """
    return product_of(run, step, run.labels(left, step), run.labels(right, step), step.shape)


def product_of(run: Interpreter, step: Step, left: Tensor, right: Tensor, shape: Sequence[int]) -> Any:
    """As `product`, for labels: those of the result, which has `shape`."""
    length = left.shape[-1]
    if min(left.ndim, right.ndim) > 1 and any(dim < one.ndim - 2 for one in (left, right) for dim in varying(one)):
        heads = stacked(run, step, lift(left, shape), lift(right, shape))
        run.count(step, length * shape[-2] * shape[-1], *run.extents(heads, range(heads.ndim - 2)))
        return heads.expand(tuple(shape))
    free = []
    for one, inner in ((left, left.ndim - 1), (right, max(0, right.ndim - 2))):
        if one.ndim < 2 or any(dim == inner or dim < one.ndim - 2 for dim in varying(one)):
            run.constraints.freeze(one, step, "matrix product over channels of two activations")
        elif bool((compact(one) >= 0).any()):
            free.append(one.narrow(inner, 0, 1))
    if len(free) == 2:
        rows, columns = (compress(lift(labels, shape).expand(tuple(shape))) for labels in free)
        sizes = [*run.extents(rows, range(rows.ndim - 1)), *run.extents(columns, [columns.ndim - 1])]
        run.count(step, length, *sizes)
        return Pairs(rows, columns)
    if len(free) != 1:
        run.count(step, math.prod(shape) * length)
        run.freeze_all((left, right), step, "matrix product of two activations")
        return constant_labels(shape, NONE)
    labels = lift(free[0], shape).expand(tuple(shape))
    run.count(step, length, *run.extents(labels, range(labels.ndim)))
    return labels


def stacked(run: Interpreter, step: Step, left: Tensor, right: Tensor) -> Tensor:
    """Stacks of matrices, one for each channel (an attention head): what is in a matrix stays or goes together.

    Args:
        run: the interpreter.
        step: the operation.
        left: the labels of one stack; the last two dimensions are those of the matrices.
        right: those of the other one, of as many dimensions.

    Returns:
        the label of each matrix of the result, in two dimensions more of size 1.
    """
    sides = []
    for one in (left, right):
        small = compact(compress(one))
        first = small[..., :1, :1]
        run.constraints.tie(first.expand(small.shape), small, step)
        sides.append(compress(first.expand(*one.shape[:-2], 1, 1)))
    labels = unite(run, step, *sides)
    for side in (*sides, labels):
        for dim in varying(side):
            vector = run.constraints.channels(side, dim, step).numpy().copy()
            run.constraints.heads.append(vector)
            if step.module in run.program.tensors.attention:
                run.constraints.sized[step.module] = vector
    return labels


def bilinear(run: Interpreter, step: Step, left: Any, right: Any, weight: Any, bias: Any = None) -> Any:
    """nn.Bilinear, weight (out, left, right): counted by hand as weight times left, torch's counter leaves it out."""
    left, right = run.labels(left, step), run.labels(right, step)
    run.count(step, math.prod(step.shape[:-1]), (weight, 0), (weight, 1), (weight, 2))
    if not isinstance(weight, Param):
        return run.computed((left, right, weight, bias), step, step.shape[-1])
    for dim, x in ((1, left), (2, right)):
        run.bind(weight, dim, "input", run.constraints.channels(x, -1, step), step)
    filters = run.bind(weight, 0, "filter", run.constraints.new_labels(weight.shape[0]), step)
    if bias is not None:
        run.bind(bias, 0, "vector", filters, step)
    return along(-1, filters, step.shape)


def einsum(run: Interpreter, step: Step, equation: str, operands: Any, *rest: Any, **options: Any) -> Any:
    """One activation and one parameter: a linear layer over the letters they share; anything else freezes.

    The activation may be an outer product: the weight then has one dimension for its rows and one for its columns.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    sizes = {
        letter: size
        for names, operand in zip(letters, operands, strict=False)
        for letter, size in zip(names, operand.shape, strict=False)
    }
    plain = "." not in equation and output and all(len(set(names)) == len(names) for names in (*letters, output))
    if plain and len(operands) == 2 and all(isinstance(operand, Tensor) for operand in operands):
        heads = _stack_einsum(run, step, letters, output, operands, sizes)
        if heads is not None:
            return heads
    params = [i for i, operand in enumerate(operands) if isinstance(operand, Param)]
    if not plain or len(operands) != 2 or len(params) != 1:
        if len(operands) == 2 and plain:
            run.count(step, math.prod(sizes.values()))
        return run.unknown(step, operands, "an einsum that is not one activation times one parameter")
    weight, x = operands[params[0]], operands[1 - params[0]]
    sides = [x.rows, x.columns] if isinstance(x, Pairs) else [run.labels(x, step)]
    own, read = letters[params[0]], letters[1 - params[0]]
    made = [letter for letter in own if letter not in read and letter in output]
    shared = [letter for letter in own if letter in read]
    moving = [read[dim] for labels in sides for dim in varying(labels)]
    if any(letter not in shared or letter in output or moving.count(letter) > 1 for letter in moving) or len(made) > 1:
        run.count(step, math.prod(sizes.values()))
        return run.unknown(step, operands, "an einsum over positions of channels")
    others = math.prod(size for letter, size in sizes.items() if letter not in own)
    run.count(step, others, *[(weight, dim) for dim in range(len(own))])
    for letter in shared:
        for labels in sides:
            if len(sides) == 1 or read.index(letter) in varying(labels):
                run.bind(
                    weight, own.index(letter), "input", run.constraints.channels(labels, read.index(letter), step), step
                )
    if not made:
        return run.nothing(step)
    filters = run.bind(weight, own.index(made[0]), "filter", run.constraints.new_labels(sizes[made[0]]), step)
    return compress(along(output.index(made[0]), filters, step.shape))


def _stack_einsum(
    run: Interpreter, step: Step, letters: Sequence[str], output: str, operands: Sequence[Any], sizes: Mapping[str, int]
) -> Tensor | None:
    """The labels of an einsum of stacks of matrices, one for each channel; None if it is none."""
    stack = [letter for letter in letters[0] if letter in letters[1] and letter in output]
    moving = [letters[side][dim] for side in (0, 1) for dim in varying(operands[side])]
    if not set(stack) & set(moving):
        return None
    sides = []
    for names, labels in zip(letters, operands, strict=True):
        order = [*stack, *(letter for letter in names if letter not in stack)]
        moved = labels.permute([names.index(letter) for letter in order])
        sides.append(moved.reshape(*moved.shape[: len(stack)], -1, 1))
    heads = stacked(run, step, *sides)
    order = [*stack, *(letter for letter in output if letter not in stack)]
    labels = heads.reshape(*heads.shape[:-2], *[1] * (len(output) - len(stack)))
    labels = labels.permute([order.index(letter) for letter in output]).expand(step.shape)
    inner = math.prod(size for letter, size in sizes.items() if letter not in stack)
    run.count(step, inner, *run.extents(labels, [output.index(letter) for letter in stack]))
    return labels


def tensordot(run: Interpreter, step: Step, left: Any, right: Any, summed: Any, against: Any, *rest: Any) -> Any:
    """The einsum that sums dimensions `summed` of the left against dimensions `against` of the right."""
    letters = string.ascii_letters
    one = list(letters[: len(left.shape)])
    other = list(letters[len(one) : len(one) + len(right.shape)])
    for dim, partner in zip(summed, against, strict=True):
        other[partner] = one[dim]
    output = [letter for letter in one + other if (letter in one) != (letter in other)]
    return einsum(run, step, f"{''.join(one)},{''.join(other)}->{''.join(output)}", (left, right))


RULES: Mapping[str, Callable[..., Any]] = {
    "linear": linear_layer,
    "matmul": matmul,
    "mm": matmul,
    "bmm": product,
    "addmm": addmm,
    "einsum": einsum,
    "tensordot": tensordot,
    "bilinear": bilinear,
}
