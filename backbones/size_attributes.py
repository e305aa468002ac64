"""Attributes in which code keeps a number of channels or of attention heads: surgery has to set them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from torch import nn

from backbones.assemble import made_by, spread
from backbones.constraints import ConstraintSet
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Frozen, Group, SizeAttribute, owner

SizeAttributes = tuple[SizeAttribute, ...]
MOST_TRIED = 4
"""Of up to so many attributes that fit the same heads every choice is tried; of more, all are set or none."""


def declared_attributes(model: nn.Module, sizes: Mapping[str, str]) -> SizeAttributes:
    """What the user says of attributes, with their values.

    Raises:
        SecateurError: for an attribute that is no whole number.
    """
    modules = dict(model.named_modules())
    found = []
    for attribute, layer in sizes.items():
        path, _, name = attribute.rpartition(".")
        value = getattr(modules.get(path), name, None)
        if type(value) is not int:
            raise SecateurError(f"sizes: {attribute!r} is no attribute of the network that holds a whole number")
        found.append((attribute, layer, value))
    return tuple(found)


def check_size_attributes(constraints: ConstraintSet, sizes: SizeAttributes) -> None:
    """Checks attributes against the channels that their layers make, or the attention heads these are.

    Raises:
        SecateurError: for a layer that makes no channels, or another number.
    """
    roots = constraints.components() if sizes else None
    for attribute, layer, value in sizes:
        made = made_by(constraints.bindings.values(), layer)
        if made is None:
            raise SecateurError(f"sizes: {layer!r} is no layer that makes channels; name one such as 'layer1.conv1'")
        assert roots is not None
        heads = value > 0 and len(made) % value == 0 and (value == 1 or spread(made, roots, value) is not None)
        if len(made) != value and not heads:
            raise SecateurError(f"sizes: {attribute} is {value}, but {layer} makes {len(made)} channels")


def fitting_attributes(model: nn.Module, graph: ChannelGraph, failed: Sequence[Frozen]) -> SizeAttributes:
    """The attributes of the user's modules whose value is a number of channels of one group alone, one that failed.

    Args:
        model: the network.
        graph: with all groups that may be pruned.
        failed: the groups that a trial pruning found not to be, maybe because such an attribute kept its value.
    """
    makers: dict[int, dict[str, str]] = {}
    units: dict[int, dict[str, str]] = {}  # where a layer makes several of each: recurrent layers, one for each gate
    for group in graph.groups:
        for member in group.filters:
            makers.setdefault(graph.tensors[member.tensor].shape[member.dim], {})[group.name] = owner(member.tensor)
            units.setdefault(group.size, {})[group.name] = owner(member.tensor)
    names = {record.module for record in failed} - graph.heads
    found = []
    for path, module in model.named_modules():
        for name, value in _numbers(module).items():
            fitting = makers.get(value) or units.get(value, {})
            if len(fitting) == 1 and fitting.keys() <= names:
                found.append((f"{path}.{name}".removeprefix("."), next(iter(fitting.values())), value))
    return tuple(found)


class HeadAttributes:
    """Which attributes to set with the number of attention heads, found by trial: all that fit, then fewer of them."""

    def __init__(self, model: nn.Module) -> None:
        """Nothing tried yet."""
        self.modules = dict(model.named_modules())
        self.left: dict[str, Iterator[SizeAttributes]] = {}
        self.chosen: dict[str, SizeAttributes] = {}

    def begin(self, graph: ChannelGraph, constraints: ConstraintSet) -> SizeAttributes:
        """What to set for the heads of a graph."""
        for group in graph.groups:
            if group.name in graph.heads and group.name not in self.left:
                self.left[group.name] = _subsets(self._fitting(graph, group, constraints))
                self.chosen[group.name] = next(self.left[group.name])
        return tuple(dict.fromkeys(one for chosen in self.chosen.values() for one in chosen))

    def retry(self, failed: Sequence[Frozen]) -> bool:
        """Goes on to what else may be set for groups that failed; whether there is anything for one of them."""
        again = False
        for record in failed:
            chosen = next(self.left.get(record.module, iter(())), None)
            self.chosen[record.module] = chosen or ()
            again |= chosen is not None
        return again

    def _fitting(self, graph: ChannelGraph, group: Group, constraints: ConstraintSet) -> SizeAttributes:
        """Around each layer that makes the heads: the numbers of the innermost module with one that fits."""
        whole = [one for one in group.members if graph.tensors[one.tensor].shape[one.dim] == one.index.size]
        counts = {group.size, *(one.index.size for one in whole), *_stacks(graph, group, constraints)}
        made = [owner(one.tensor) for one in whole if one.role in ("filter", "both")]
        others = {owner(one.tensor) for other in graph.groups if other.name in graph.heads for one in other.filters}
        found: dict[str, SizeAttribute] = {}
        for layer in made:
            path = layer
            while path:
                path = path.rpartition(".")[0]
                inside = f"{path}." if path else ""
                if any(other.startswith(inside) for other in others - {*made}):
                    break
                numbers = {name: value for name, value in _numbers(self.modules[path]).items() if value in counts}
                found.update({f"{inside}{name}": (f"{inside}{name}", layer, value) for name, value in numbers.items()})
                if numbers:
                    break
        return tuple(found.values())


def _stacks(graph: ChannelGraph, group: Group, constraints: ConstraintSet) -> set[int]:
    """The numbers of matrices in the stacks whose labels are those of a group's heads."""
    roots = constraints.components()
    bound = constraints.bindings[group.members[0].tensor, group.members[0].dim].labels
    own = {*roots[bound[group.members[0].index.reshape(-1)]].tolist()}
    return {len(one) for one in constraints.heads if one.min() >= 0 and {*roots[one].tolist()} <= own}


def _subsets(found: SizeAttributes) -> Iterator[SizeAttributes]:
    """All of them first, none last."""
    if len(found) > MOST_TRIED:
        return iter((found, ()))
    return (chosen for count in range(len(found), -1, -1) for chosen in combinations(found, count))


def _numbers(module: nn.Module) -> Mapping[str, int]:
    """The whole numbers that a module of the user's holds."""
    if type(module).__module__.startswith("torch."):
        return {}
    return {name: value for name, value in vars(module).items() if type(value) is int and not name.startswith("_")}
