"""What the layers of the dense network read: second moments of input channels at sampled positions, in one pass."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Index
from backbones.inputs import output_of
from backbones.modes import evaluating
from backbones.module_copy import copy_with
from scoring.reconstruction.layers import REFITTABLE
from scoring.reconstruction.patches import Sample, channel_rows, padded, parts, sample
from scoring.reconstruction.ridge import FLOAT64_UNKNOWNS
from scoring.reconstruction.targets import ROWS, as_inputs, refuse_nonfinite


@dataclass(frozen=True, eq=False)
class InputGram:
    """Second moments of what one layer reads.

    Attributes:
        count: rows that were looked at.
        mean: (parts, channels) float64; parts are the groups of a convolution.
        gram: (parts, channels, channels) mean products of the centred channels, float64; None where rows are kept.
        rows: (parts, count, channels) the centred rows themselves, where a linear layer has more inputs than there are
            rows, or reads maps of several sizes behind a flatten; else None.
        places: (channels, width) positions of each channel where a linear layer reads equally large maps behind a
            flatten: one channel's positions are rows, as pixels are to a convolution. None: one position a channel.
    """

    count: int
    mean: Tensor
    gram: Tensor | None
    rows: Tensor | None = None
    places: Tensor | None = None

    def second(self, centred: bool) -> Tensor:
        """(parts, channels, channels) mean products of centred channels, or of channels as they are."""
        gram = self.gram
        if gram is None:
            assert self.rows is not None
            wide = self.rows.double()
            gram = wide.mT @ wide / self.count
        return gram if centred else gram + self.mean[:, :, None] * self.mean[:, None]

    def sampled(self, centred: bool) -> Tensor:
        """(parts, count, channels) the kept rows, centred or as they were."""
        assert self.rows is not None
        return self.rows if centred else self.rows + self.mean[:, None].to(self.rows.dtype)


@dataclass(frozen=True, eq=False)
class DenseGrams:
    """The second moments of a network's layers; gathered once for all structures.

    Attributes:
        model: the dense network.
        graph: of `trace`.
        inputs: module path -> what the layer reads, for every convolution and linear layer that ran, but for depthwise
            ones.
        outputs: module path -> second moments of what the layer gives, where they were asked for.
    """

    model: nn.Module
    graph: ChannelGraph
    inputs: Mapping[str, InputGram]
    outputs: Mapping[str, InputGram]


@explained
def gather_grams(
    model: nn.Module,
    graph: ChannelGraph,
    images: Any,
    *,
    rows: int = ROWS,
    seed: int = 0,
    outputs: frozenset[str] = frozenset(),
) -> DenseGrams:
    """Runs the dense network once over the images, in eval mode, and sums up what its layers read.

    Args:
        model: the traced network; not changed.
        graph: of `trace`.
        images: (B, …) as the network takes them; a tuple for several inputs; a list of such batches, which are joined.
        rows: positions a layer, equally many an image.
        seed: of the positions.
        outputs: module paths of layers whose outputs are looked at as well.

    Raises:
        SecateurError: as `gather_targets`.
    """
    if rows < 1:
        raise SecateurError(f"rows >= 1 must hold, but got rows={rows}")
    inputs = as_inputs(model, graph, images)
    dense = copy_with(model, {id(value): value for value in [*model.parameters(), *model.buffers()]})
    read: dict[str, InputGram] = {}
    given: dict[str, InputGram] = {}
    for path, module in dense.named_modules():
        if isinstance(module, REFITTABLE):
            draw = _Draw(path, rows, seed + zlib.crc32(path.encode()), _places(module, path, graph))
            module.register_forward_hook(_looking(draw, read, given if path in outputs else None), with_kwargs=True)
    with evaluating(dense), torch.no_grad():
        output = output_of(dense, inputs)
    refuse_nonfinite(output, "the dense network's output")
    return DenseGrams(model, graph, read, given)


@dataclass(frozen=True, eq=False)
class _Draw:
    """How one layer is looked at.

    Attributes:
        path: of its module.
        rows: how many at most.
        seed: of their positions.
        places: as `InputGram.places`; empty where rows have to be kept.
    """

    path: str
    rows: int
    seed: int
    places: Tensor | None


def depthwise(module: nn.Module) -> bool:
    """Whether every output reads one channel alone, so that no other can make up for it."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels > 1


def _places(module: nn.Module, path: str, graph: ChannelGraph) -> Tensor | None:
    """Where the channels lie that a linear layer reads: None for one position each, empty for unlike sizes."""
    found = graph.tensors.get(f"{path}.weight")
    if found is None or isinstance(module, _ConvNd) or 1 not in found.units:
        return None
    units: Index = found.units[1]
    widths = np.unique(units[units >= 0], return_counts=True)[1]
    if (widths == 1).all():
        return None
    if (units < 0).any() or len(set(widths.tolist())) > 1:
        return torch.empty(0, 0, dtype=torch.int64)
    return torch.from_numpy(np.argsort(units, kind="stable").reshape(len(widths), -1))


def _looking(draw: _Draw, read: dict[str, InputGram], given: dict[str, InputGram] | None) -> Callable[..., None]:
    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        entered = padded(args[0] if args else kwargs["input"], module)
        if isinstance(module, _ConvNd) and entered.ndim != len(module.kernel_size) + 2:
            return  # no batch dimension
        where = sample(module, entered.shape, output.shape, draw.rows, draw.seed).to(output.device)
        if not depthwise(module):
            seen = channel_rows(entered, module).index_select(0, _one_tap(where, draw.seed))
            _add(read, draw.path, _gram(seen, parts(module), draw))
        if given is not None:
            seen = channel_rows(output, module).index_select(0, where.outputs)
            _add(given, draw.path, _gram(seen, 1, _Draw(draw.path, draw.rows, draw.seed, None)))

    return look


def _one_tap(where: Sample, seed: int) -> Tensor:
    """(rows or fewer,) an input position for each output position: under one tap that lies inside the input."""
    chance = torch.rand(where.inputs.shape, generator=torch.Generator().manual_seed(seed)).to(where.inputs.device)
    if where.inside is not None:
        chance = chance.masked_fill(~where.inside, -1)
    best, tap = chance.max(1)
    return where.inputs.gather(1, tap[:, None])[best >= 0, 0]


def _gram(seen: Tensor, groups: int, draw: _Draw) -> InputGram:
    """The products of what a layer reads: `seen` has the shape (rows, channels)."""
    places = draw.places
    kept = places is not None and not places.numel()
    if places is not None and places.numel():
        seen = seen[:, places.to(seen.device)].movedim(1, 2).reshape(-1, len(places))
        if len(seen) > draw.rows:
            order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(draw.seed))
            seen = seen[order[: draw.rows].sort().values.to(seen.device)]
    count, channels = seen.shape
    split = seen.reshape(count, groups, channels // groups).movedim(1, 0)
    split = split.to(
        torch.float64 if channels // groups <= FLOAT64_UNKNOWNS else torch.promote_types(seen.dtype, torch.float32)
    )
    mean = split.mean(1, dtype=torch.float64)
    split = split - mean[:, None].to(split.dtype)
    if groups == 1 and (kept or (places is None and channels > count)):
        return InputGram(count, mean, None, split.to(torch.promote_types(seen.dtype, torch.float32)))
    return InputGram(count, mean, (split.mT @ split).double() / count, None, places)


def _add(found: dict[str, InputGram], path: str, new: InputGram) -> None:
    """Puts a further call of a layer to those before."""
    old = found.get(path)
    if old is None:
        found[path] = new
        return
    count = old.count + new.count
    mean = (old.mean * old.count + new.mean * new.count) / count
    if old.rows is not None and new.rows is not None:
        both = [each.rows + (each.mean - mean)[:, None].to(each.rows) for each in (old, new) if each.rows is not None]
        found[path] = InputGram(count, mean, None, torch.cat(both, 1))
        return
    apart = (old.mean - new.mean)[..., None]
    gram = old.second(True) * (old.count / count) + new.second(True) * (new.count / count)
    gram = gram + apart @ apart.mT * (old.count * new.count / count**2)
    found[path] = InputGram(count, mean, gram, None, new.places)
