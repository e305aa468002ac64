"""The inputs of one forward pass: positions, and names where a network asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import Context, register_pytree_node


class Inputs(tuple[Any, ...]):
    """A tuple of positional inputs that holds keyword inputs beside them.

    Attributes:
        named: name -> input.
    """

    named: Mapping[str, Any]

    def __new__(cls, positional: Iterable[Any], named: Mapping[str, Any]) -> Inputs:
        """Both kinds of inputs."""
        self = super().__new__(cls, positional)
        self.named = dict(named)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return tuple(self), self.named


def _flatten(inputs: Inputs) -> tuple[list[Any], Context]:
    return [*inputs, *inputs.named.values()], tuple(inputs.named)


def _unflatten(leaves: Iterable[Any], names: Context) -> Inputs:
    leaves = list(leaves)
    count = len(leaves) - len(names)
    return Inputs(leaves[:count], dict(zip(names, leaves[count:], strict=True)))


register_pytree_node(Inputs, _flatten, _unflatten, serialized_type_name="secateur.Inputs")


def named(example: Sequence[Any]) -> dict[str, Any]:
    """The keyword inputs of an example, none where it is a plain sequence."""
    return dict(example.named) if isinstance(example, Inputs) else {}


def call(model: nn.Module, example: Sequence[Any]) -> Any:
    """The output of a model on its inputs."""
    return model(*example, **named(example))
