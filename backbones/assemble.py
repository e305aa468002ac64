"""From constraints to the channel graph: tied labels become one channel, channels with the same places a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones.constraints import Binding, ConstraintSet, FreezeReason, Labels
from backbones.cost_table import CountedOperation, Ints, build_cost_table
from backbones.graph import Activation, ChannelGraph, Fixed, Frozen, Group, Member, TensorMap, owner
from backbones.program import Program, Step

ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "hardtanh",
        "leaky_relu",
        "rrelu",
        "prelu",
        "elu",
        "selu",
        "celu",
        "silu",
        "gelu",
        "hardswish",
        "mish",
        "softplus",
    ]
)
"""Non-linearities whose pre-activation sign makes a linear region code; gates, softmax and pooling don't count."""


MAKERS = ("filter", "both")
"""Roles of a weight's dimension that channels are made of."""


def assemble(
    constraints: ConstraintSet, program: Program, example: tuple[Any, ...], fixed: Fixed, removed: Sequence[str] = ()
) -> ChannelGraph:
    """Builds the channel graph from a settled constraints.

    Args:
        constraints: what the interpretation of `program` wrote down.
        program: the traced forward pass.
        example: its inputs, kept for the check after surgery.
        fixed: layers whose filters stay.
        removed: modules that were bypassed; their parameters no longer count.
    """
    tensors = program.tensors
    roots = constraints.components()
    bindings = list(constraints.bindings.values())
    rooted = [_through(roots, binding.labels) for binding in bindings]
    freezes = [*_unwanted(bindings, fixed), *constraints.freezes]
    free = _free(constraints.count, roots, bindings, rooted, freezes)
    units, sizes, names = _units(constraints.count, bindings, rooted, free)
    alone = np.flatnonzero(np.isin(units, np.cumsum(sizes)[np.array(sizes, dtype=np.int64) == 1] - 1))
    if len(alone):  # nothing to choose among
        step = Step("call", "single", None, (), {}, None, (), "")
        freezes.append(FreezeReason(alone, step, "a single channel, or channels all tied into one"))
        free[alone] = False
        units, sizes, names = _units(constraints.count, bindings, rooted, free)
    positions = [_through(units, vector) for vector in rooted]
    groups = _groups(names, sizes, bindings, positions)
    maps: dict[str, dict[int, Ints]] = {}
    for binding, vector in zip(bindings, positions, strict=True):
        if (vector >= 0).any():
            maps.setdefault(binding.tensor, {})[binding.dim] = vector
    tensor_maps = {name: TensorMap(tensors.shapes[name], dims) for name, dims in maps.items()}
    unit_of = units[roots]
    used = {tensors.names[program.steps[n].op] for n in program.users if program.steps[n].kind == "parameter"}
    layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors.parameters if name in used)
    return ChannelGraph(
        groups=groups,
        frozen=(*_frozen(bindings, rooted, roots, freezes), *_computed(constraints)),
        tensors=tensor_maps,
        costs=build_cost_table(
            sizes, maps, tensors.shapes, _counted_parameters(program, removed), _operations(constraints, unit_of)
        ),
        sized={
            path: _through(unit_of, labels)
            for path, labels in {**constraints.sized, **_counts(bindings, roots, fixed)}.items()
        },
        mixed=_named(constraints.mixed, unit_of, sizes, names),
        heads=_named(constraints.heads, unit_of, sizes, names),
        summed=_named(constraints.summed, unit_of, sizes, names),
        activations=_activations(program),
        layers={layer: tensors.classes[layer] for layer in layers},
        unreached=tuple(name for name in tensors.parameters if name not in used),
        program=program,
        example=example,
        fixed=fixed,
    )


def made_by(bindings: Iterable[Binding], layer: str) -> Labels | None:
    """The channels that a layer makes, None where it makes none."""
    return next((one.labels for one in bindings if one.role in MAKERS and owner(one.tensor) == layer), None)


def spread(labels: Labels, roots: Labels, count: int) -> Labels | None:
    """`count` labels among which each channel is named equally often; None where that cannot be.

    Args:
        labels: the channels that a layer makes, heads once for each position that is theirs.
        roots: label -> the channel that it belongs to.
        count: how many of them an attribute counts.
    """
    if count == len(labels):
        return labels
    if not len(labels) or labels.min() < 0:
        return None
    channels = np.unique(roots[labels])
    return np.repeat(channels, count // len(channels)) if count % len(channels) == 0 else None


def _counts(bindings: Sequence[Binding], roots: Labels, fixed: Fixed) -> dict[str, Labels]:
    """Attributes that hold a number of channels, with as many labels."""
    found = {}
    for attribute, layer, value in (*fixed.sizes, *fixed.heads):
        made = made_by(bindings, layer)
        labels = None if made is None else spread(made, roots, value)
        if labels is not None:
            found[attribute] = labels
    return found


def _operations(constraints: ConstraintSet, unit_of: Ints) -> list[CountedOperation]:
    """The operations that take MACs, with channel units in the place of labels."""
    return [
        CountedOperation(
            constant,
            tuple(size if isinstance(size, tuple) else _through(unit_of, size) for size in sizes),
            step.module,
        )
        for constant, sizes, step in constraints.macs
    ]


def _through(table: Ints, labels: Ints) -> Ints:
    """`table[labels]`, negative labels becoming -1."""
    if not len(table):
        return np.full(len(labels), -1, dtype=np.int64)
    return np.where(labels >= 0, table[np.maximum(labels, 0)], -1)


def _counted_parameters(program: Program, removed: Sequence[str]) -> list[str]:
    """The parameters of the network without the removed modules; one shared with another module still counts."""
    gone = tuple(f"{module}." for module in removed)
    kept = {first for name, first in program.tensors.names.items() if not name.startswith(gone)}
    return [name for name in program.tensors.parameters if name in kept]


def _activations(program: Program) -> tuple[Activation, ...]:
    return tuple(
        Activation(step.op, step.module, step.shape)
        for step in program.steps
        if step.kind == "call" and step.op.removeprefix("aten.").rstrip("_") in ACTIVATIONS
    )


def _named(noted: Sequence[Ints], unit_of: Ints, sizes: Sequence[int], names: Sequence[str]) -> frozenset[str]:
    """The groups that noted labels belong to."""
    units = np.unique(np.concatenate([unit_of[labels[labels >= 0]] for labels in noted] or [np.array([-1])]))
    owners = np.searchsorted(np.cumsum(sizes), units[units >= 0], side="right")
    return frozenset(names[number] for number in owners)


def _unwanted(bindings: Sequence[Binding], fixed: Fixed) -> list[FreezeReason]:
    freezes = []
    failed = {record.layer: record for record in fixed.failed}
    for binding in bindings:
        layer = owner(binding.tensor)
        record = failed.get(layer)
        if binding.role not in MAKERS:
            continue
        if by := fixed.left_out(layer):
            record = Frozen(layer, (), by, layer, "", "left out by ignore or only")
        if record is not None:
            step = Step("call", record.op, None, (), {}, None, (record.module,), record.line)
            freezes.append(FreezeReason(binding.labels[binding.labels >= 0], step, record.reason))
    return freezes


def _free(
    count: int, roots: Ints, bindings: Sequence[Binding], rooted: Sequence[Ints], freezes: Sequence[FreezeReason]
) -> NDArray[np.bool_]:
    """(count,) True at the root of every component that some layer produces and nothing freezes."""
    free = np.zeros(count, dtype=np.bool_)
    for binding, vector in zip(bindings, rooted, strict=True):
        if binding.role in MAKERS:
            free[vector[vector >= 0]] = True
    for freeze in freezes:
        free[roots[freeze.labels]] = False
    return free


def _units(
    count: int, bindings: Sequence[Binding], rooted: Sequence[Ints], free: NDArray[np.bool_]
) -> tuple[Ints, list[int], list[str]]:
    """Numbers the free components so that those with the same places are consecutive.

    Returns:
        unit number per root label (-1: stays), group sizes, group names.
    """
    signature = np.zeros(count, dtype=np.uint64)
    first = np.full(count, -1, dtype=np.int64)
    order = 0
    names: dict[int, str] = {}
    for number, (binding, vector) in enumerate(zip(bindings, rooted, strict=True)):
        places, counts = np.unique(vector[vector >= 0], return_counts=True)
        signature[places] += _mix(np.uint64(number), counts.astype(np.uint64))
        if binding.role in MAKERS:
            new = [root for root in dict.fromkeys(vector.tolist()) if root >= 0 and free[root] and first[root] < 0]
            first[new] = np.arange(order, order + len(new))
            names.update(dict.fromkeys(range(order, order + len(new)), owner(binding.tensor)))
            order += len(new)
    found = np.flatnonzero(first >= 0)
    found = found[np.argsort(first[found])]
    units = np.full(count, -1, dtype=np.int64)
    sizes: list[int] = []
    group_names: list[str] = []
    seen: Counter[str] = Counter()
    start = 0
    members: dict[int, list[int]] = {}
    for root in found:
        members.setdefault(int(signature[root]), []).append(int(root))
    for roots_of_group in members.values():
        units[roots_of_group] = np.arange(start, start + len(roots_of_group))
        start += len(roots_of_group)
        layer = names[int(first[roots_of_group[0]])]
        seen[layer] += 1
        group_names.append(layer if seen[layer] == 1 else f"{layer}#{seen[layer]}")
        sizes.append(len(roots_of_group))
    return units, sizes, group_names


def _mix(number: np.uint64, counts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A well-spread 64-bit hash (splitmix64) of a place and how often it holds the channel."""
    with np.errstate(over="ignore"):
        value = counts * np.uint64(0x9E3779B97F4A7C15) + (number + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def _groups(
    names: Sequence[str], sizes: Sequence[int], bindings: Sequence[Binding], positions: Sequence[Ints]
) -> tuple[Group, ...]:
    starts = np.cumsum([0, *sizes])
    members: list[list[Member]] = [[] for _ in sizes]
    for binding, vector in zip(bindings, positions, strict=True):
        order = np.argsort(vector, kind="stable")
        sorted_units = vector[order]
        owners = np.unique(np.searchsorted(starts, sorted_units[sorted_units >= 0], side="right") - 1)
        for number in owners:
            low, high = np.searchsorted(sorted_units, [starts[number], starts[number + 1]])
            index = order[low:high].reshape(sizes[number], -1)
            members[number].append(Member(binding.tensor, binding.dim, binding.role, index))
    return tuple(Group(name, size, tuple(found)) for name, size, found in zip(names, sizes, members, strict=True))


def _frozen(
    bindings: Sequence[Binding], rooted: Sequence[Ints], roots: Ints, freezes: Sequence[FreezeReason]
) -> tuple[Frozen, ...]:
    """One record per layer and first reason."""
    reason = np.full(len(roots), -1, dtype=np.int64)
    for number, freeze in reversed(list(enumerate(freezes))):
        reason[roots[freeze.labels]] = number
    records = []
    told: set[int] = set()
    for binding, vector in zip(bindings, rooted, strict=True):
        if binding.role not in MAKERS:
            continue
        why = np.where(vector >= 0, reason[np.maximum(vector, 0)], -1)
        for number in dict.fromkeys(why[why >= 0].tolist()):
            freeze = freezes[number]
            channels = np.flatnonzero(why == number)
            new = [int(root) for root in vector[channels] if int(root) not in told]
            told.update(new)
            if new:
                layer = owner(binding.tensor)
                place = tuple(int(channel) for channel in channels)
                op = "output" if freeze.step.kind == "output" else freeze.step.op
                records.append(Frozen(layer, place, op, freeze.step.module, freeze.step.line, freeze.reason))
    return tuple(records)


def _computed(constraints: ConstraintSet) -> list[Frozen]:
    """One record per layer whose weight is no parameter."""
    records = {
        step.module: Frozen(step.module, tuple(range(outputs)), step.op, step.module, step.line, reason)
        for step, outputs, reason in constraints.computed
        if step.module
    }
    return list(records.values())
