"""Which channels the others can stand in for: an order of every group's channels, and the error at every width.

From the dense network's moments alone: channels are dropped one after the other, always the one that raises the error
least, summed over all layers that read the group, each relative to its own output. The layers are taken as refitted to
the channels that are left, so that of two equal channels one goes for nothing. A step is a rank-one downdate (optimal
brain surgeon, Hassibi and Stork, 1993, on channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group, Index, Member
from scoring.channel_weights import Floats
from scoring.reconstruction.grams import InputGram, depthwise, gather_grams
from scoring.reconstruction.layers import REFITTABLE, TRANSPOSED, refit_layers
from scoring.reconstruction.patches import parts, weight_matrix
from scoring.reconstruction.ridge import FLOAT64_UNKNOWNS, cholesky
from scoring.reconstruction.targets import ROWS

ORDER_RIDGE = 1e-3
"""Relative to the mean diagonal of the Gram; more where there are few rows for the channels."""
BLOCK = 32
"""Downdates that are put off and then made together."""
LEAST_STEP = 1e-12
"""Channels next to each other in the order differ by at least this share of the whole error, so that none are equal."""
LEAST_SHARE = 1e-12
"""No downdate takes more of a diagonal than all but this share: what is less is rounding."""


@dataclass(eq=False)
class Readers:
    """What the layers that read one group make of its n channels.

    Attributes:
        size: n.
        inverse: for each layer that is refitted (n, n), the channels' part of the inverse of its Gram.
        weights: for each such layer (n, n), products of the weights that read the channels, over the layer's energy.
        as_cut: (n, n) sum over the other layers: error of leaving out two channels together, over the layer's energy.
        seen: whether any layer was looked at.
    """

    size: int
    inverse: list[Floats] = field(default_factory=list)
    weights: list[Floats] = field(default_factory=list)
    as_cut: Floats = field(init=False)
    seen: bool = False

    def __post_init__(self) -> None:
        self.as_cut = np.zeros((self.size, self.size))

    def note(self, moments: _Moments, weight: Floats, index: Index, *, refitted: bool) -> None:
        """Adds a layer.

        Args:
            moments: of its inputs.
            weight: (channels, …) what reads each input.
            index: (n, width) which inputs are the group's.
            refitted: whether the layer is.
        """
        self.seen = True
        second = moments.block(index)
        picked = weight[index].reshape(self.size, -1)
        products = (picked @ picked.T).astype(np.float64)
        energy = max(moments.energy(weight), float((products * second).sum()))
        if not 0 < energy < np.inf:
            return  # a layer that gives nothing, or one constant
        if refitted:
            self.inverse.append(moments.inverse(index))
            self.weights.append(products / energy)
        else:
            self.as_cut += products * second / energy


@dataclass(eq=False)
class _Moments:
    """Second moments of one part of a layer's input, by their products or by the rows themselves.

    Attributes:
        second: (channels, channels) mean products; None where there are more channels than rows.
        rows: (count, channels) otherwise.
        ridge: relative to the mean diagonal.
    """

    second: Floats | None
    rows: Floats | None
    ridge: float

    @staticmethod
    def of(gram: InputGram, part: int, *, centred: bool, ridge: float) -> _Moments:
        if gram.rows is not None:
            return _Moments(None, gram.sampled(centred)[part].double().cpu().numpy(), ridge)
        return _Moments(gram.second(centred)[part].cpu().numpy(), None, ridge)

    @cached_property
    def shift(self) -> float:
        """The ridge in units of the moments; 1 where all of them are 0."""
        values = np.diagonal(self.second) if self.second is not None else np.square(self.rows)  # type: ignore[arg-type]
        return float(np.mean(values)) * self.ridge or 1.0

    @cached_property
    def whole_inverse(self) -> Floats:
        """(channels, channels) inverse of the ridged products; of (count, count) for rows."""
        if self.second is not None:
            return _inverse(self.second, self.shift)
        assert self.rows is not None
        return _inverse(self.rows @ self.rows.T / len(self.rows), self.shift)

    def energy(self, weight: Floats) -> float:
        """Mean square of what (channels, …) weights give."""
        if self.second is not None:
            return float(np.sum(weight * (self.second.astype(weight.dtype) @ weight)))
        assert self.rows is not None
        return float(np.sum((self.rows.astype(weight.dtype) @ weight) ** 2)) / len(self.rows)

    def block(self, index: Index) -> Floats:
        """(n, n) products of n channels, mean over their (n, width) inputs."""
        if self.second is not None:
            return np.asarray(np.mean([self.second[np.ix_(at, at)] for at in index.T], axis=0))
        assert self.rows is not None
        picked = self.rows[:, index].swapaxes(1, 2).reshape(-1, len(index))
        return picked.T @ picked / len(picked)

    def inverse(self, index: Index) -> Floats:
        """(n, n) the channels' part of the inverse; with several inputs a channel, of the channels' own products."""
        if index.shape[1] > 1:
            return _inverse(self.block(index), self.shift)
        at = index[:, 0]
        if self.second is not None:
            return self.whole_inverse[np.ix_(at, at)]
        assert self.rows is not None
        picked = self.rows[:, at]
        explained = picked.T @ (self.whole_inverse @ picked) / len(picked)
        return (np.eye(len(at)) - explained) / self.shift


def _inverse(products: Floats, shift: float) -> Floats:
    """The inverse of products + shift I, whatever the products hold."""
    factor = cholesky(torch.from_numpy(products)[None], torch.tensor([shift]))
    if factor is None:
        return np.eye(len(products)) / (shift + np.abs(np.diagonal(products)))
    return np.asarray(torch.cholesky_inverse(factor[0][0]).numpy(), dtype=np.float64)


def channel_errors(
    model: nn.Module, graph: ChannelGraph, images: Any, *, rows: int = ROWS, ridge: float = ORDER_RIDGE
) -> dict[str, Floats]:
    """Per group (n,) the relative error, summed over the layers that read the group, at which each channel goes.

    Sorted by it, largest first, the first k channels are those to keep, and the value at place k is the error with
    k channels kept. Other groups' channels in a layer's input stay. A layer that is not refitted counts with the error
    of leaving the channel out. Of a group that no convolution or linear layer reads (but, say, a module with
    weights of its own) the channels themselves have to be made up for, as the layers give them that make them.

    Args:
        model: the traced network; not changed.
        graph: of `trace`.
        images: as `gather_grams` takes them.
        rows: positions a layer.
        ridge: relative to the mean diagonal of the Gram.

    Raises:
        SecateurError: as `gather_grams`; for a group that no convolution or linear layer reads or makes.
    """
    readers = channel_readers(model, graph, images, rows=rows, ridge=ridge)
    with threadpool_limits(1):
        return {name: drop_in_order(found) for name, found in readers.items()}


def channel_readers(
    model: nn.Module, graph: ChannelGraph, images: Any, *, rows: int = ROWS, ridge: float = ORDER_RIDGE
) -> dict[str, Readers]:
    """Per group what the layers that read it make of its channels: what `channel_errors` orders them by.

    Arguments and errors as for `channel_errors`.
    """
    read = {group.name: _watched(model, group.inputs, makes=False) for group in graph.groups}
    grams = gather_grams(model, graph, images, rows=rows)
    readers = {group.name: Readers(group.size) for group in graph.groups}
    refitted = refit_layers(model, graph)[0]
    with threadpool_limits(1):
        for path, gram in grams.inputs.items():
            members = {name: found[path] for name, found in read.items() if path in found}
            centred = refitted[path].centred if path in refitted else None
            if members:
                _note_readers(model.get_submodule(path), gram, members, centred, ridge, readers)
        unread = [group for group in graph.groups if not readers[group.name].seen]
        if unread:
            _note_makers(unread, model, graph, images, rows, ridge, readers)
    return readers


def _watched(model: nn.Module, members: Sequence[Member], *, makes: bool) -> dict[str, Member]:
    """Module path -> member, for convolutions and linear layers that read the channels, or make them."""
    found = {}
    for member in members:
        module = model.get_submodule(member.layer)
        if isinstance(module, REFITTABLE) and member.tensor == f"{member.layer}.weight":
            makers = (0, 1) if depthwise(module) else (1,) if isinstance(module, TRANSPOSED) else (0,)
            if (member.dim in makers) == makes:
                found[member.layer] = member
    return found


def _note_readers(
    module: nn.Module,
    gram: InputGram,
    members: Mapping[str, Member],
    centred: bool | None,
    ridge: float,
    readers: Mapping[str, Readers],
) -> None:
    """Notes for each group what one layer makes of it; centred is None for a layer that is not refitted."""
    weight = _reading_weights(module, gram)
    for part in range(len(weight)):
        moments = _Moments.of(gram, part, centred=bool(centred), ridge=ridge)
        for name, member in members.items():
            index = _inputs(module, gram, member)
            readers[name].note(moments, weight[part], index, refitted=centred is not None)


def _reading_weights(module: nn.Module, gram: InputGram) -> Floats:
    """(parts, channels, taps x outputs) the weights that read each channel; behind a flatten its positions are taps."""
    weight, channels = module.weight, gram.mean.shape[1]
    assert isinstance(weight, Tensor)
    weight = weight.detach().to("cpu", torch.float64 if channels <= FLOAT64_UNKNOWNS else torch.float32)
    if gram.places is not None:
        return weight[:, gram.places].permute(1, 2, 0).reshape(1, channels, -1).numpy()
    matrix = weight_matrix(module, weight)
    groups, _, outputs = matrix.shape
    matrix = matrix.reshape(groups, -1, channels, outputs).movedim(1, 2)
    return matrix.reshape(groups, channels, -1).numpy()


def _inputs(module: nn.Module, gram: InputGram, member: Member) -> Index:
    """(n, width) which of the inputs of a part of the layer are the group's channels."""
    if gram.places is not None:
        channel = np.argsort(gram.places.numpy().ravel(), kind="stable") // gram.places.shape[1]
        return channel[member.index[:, :1]]
    if isinstance(module, TRANSPOSED):  # the same places in every part
        return member.index[:, : member.index.shape[1] // parts(module)]
    return member.index


def _note_makers(
    groups: Sequence[Group],
    model: nn.Module,
    graph: ChannelGraph,
    images: Any,
    rows: int,
    ridge: float,
    readers: Mapping[str, Readers],
) -> None:
    """Notes for groups that no layer reads what the layers give that make them.

    Raises:
        SecateurError: where none ran.
    """
    makers = {group.name: _watched(model, group.filters, makes=True) for group in groups}
    wanted = frozenset(path for found in makers.values() for path in found)
    grams = gather_grams(model, graph, images, rows=rows, outputs=wanted).outputs
    for name, found in makers.items():
        for path, member in found.items():
            if path in grams:
                moments = _Moments.of(grams[path], 0, centred=True, ridge=ridge)
                index = _outputs(model.get_submodule(path), member)
                readers[name].note(moments, np.eye(grams[path].mean.shape[1]), index, refitted=True)
        if not readers[name].seen:
            raise SecateurError(
                f"criterion 'reconstruction' needs a convolution or linear layer that reads or makes the channels, but "
                f"group {name!r} has none that ran; take another criterion or leave it out with trace(..., ignore=...)"
            )


def _outputs(module: nn.Module, member: Member) -> Index:
    """(n, width) the positions of the channels in what a layer gives."""
    if not isinstance(module, TRANSPOSED):
        return member.index
    groups, each = parts(module), module.out_channels // parts(module)
    if depthwise(module):
        return (member.index[..., None] * each + np.arange(each)).reshape(len(member.index), -1)
    return (member.index[..., None] + np.arange(groups) * each).reshape(len(member.index), -1)


def drop_in_order(readers: Readers) -> Floats:
    """(n,) the error at which each channel goes when always the one goes that raises it least.

    Without channel j a refitted layer loses G_jj / P_jj, where P is the inverse of the Gram of the channels that are
    left and G holds products of the refitted weights; both change by rank one and two.
    """
    size, count = readers.size, len(readers.inverse)
    inverse = np.stack(readers.inverse) if count else np.zeros((0, size, size))
    weights = np.stack(readers.weights) if count else np.zeros((0, size, size))
    diagonals = [np.diagonal(each, axis1=1, axis2=2).copy() for each in (inverse, weights)]
    inverse_at, weights_at, cut = *diagonals, np.diagonal(readers.as_cut).copy()
    left = np.arange(size)  # which channels the rows are
    order: list[int] = []
    errors: list[float] = []
    total = 0.0
    while len(left):
        gone = np.zeros(len(left), dtype=np.bool_)
        steps = min(BLOCK, len(left))
        root, turn, half = (np.zeros((count, steps, len(left))) for _ in range(3))
        for step in range(steps):
            rise = np.where(gone, np.inf, (weights_at / inverse_at).sum(0) + cut)
            j = int(rise.argmin())
            total += max(float(rise[j]), 0.0)
            order.append(int(left[j]))
            errors.append(total)
            gone[j] = True
            p = inverse[:, j] - np.einsum("rbn,rb->rn", root, root[:, :, j])
            g = weights[:, j] - np.einsum("rbn,rb->rn", turn, half[:, :, j])
            g -= np.einsum("rbn,rb->rn", half, turn[:, :, j])
            root[:, step] = p / np.sqrt(inverse_at[:, j : j + 1])
            turn[:, step] = p / inverse_at[:, j : j + 1]
            half[:, step] = g - turn[:, step] * weights_at[:, j : j + 1] / 2
            weights_at = np.maximum(weights_at - 2 * turn[:, step] * half[:, step], 0.0)
            inverse_at = np.maximum(inverse_at - root[:, step] ** 2, inverse_at * LEAST_SHARE)
            cut += 2 * readers.as_cut[left[j], left]
        stay = ~gone
        inverse = _rest(inverse - root.swapaxes(1, 2) @ root, stay)
        weights = _rest(weights - turn.swapaxes(1, 2) @ half - half.swapaxes(1, 2) @ turn, stay)
        inverse_at, weights_at, cut, left = inverse_at[:, stay], weights_at[:, stay], cut[stay], left[stay]
    worth = np.zeros(size)
    worth[order] = np.asarray(errors) + LEAST_STEP * total * np.arange(size)
    return worth


def _rest(matrices: Floats, stay: NDArray[np.bool_]) -> Floats:
    return np.ascontiguousarray(matrices[:, stay][:, :, stay])
