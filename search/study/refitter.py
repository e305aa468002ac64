"""Structures of one network refitted to images of its training split; what the dense network gives there is kept."""

from __future__ import annotations

from functools import cached_property

from torch import nn

from backbones.graph import ChannelGraph
from backbones.inputs import as_arguments, move_tensors, split_samples
from backbones.measure import peak_memory
from backbones.modes import device_of
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.batch_norm import recalibrate
from scoring.reconstruction.reconstruct import reconstruct
from scoring.reconstruction.targets import DenseTargets, gather_targets
from search.data.data import Data
from search.space.prepare import RECALIBRATION_BATCH

IMAGES = 512
"""Training images that structures are refitted on."""
MOST_ACTIVATIONS = 4 * 2**30
"""Bytes that the dense network's activations may take; where the images are so large, fewer are taken."""


class Refitter:
    """Refits structures of one network.

    Args:
        model: the dense network; it is never changed.
        graph: its channel graph.
        data: the task; its training images are looked at, never their labels.
        seed: draws the images.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, data: Data, seed: int) -> None:
        self.model, self.graph, self.data, self.seed = model, graph, data, seed

    @cached_property
    def count(self) -> int:
        """Training images that are taken."""
        example = move_tensors(self.data.example, device_of(self.model))
        fitting = MOST_ACTIVATIONS // max(1, peak_memory(self.model, as_arguments(example)))
        return int(min(IMAGES, fitting, len(self.data.train)))

    @cached_property
    def targets(self) -> DenseTargets:
        """What the dense network gives on the images.

        Raises:
            SecateurError: for too few images, or a network that gives NaN.
        """
        inputs, _ = self.data.batch(max(1, self.count), self.seed)
        return gather_targets(self.model, self.graph, move_tensors(inputs, device_of(self.model)))

    def __call__(self, structure: Structure) -> nn.Module:
        """The structure's network with refitted weights, in eval mode.

        Raises:
            SecateurError: as `targets`, and for a structure of another graph.
        """
        return reconstruct(self.model, self.graph, structure, self.targets).eval()

    def as_cut(self, structure: Structure) -> nn.Module:
        """The structure's network with the weights that the cut leaves, in eval mode.

        Its batch-norm statistics are renewed on the images that others are refitted on.
        """
        pruned = prune(self.model, self.graph, structure)
        recalibrate(pruned, split_samples(self.targets.inputs, RECALIBRATION_BATCH))
        return pruned.eval()
