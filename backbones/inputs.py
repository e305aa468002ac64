"""What goes into a forward pass and what comes out: positions and names, and the tensors inside nested containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import Context, register_pytree_node, tree_leaves, tree_map


class NamedInputs(tuple[Any, ...]):
    """A tuple of positional inputs that holds keyword inputs beside them.

    Attributes:
        named: name -> input.
    """

    named: Mapping[str, Any]

    def __new__(cls, positional: Iterable[Any], named: Mapping[str, Any]) -> NamedInputs:
        """Both kinds of inputs."""
        self = super().__new__(cls, positional)
        self.named = dict(named)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return tuple(self), self.named


def _flatten(inputs: NamedInputs) -> tuple[list[Any], Context]:
    return [*inputs, *inputs.named.values()], tuple(inputs.named)


def _unflatten(leaves: Iterable[Any], names: Context) -> NamedInputs:
    leaves = list(leaves)
    count = len(leaves) - len(names)
    return NamedInputs(leaves[:count], dict(zip(names, leaves[count:], strict=True)))


register_pytree_node(NamedInputs, _flatten, _unflatten, serialized_type_name="secateur.NamedInputs")


def named(example: Sequence[Any]) -> dict[str, Any]:
    """The keyword inputs of an example, none where it is a plain sequence."""
    return dict(example.named) if isinstance(example, NamedInputs) else {}


def output_of(model: nn.Module, example: Sequence[Any]) -> Any:
    """The output of a model on its inputs."""
    return model(*example, **named(example))


def as_arguments(inputs: Any) -> tuple[Any, ...]:
    """The inputs of a batch as arguments: a tuple or list by position, a dictionary by name, all else is the only one.

    A network that takes a whole dictionary as one argument is given `({...},)`.
    """
    if isinstance(inputs, Mapping):
        return NamedInputs((), inputs)
    if isinstance(inputs, tuple):
        return inputs
    return tuple(inputs) if isinstance(inputs, list) else (inputs,)


def run_on(model: nn.Module, inputs: Any) -> Any:
    """The output of a model on the inputs of a batch (`as_arguments`)."""
    return output_of(model, as_arguments(inputs))


def map_tensors(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same tree with every tensor changed, also in dataclasses."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
            return dataclasses.replace(value, **{name: map_tensors(change, part) for name, part in parts.items()})
        return value

    return tree_map(leaf, tree)


def without_dataclasses(tree: Any) -> Any:
    """The same tree with dictionaries of those fields that hold tensors in the place of dataclasses.

    Torch's pytree takes no dataclass apart that was not registered.
    """

    def leaf(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {one.name: without_dataclasses(getattr(value, one.name)) for one in dataclasses.fields(value)}
            return {
                name: part for name, part in parts.items() if any(isinstance(one, Tensor) for one in tree_leaves(part))
            }
        return value

    return tree_map(leaf, tree)


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of a tree, also in dataclasses, in order."""
    return [leaf for leaf in tree_leaves(without_dataclasses(tree)) if isinstance(leaf, Tensor)]


def move_tensors(tree: Any, device: torch.device | str) -> Any:
    """The same tree with its tensors on a device."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), tree)


def sample_count(inputs: Any) -> int:
    """Samples in the inputs of a batch: the length of the first tensor that has one; 0 without such a tensor."""
    return next((len(tensor) for tensor in tensors_in(inputs) if tensor.ndim), 0)


def first_samples(tree: Any, size: int) -> Any:
    """The first `size` samples of the inputs of a batch, as views."""
    return map_tensors(lambda tensor: tensor[:size] if tensor.ndim else tensor, tree)


def pick_samples(tree: Any, which: range) -> Any:
    """The samples of a range of numbers, as views."""
    return map_tensors(lambda tensor: tensor[which.start : which.stop] if tensor.ndim else tensor, tree)


def split_samples(inputs: Any, size: int) -> list[Any]:
    """The inputs of a batch as smaller ones of `size` samples, the last of what is left, as views."""
    total = sample_count(inputs)
    return [pick_samples(inputs, range(start, start + size)) for start in range(0, total, size)]
