"""The inputs of one forward pass: positions, and names where a network asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import Context, register_pytree_node


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
