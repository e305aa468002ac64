"""What a traced network asks of its channels: which are kept or dropped together, where they live, which must stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from backbones.graph import Role
from backbones.labels import NONE, UNIFORM, compact, compress, varying
from backbones.program import Step

Labels = NDArray[np.int64]
"""Channel labels, outside of label tensors: negative ones name no channel (`labels.NONE`, `labels.UNIFORM`)."""


@dataclass(slots=True, eq=False)
class Binding:
    """Which channels own the positions of one dimension of one parameter or buffer.

    Attributes:
        tensor: name in the model's state dict.
        dim: number of the dimension.
        role: what the dimension is to its layer, see `graph.Member`.
        labels: (size of the dimension,) channel label of each position; negative: always stays.
    """

    tensor: str
    dim: int
    role: Role
    labels: Labels


@dataclass(frozen=True, slots=True)
class FreezeReason:
    """Channels that may not be pruned, and why.

    Attributes:
        labels: the labels of these channels.
        step: the operation that cannot do with fewer of them.
        reason: one short sentence.
    """

    labels: Labels
    step: Step
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class DeferredTie:
    """An activation whose labels may change along several dimensions; at the end it is known whether they do.

    Attributes:
        labels: the activation's label tensor.
        shrinks: the one dimension that may then get smaller; labels that share a position in it are united.
        step: the operation that made the activation.
    """

    labels: Tensor
    shrinks: int
    step: Step


@dataclass(frozen=True, slots=True, eq=False)
class DeferredBinding:
    """A parameter combined element by element with an activation; at the end it is known which dimension has channels.

    Attributes:
        tensor: name of the parameter.
        shape: the parameter's shape.
        labels: label tensor that the parameter is broadcast to.
        step: the operation that combines them.
    """

    tensor: str
    shape: tuple[int, ...]
    labels: Tensor
    step: Step


@dataclass(frozen=True, slots=True, eq=False)
class DeferredFreeze:
    """Channels that must stay if their labels change along some dimensions once all ties are known.

    Inside one attention head all labels are one in the end: then what an operation does there is not done to channels.

    Attributes:
        labels: label tensor of an activation.
        dims: dimensions of it that the operation cannot follow channels along.
        reason: the operation and why, with all channels in `labels`.
    """

    labels: Tensor
    dims: tuple[int, ...]
    reason: FreezeReason


@dataclass(slots=True, eq=False)
class ConstraintSet:
    """All that an interpretation of a traced network finds out about its channels.

    A channel starts as a new label where a layer makes it. Labels that must be kept or dropped together are tied;
    once all ties are known, the components of tied labels are the channels to choose among.

    Attributes:
        count: number of labels given out so far; they are 0 to `count` - 1.
        ties: pairs of arrays of equal length: the labels at the same place are united.
        bindings: (parameter or buffer, dimension) -> the channels that live there.
        freezes: channels that must stay.
        deferred_ties, deferred_bindings, deferred_freezes: what `settle` decides once every tie is known.
        statistics: (label tensor, dimensions) of what layer or group statistics are taken over.
        mixed: labels whose values layer or group statistics mix, known after `settle`.
        summed: labels that something without weights sums over.
        sized: module without a tensor to read its channel count from -> labels of its channels.
        macs: (constant, sizes, step) of each counted operation: its MACs are the product of the constant and the sizes,
            which are (parameter, dimension), or the label of each position of an activation's dimension.
        computed: (step, number of outputs, reason) of each layer whose weight is no parameter: it makes no channels.
        assumed: (step number, labels) of steps that were read in a way their code need not mean.
        values: (first, end) of labels that name elements of parameters and constants, which no layer makes.
        heads: the label of each attention head, once for each of its queries, keys and values.
    """

    count: int = 0
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    bindings: dict[tuple[str, int], Binding] = field(default_factory=dict)
    freezes: list[FreezeReason] = field(default_factory=list)
    deferred_ties: list[DeferredTie] = field(default_factory=list)
    deferred_bindings: list[DeferredBinding] = field(default_factory=list)
    deferred_freezes: list[DeferredFreeze] = field(default_factory=list)
    statistics: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)
    mixed: list[Labels] = field(default_factory=list)
    summed: list[Labels] = field(default_factory=list)
    sized: dict[str, Labels] = field(default_factory=dict)
    macs: list[tuple[int, tuple[tuple[str, int] | Labels, ...], Step]] = field(default_factory=list)
    computed: list[tuple[Step, int, str]] = field(default_factory=list)
    assumed: list[tuple[int, Labels]] = field(default_factory=list)
    values: list[tuple[int, int]] = field(default_factory=list)
    heads: list[Labels] = field(default_factory=list)

    def new_labels(self, count: int) -> Tensor:
        """(count,) labels that no channel has yet."""
        start, self.count = self.count, self.count + count
        return torch.arange(start, start + count)

    def new_values(self, shape: Sequence[int]) -> Tensor:
        """A new label for each element of a parameter or constant."""
        start = self.count
        labels = self.new_labels(math.prod(shape)).reshape(tuple(shape))
        self.values.append((start, self.count))
        return labels

    def is_value(self, labels: Tensor) -> bool:
        """Whether the first label of a tensor names an element of a parameter or constant."""
        first = int(compact(labels).reshape(-1)[0])
        return any(start <= first < end for start, end in self.values)

    def freeze(self, labels: Tensor, step: Step, reason: str) -> None:
        """Notes that every channel named in a label tensor must stay."""
        named = _named(labels)
        if len(named):
            self.freezes.append(FreezeReason(named, step, reason))

    def freeze_along(self, labels: Tensor, dims: Sequence[int], step: Step, reason: str) -> None:
        """Freezes the channels of a label tensor if, in the end, it changes along one of some dimensions."""
        named = _named(labels)
        if len(named):
            self.deferred_freezes.append(DeferredFreeze(labels, tuple(dims), FreezeReason(named, step, reason)))

    def assume(self, number: int, labels: Tensor) -> None:
        """Notes that step `number` was read in a way that its code need not mean; a trial pruning decides."""
        self.assumed.append((number, _named(labels)))

    def note_mixed(self, labels: Tensor, dims: Sequence[int]) -> None:
        """Notes that statistics are taken over some dimensions: channels along them change each other's values."""
        self.statistics.append((labels, tuple(dim % labels.ndim for dim in dims)))

    def note_summed(self, labels: Tensor) -> None:
        """Notes that something without weights sums over these channels: dropping one counts as zero there."""
        self.summed.append(_named(labels))

    def tie(self, left: Tensor, right: Tensor, step: Step) -> None:
        """Unites labels of equal shape position by position. A channel that meets an element without one is frozen."""
        pair = np.stack([left.reshape(-1).numpy(), right.reshape(-1).numpy()])
        pair = pair[:, pair[0] != pair[1]]
        both = (pair >= 0).all(0)
        if both.any():
            self.ties.append((pair[0, both], pair[1, both]))
        fixed = pair[:, (pair == NONE).any(0)].max(0, initial=NONE)
        if (fixed >= 0).any():
            self.freeze(torch.from_numpy(fixed), step, "coupled with values that always stay (input, constant)")

    def channels(self, labels: Tensor, dim: int, step: Step) -> Tensor:
        """(size of dim,) one label per position along `dim`; labels that share a position are united."""
        dim %= labels.ndim
        rows = compact(compress(labels)).movedim(dim, 0)
        rows = rows.reshape(rows.shape[0], -1)
        first = rows[:, 0]
        for column in torch.unique(rows[:, 1:], dim=1).T if rows.shape[1] > 1 else ():
            self.tie(first, column, step)
        return first.expand(labels.shape[dim]).contiguous()

    def bind(self, tensor: str, dim: int, role: Role, labels: Tensor, step: Step) -> Tensor:
        """Says which channel owns each position of a tensor's dimension; returns the labels to go on with.

        A dimension bound before (shared modules, tied weights) unites the old labels with the new.
        """
        known = self.bindings.get((tensor, dim))
        if known is None:
            self.bindings[tensor, dim] = Binding(tensor, dim, role, labels.numpy().copy())
            return labels
        before = torch.from_numpy(known.labels)
        self.tie(before, labels, step)
        if {role, known.role} >= {"filter", "input"} or "both" in (role, known.role):
            known.role = "both"
        elif role == "filter":
            known.role = "filter"
        return before

    def components(self) -> Labels:
        """(count,) the smallest label united with each."""
        if not self.ties:
            return np.arange(self.count)
        left = np.concatenate([pair[0] for pair in self.ties])
        right = np.concatenate([pair[1] for pair in self.ties])
        links = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(self.count, self.count))
        count, component = connected_components(links, directed=False)
        smallest = np.full(count, self.count, dtype=np.int64)
        np.minimum.at(smallest, component, np.arange(self.count))
        found: Labels = smallest[component]
        return found

    def settle(self) -> None:
        """Decides the deferred ties and bindings, once every other tie is known."""
        roots, changed = self.components(), True
        while changed:
            changed = False
            for tied in self.deferred_ties:
                labels = compress(_filled(_rooted(tied.labels, roots)))
                if len(varying(labels)) > 1:
                    before = len(self.ties)
                    self.channels(labels, tied.shrinks, tied.step)
                    if len(self.ties) > before:
                        roots, changed = self.components(), True
        for bound in self.deferred_bindings:
            labels = compress(_rooted(bound.labels, roots))
            moving = varying(labels)
            if len(moving) > 1:
                self.freeze(labels, bound.step, f"parameter {bound.tensor} mixes channels along several dimensions")
            for dim in moving:
                position = dim - (labels.ndim - len(bound.shape))
                if len(moving) == 1 and position >= 0 and bound.shape[position] > 1:
                    vector = compact(labels).reshape(-1)
                    self.bind(bound.tensor, position, "vector", vector, bound.step)
        roots = self.components()
        for found in self.deferred_freezes:
            moving = varying(_rooted(found.labels, roots))
            if not moving or set(moving) & set(found.dims):
                self.freezes.append(found.reason)
        for labels, dims in self.statistics:
            if set(varying(_rooted(labels, roots))) & set(dims):
                self.mixed.append(_named(labels))


def _named(labels: Tensor) -> Labels:
    """The channels in a label tensor, each once."""
    found = np.unique(compact(labels).numpy())
    return found[found >= 0]


def _filled(labels: Tensor) -> Tensor:
    """The same labels, those of zeros and the like along a dimension replaced by the one that all others have there."""
    small = compact(labels)
    for dim in range(small.ndim) if bool((small == UNIFORM).any()) else ():
        top = small.amax(dim, keepdim=True)
        if bool(((small == top) | (small == UNIFORM)).all()):
            small = top
    return small.expand(labels.shape)


def _rooted(labels: Tensor, roots: Labels) -> Tensor:
    small = compact(labels)
    values = torch.from_numpy(np.append(roots, [0, 0]))[small.clamp(min=-1)]
    return torch.where(small >= 0, values, small).expand(labels.shape)
