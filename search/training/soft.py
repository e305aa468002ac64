"""Soft filter pruning: channels are set to zero after each epoch, may grow back, and are cut only at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.inputs import run_on, sample_count, split_samples, tensors_in
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.batch_norm import recalibrate
from search.data.data import Data
from search.space.budget import Target
from search.training.choosing import Choose, intermediate_target
from search.training.losses import gammas
from search.training.recipe import Recipe

Growth = Callable[[float], float]


def whole(position: float) -> float:
    """The whole cut from the first epoch on (He et al., IJCAI 2018)."""
    return 1.0


def asymptotic(position: float) -> float:
    """Share of the cut at a position 0..1 of the training: 1 - exp(-k x), scaled to end at 1.

    It passes 3/4 after an eighth of the epochs, as in the asymptotic variant (He et al., IEEE Trans. Cybernetics 2019).
    """
    rate = 11.08999
    return (1 - math.exp(-rate * position)) / (1 - math.exp(-rate))


def zero_channels(model: nn.Module, graph: ChannelGraph, structure: Structure, *, scales: bool = True) -> None:
    """Makes the dropped channels put out zero in evaluation mode, in place, in a way that lets them grow back.

    Behind an activation with f(0) = 0 the network then computes what `prune` makes of it.

    Args:
        model: the network that `graph` was traced on.
        graph: the channel graph of `model`.
        structure: the channels that stay as they are.
        scales: zero batch-norm scales and shifts instead of filters, in groups that have them. The papers zero the
            filters; but in training batch norm blows up the smallest filter to full size, so one step brings all of
            them back and the network relies on them again: on digits (4 epochs, a third of the MACs) validation
            accuracy stays at 31 % that way, and reaches 93 % with scales, which grow from zero by themselves. They
            win their place back when scales are what counts: criterion `bn_gamma` with a slimming penalty.
    """
    tensors = model.state_dict()
    norms = _norm_scales(model)
    with torch.no_grad():
        for group in graph.groups:
            kept = set(structure.keep[group.name])
            dropped = [channel for channel in range(group.size) if channel not in kept]
            by_scale = scales and any(member.tensor in norms for member in group.members)
            for member in group.members if dropped else ():
                shift = member.tensor.endswith((".bias", ".running_mean"))
                if by_scale:
                    wanted = member.tensor in norms or member.tensor.endswith(".bias")
                else:
                    wanted = member.role in ("filter", "both") or (member.role == "vector" and shift)
                if wanted:
                    tensor = tensors[member.tensor]
                    places = torch.from_numpy(member.index[dropped].reshape(-1)).to(tensor.device)
                    tensor.index_fill_(member.dim, places, 0)


def nonzero_structure(graph: ChannelGraph, model: nn.Module, *, scales: bool = True) -> Structure:
    """The structure that the last `zero_channels` left in `model`, read off the zeros."""
    tensors = model.state_dict()
    norms = _norm_scales(model)
    kept = {}
    for group in graph.groups:
        marks = [member for member in group.members if scales and member.tensor in norms] or group.filters
        alive = np.zeros(group.size, dtype=np.bool_)
        for member in marks:
            rows = tensors[member.tensor].movedim(member.dim, 0)
            nonzero = (rows.reshape(len(rows), -1) != 0).any(1).cpu().numpy()
            alive |= nonzero[member.index].any(1)
        kept[group.name] = np.flatnonzero(alive).tolist() if marks else range(group.size)
    return Structure.of(graph, kept)


def scales_suffice(model: nn.Module, graph: ChannelGraph, example: Any) -> bool:
    """Whether zero batch-norm scales silence every channel: not where a layer reads past the batch norm."""
    structure = Structure.random(graph, keep=0.5)
    quiet = prune(model, graph, Structure.full(graph)).eval()
    zero_channels(quiet, graph, structure)
    with torch.no_grad():
        found, wanted = (tensors_in(run_on(one, example)) for one in (quiet, prune(model, graph, structure).eval()))
    return all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
        for one, other in zip(found, wanted, strict=True)
        if other.numel()
    )


def _norm_scales(model: nn.Module) -> set[str]:
    """Names of the batch-norm weights."""
    return {f"{name}.weight" if name else "weight" for name in gammas(model)}


class SoftPruningCallback:
    """What soft filter pruning does after each epoch: choose channels by the weights as they are, zero the others.

    The batch-norm statistics are renewed after that. Give it to `train` as `after_epoch`.

    Args:
        model: the network before training; it is not changed.
        graph: the channel graph of `model`.
        data: gives the images for the batch-norm statistics.
        recipe: gives the number of epochs and of recalibration batches.
        choose: picks the structure that stays.
        target: what the network may cost after the last epoch.
        growth: position 0..1 of the training -> share of the cut that is made there.

    Raises:
        SecateurError: when the recipe averages weights: an average of zeroed and grown filters is neither.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        data: Data,
        recipe: Recipe,
        choose: Choose,
        target: Target,
        growth: Growth,
    ) -> None:
        if recipe.ema:
            raise SecateurError("a soft flow cannot average weights; set ema = 0 in the recipe")
        self.graph, self.recipe, self.choose, self.target, self.growth = graph, recipe, choose, target, growth
        self.scales = scales_suffice(model, graph, data.example)
        size = min(len(data.train), recipe.recalibrate * recipe.batch_size)
        drawn = split_samples(data.batch(size, recipe.seed)[0], recipe.batch_size) if size else []
        self.batches = [inputs for inputs in drawn if sample_count(inputs) > 1]

    def __call__(self, model: nn.Module, done: int) -> None:
        """Zeroes the channels that are not chosen after `done` epochs."""
        now = intermediate_target(
            self.graph.costs.dense, self.target, self.growth(done / self.recipe.epochs), "amounts"
        )
        zero_channels(model, self.graph, self.choose(model, self.graph, now), scales=self.scales)
        recalibrate(model, self.batches)

    @property
    def key(self) -> str:
        """Names target, growth and rule, so that a training can tell whether it is continued with the same."""
        return f"{self.growth.__name__} {self.target} {getattr(self.choose, 'key', '')}"
