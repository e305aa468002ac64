"""Attributes in which code keeps a number of channels, `self.c` of `x.view(b, self.c, -1)`: surgery has to set them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from backbones.assemble import made_by
from backbones.constraints import ConstraintSet
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Frozen, owner

SizeAttributes = tuple[tuple[str, str], ...]
"""(path of an attribute, layer whose channels it counts)."""


def check_size_attributes(model: nn.Module, constraints: ConstraintSet, sizes: SizeAttributes) -> None:
    """Checks what the user says of attributes.

    Raises:
        SecateurError: for an attribute that is no whole number, a layer that makes no channels, or another number.
    """
    for attribute, layer in sizes:
        path, _, name = attribute.rpartition(".")
        modules = dict(model.named_modules())
        value = getattr(modules.get(path), name, None)
        if type(value) is not int:
            raise SecateurError(f"sizes: {attribute!r} is no attribute of the network that holds a whole number")
        made = made_by(constraints.bindings.values(), layer)
        if made is None:
            raise SecateurError(f"sizes: {layer!r} is no layer that makes channels; name one such as 'layer1.conv1'")
        if len(made) != value:
            raise SecateurError(f"sizes: {attribute} is {value}, but {layer} makes {len(made)} channels")


def fitting_attributes(model: nn.Module, graph: ChannelGraph, failed: Sequence[Frozen]) -> SizeAttributes:
    """The attributes of the user's modules whose value is a number of channels of one group alone, one that failed.

    Args:
        model: the network.
        graph: with all groups that may be pruned.
        failed: the groups that a trial pruning found not to be, maybe because such an attribute kept its value.
    """
    makers: dict[int, dict[str, str]] = {}
    for group in graph.groups:
        for member in group.filters:
            makers.setdefault(graph.tensors[member.tensor].shape[member.dim], {})[group.name] = owner(member.tensor)
    names = {record.module for record in failed}
    found = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch."):
            continue
        for name, value in _numbers(module).items():
            fitting = makers.get(value, {})
            if len(fitting) == 1 and fitting.keys() <= names:
                found.append((f"{path}.{name}".removeprefix("."), next(iter(fitting.values()))))
    return tuple(found)


def _numbers(module: nn.Module) -> Mapping[str, int]:
    return {name: value for name, value in vars(module).items() if type(value) is int and not name.startswith("_")}
