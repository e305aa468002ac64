"""Networks of a study's structures: refitted without training; where retrained ones lie, and whether they are whole."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from backbones.artefact import read_artefact
from backbones.errors import SecateurError
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

IMAGES = 2_048
"""Training images that structures are refitted on."""
MOST_ACTIVATIONS = 4 * 2**30
"""Bytes that the dense network's activations may take; where the images are so large, fewer are taken."""
RETRAIN_FOLDER = "retrain"
"""Name of the folder inside a study's that holds its retrained networks."""
NETWORK = "network.safetensors"


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gathers the targets itself, so that what it refits does not depend on who sent it."""
        return type(self), (self.model, self.graph, self.data, self.seed)

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


def noted_network(path: Path) -> dict[str, str]:
    """What a storage notes of a network that this machine has saved: where it lies in the folder, and the machine."""
    return {"artefact": f"{path.parent.name}/{path.name}", "host": socket.gethostname()}


def network_path(folder: Path, facts: Mapping[str, Any]) -> Path:
    """The path of a retrained network.

    A storage notes its last two parts, `<structure>-<recipe>/network.safetensors`; the rest is the folder that the
    study is opened with. So a run can be moved or copied, and no storage names a file outside of it.

    Args:
        folder: the study's folder of retrained networks.
        facts: what the storage notes of the retraining; older versions noted the whole path.

    Raises:
        SecateurError: for a path that cannot be one of ours.
    """
    parts = PurePosixPath(str(facts.get("artefact"))).parts[-2:]
    if len(parts) != 2 or parts[1] != NETWORK or not parts[0].startswith(f"{facts.get('structure')}-") or ".." in parts:
        raise SecateurError(f"a stored network has the path {facts.get('artefact')!r}; was the storage edited?")
    return folder.joinpath(*parts)


def check_network(path: Path, structure: str, recipe: str | None = None) -> None:
    """Looks whether a network is whole, and of the structure (and recipe) that it should be.

    Args:
        path: of the artefact.
        structure: id of the structure that was retrained, or that its training ended with.
        recipe: text of the recipe; any when not given.

    Raises:
        SecateurError: when it is gone, damaged, or another network.
    """
    told = read_artefact(path)[0].get("provenance", {})
    if structure not in (told.get("structure"), told.get("ended")) or recipe not in (None, told.get("recipe")):
        raise SecateurError(f"{path} holds another network than the one that was retrained there")


def is_here(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the network of a retraining is whole at its place."""
    try:
        check_network(path, str(facts["structure"]), str(facts["recipe"]))
    except SecateurError:
        return False
    return True


def is_elsewhere(facts: Mapping[str, Any]) -> bool:
    """Whether another machine has retrained it; what older versions retrained counts as made here."""
    return str(facts.get("host", socket.gethostname())) != socket.gethostname()
