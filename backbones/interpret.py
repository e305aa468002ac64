"""Runs a traced program on label tensors and writes down what it learns about channels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backbones.constraints import ConstraintSet, DeferredBinding
from backbones.graph import Role
from backbones.labels import NONE, Pairs, compact, constant_labels, varying
from backbones.program import Program, Ref, Step

TAKES_PIECES = frozenset(["linear", "matmul", "mm", "addmm", "t", "transpose", "permute", "getitem"])
"""Operations that a piece of a parameter may be the weight of: the queries' part of an attention layer's, say."""
LARGEST_ELEMENTWISE = 1_000_000
"""Parameters with more elements than this are not followed element by element when used as values."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter or buffer as the program passes it on.

    Attributes:
        name: in the state dict; the first one of a tensor with several.
        shape: as the program sees it, after the transpositions so far.
        order: for each dimension of `shape`, which dimension of the stored tensor it is.
        part: (dimension, first position, end) where it is a piece of the tensor along one dimension of `shape`.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    part: tuple[int, int, int] | None = None

    def permuted(self, order: tuple[int, ...]) -> Param:
        """The same tensor with its dimensions in another order."""
        part = self.part and (order.index(self.part[0]), *self.part[1:])
        return Param(self.name, tuple(self.shape[i] for i in order), tuple(self.order[i] for i in order), part)

    def piece(self, dim: int, start: int, end: int) -> Param:
        """Some positions of one dimension of a whole tensor."""
        shape = (*self.shape[:dim], end - start, *self.shape[dim + 1 :])
        return Param(self.name, shape, self.order, (dim, start, end))


class Interpreter:
    """One run over a program. Rules (in `backbones.rules`) read arguments and return labels through it.

    Attributes:
        program: the traced forward pass.
        constraints: what has been learned so far.
        number: index in `program.steps` of the step that is being interpreted.
        elements: labels of the parameters that are used as values, one for each of their elements.
    """

    def __init__(self, program: Program, literal: Collection[int] = ()) -> None:
        """Prepares a run in which the slices of the steps `literal` have literal bounds."""
        self.program = program
        self.constraints = ConstraintSet()
        self.number = 0
        self._literal = literal
        self.elements: dict[str, Tensor] = {}

    def run(
        self, rules: Mapping[str, Callable[..., Any]], bypass: Mapping[int, int], skip: Collection[int]
    ) -> ConstraintSet:
        """Interprets every step.

        Args:
            rules: operation name without `aten.` and the in-place underscore -> rule; `… of pairs` where an argument
                has labels of pairs, which are frozen if there is no such rule.
            bypass: step number -> step number whose value it takes over (removed modules).
            skip: steps inside removed modules.
        """
        values: list[Any] = []
        for number, step in enumerate(self.program.steps):
            if number in bypass:
                values.append(values[bypass[number]])
            elif number in skip:
                values.append(None)
            else:
                self.number = number
                values.append(self._step(step, rules, values))
        self.constraints.settle()
        return self.constraints

    def _step(self, step: Step, rules: Mapping[str, Callable[..., Any]], values: list[Any]) -> Any:
        if step.kind in ("parameter", "buffer"):
            return Param(self.program.tensors.names.get(step.op, step.op), step.shape, tuple(range(len(step.shape))))
        if step.kind in ("input", "constant"):
            return self.nothing(step)
        args, kwargs = _fill((step.args, step.kwargs), values)
        if step.kind == "output":
            self.freeze_all(args, step, "network output")
            return None
        name = step.op.removeprefix("aten.").rstrip("_")
        if _holds_pairs((args, kwargs)):
            if f"{name} of pairs" in rules:
                return rules[f"{name} of pairs"](self, step, *args, **kwargs)
            self._freeze_pairs((args, kwargs), step)
            args, kwargs = _without_pairs((args, kwargs))
        rule = rules.get(name)
        if rule is None:
            return self.unknown(step, (args, kwargs))
        if name not in TAKES_PIECES:
            args, kwargs = self._without_pieces((args, kwargs), step)
        return rule(self, step, *args, **kwargs)

    def trusted(self) -> bool:
        """Whether the current step may be read in the hopeful way (`ConstraintSet.assume`): not if it is written to."""
        readers = [self.program.steps[reader] for reader in self.program.users.get(self.number, ())]
        return self.number not in self._literal and not any(reader.op.endswith("_") for reader in readers)

    def unknown(self, step: Step, values: Any, reason: str = "operation not understood") -> Any:
        """Freezes whatever the step reads; its result belongs to no channel."""
        self.freeze_all(values, step, reason)
        return self.nothing(step)

    def _freeze_pairs(self, values: Any, step: Step) -> None:
        if isinstance(values, Pairs):
            self.freeze_all(values, step, "an outer product of channels is not followed here")
        elif isinstance(values, (tuple, list)):
            for value in values:
                self._freeze_pairs(value, step)
        elif isinstance(values, Mapping):
            self._freeze_pairs(list(values.values()), step)

    def freeze_all(self, values: Any, step: Step, reason: str) -> None:
        """Freezes every channel named inside nested values; parameters used there are not followed any further."""
        if isinstance(values, Tensor):
            self.constraints.freeze(values, step, reason)
        elif isinstance(values, Pairs):
            self.freeze_all((values.rows, values.columns), step, reason)
        elif isinstance(values, Param):
            for dim in range(len(values.shape)):
                binding = self.constraints.bindings.get((values.name, dim))
                if binding is not None:
                    self.constraints.freeze(torch.from_numpy(binding.labels), step, reason)
            if values.name in self.elements:
                self.constraints.freeze(self.elements[values.name], step, reason)
            self.elements[values.name] = constant_labels(values.shape, NONE)
        elif isinstance(values, (tuple, list)):
            for value in values:
                self.freeze_all(value, step, reason)
        elif isinstance(values, Mapping):
            self.freeze_all(list(values.values()), step, reason)

    def positions(self, labels: Tensor, step: Step) -> Tensor:
        """The same labels; values of no channel get one of their own each, so that copies of a value are known as such.

        An attention mask that is copied for each head, say, is the same for all of them. They stay.
        """
        if not bool((compact(labels) == NONE).all()) or labels.numel() > LARGEST_ELEMENTWISE:
            return labels
        fresh = self.constraints.new_values(labels.shape)
        self.constraints.freeze(fresh, step, "coupled with values that always stay (input, constant)")
        return fresh

    def nothing(self, step: Step) -> Any:
        """Labels in the shape of the step's result (a tuple of them for several results) that name no channel."""
        return _nothing(step.shape)

    def labels(self, value: Any, step: Step) -> Tensor:
        """A value as labels; a parameter used as a value gets one label per element, sorted out at the end."""
        if isinstance(value, Param):
            if value.name not in self.elements:
                self.elements[value.name] = self._per_element(value.name, self._dense(value), step)
            found = self.elements[value.name].permute(value.order)
            return found.narrow(value.part[0], value.part[1], value.part[2] - value.part[1]) if value.part else found
        assert isinstance(value, Tensor)
        return value

    def _dense(self, param: Param) -> tuple[int, ...]:
        """The shape of the stored tensor."""
        return self.program.tensors.shapes[param.name]

    def _without_pieces(self, value: Any, step: Step) -> Any:
        """The same values with the labels of its elements in the place of a piece of a parameter."""
        if isinstance(value, Param) and value.part:
            return self.labels(value, step)
        if isinstance(value, (tuple, list)):
            return type(value)(self._without_pieces(item, step) for item in value)
        if isinstance(value, Mapping):
            return {key: self._without_pieces(item, step) for key, item in value.items()}
        return value

    def _per_element(self, name: str, shape: tuple[int, ...], step: Step) -> Tensor:
        count = 1
        for size in shape:
            count *= size
        if count > LARGEST_ELEMENTWISE or any((name, dim) in self.constraints.bindings for dim in range(len(shape))):
            for dim in range(len(shape)):
                if (name, dim) in self.constraints.bindings:
                    self.constraints.freeze(
                        torch.from_numpy(self.constraints.bindings[name, dim].labels), step, "used as a value too"
                    )
            return constant_labels(shape, NONE)
        labels = self.constraints.new_values(shape)
        self.constraints.deferred_bindings.append(DeferredBinding(name, shape, labels, step))
        return labels

    def bind(self, param: Any, dim: int, role: Role, labels: Tensor, step: Step) -> Tensor:
        """Says which channels own the positions of one dimension of a weight.

        Args:
            param: the weight, a `Param`; channels bound to any other value (a computed weight) are frozen; None does
                nothing.
            dim: the dimension, as the program sees the weight.
            role: what the dimension is to its layer, see `graph.Member`.
            labels: (size of the dimension,) channel label of each position.
            step: the operation that uses the weight.

        Returns:
            the labels to go on with: older ones where the dimension was bound before.
        """
        if isinstance(param, Param):
            if param.name in self.elements:
                self.constraints.freeze(labels, step, f"{param.name} is used as a value too")
                self.constraints.freeze(self.elements[param.name], step, f"{param.name} is used as a weight too")
                return torch.full_like(labels, NONE)
            place = (param.name, param.order[dim])
            if param.part is None or param.part[0] != dim:
                return self.constraints.bind(*place, role, labels, step)
            known = self.constraints.bindings.get(place)
            size = self._dense(param)[place[1]]
            whole = self.constraints.new_labels(size) if known is None else torch.from_numpy(known.labels)
            bound = self.constraints.bind(*place, role, whole, step)[param.part[1] : param.part[2]]
            self.constraints.tie(bound, labels, step)
            return bound
        if param is not None:
            self.constraints.freeze(labels, step, "the weight is computed, not a parameter")
        return labels

    def computed(self, values: Any, step: Step, outputs: int) -> Any:
        """A layer whose weight is computed: freezes what it reads, and notes that its outputs cannot go either."""
        maker = self.program.tensors.computed.get(step.module, ", not a parameter").strip()
        reason = f"the weight is computed{'' if maker.startswith(',') else ' '}{maker}"
        self.constraints.computed.append((step, outputs, reason))
        return self.unknown(step, values, reason)

    def bind_elementwise(self, param: Param, labels: Tensor, step: Step) -> None:
        """A parameter that meets an activation element by element: its dimensions are bound once all is known."""
        if param.order == tuple(range(len(param.shape))) and param.name not in self.elements:
            self.constraints.deferred_bindings.append(DeferredBinding(param.name, param.shape, labels, step))
        elif (labels >= 0).any():
            self.freeze_all((param, labels), step, f"{param.name} is used in several ways")

    def count(self, step: Step, macs: int, *sizes: tuple[Any, int] | Tensor) -> None:
        """Notes the MACs of a step for the whole batch: a constant times some sizes.

        Args:
            step: the operation.
            macs: the constant.
            sizes: (parameter, dimension), or the labels along an activation's dimension (see `extents`). Where a
                parameter is a piece along that dimension, it has to be bound before.
        """
        factors: list[tuple[str, int] | NDArray[np.int64]] = []
        for size in sizes:
            if isinstance(size, Tensor):
                factors.append(size.numpy())
            elif isinstance(size[0], Param):
                place, part = (size[0].name, size[0].order[size[1]]), size[0].part
                if part is not None and part[0] == size[1]:
                    factors.append(self.constraints.bindings[place].labels[part[1] : part[2]])
                else:
                    factors.append(place)
            else:
                macs *= int(size[0].shape[size[1]])
        batch = self.program.batch
        for number, factor in enumerate(factors if macs % batch else ()):
            if not isinstance(factor, tuple) and len(factor) % batch == 0:  # the heads of all samples in one dimension
                factors[number], macs = factor[: len(factor) // batch], macs * batch
                break
        self.constraints.macs.append((macs // batch, tuple(factors), step))

    def extents(self, labels: Tensor, dims: Iterable[int]) -> list[tuple[Tensor, int] | Tensor]:
        """The sizes of some dimensions of an activation, for `count`."""
        moving = varying(labels)
        return [
            self.constraints.channels(labels, dim, self.program.steps[self.number]) if dim in moving else (labels, dim)
            for dim in dims
        ]


def _fill(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.step]
    if isinstance(value, (tuple, list)):
        return type(value)(_fill(item, values) for item in value)
    if isinstance(value, Mapping):
        return {key: _fill(item, values) for key, item in value.items()}
    return value


def _holds_pairs(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_pairs(item) for item in value.values())
    return isinstance(value, Pairs) or (isinstance(value, (tuple, list)) and any(_holds_pairs(item) for item in value))


def _without_pairs(value: Any) -> Any:
    """The same values with labels of no channel in place of outer products."""
    if isinstance(value, Pairs):
        return constant_labels(value.shape, NONE)
    if isinstance(value, (tuple, list)):
        return type(value)(_without_pairs(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _without_pairs(item) for key, item in value.items()}
    return value


def _nothing(shape: Any) -> Any:
    if shape is None:
        return None
    if (shape and isinstance(shape[0], tuple)) or (shape and shape[0] is None):
        return tuple(_nothing(item) for item in shape)
    return constant_labels(shape, NONE)
