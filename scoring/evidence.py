"""Gathers what a criterion looks at: weights always, gradients and activation maps where it needs data."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from scoring.activations import map_ranks, map_zeros, reading_maps
from scoring.criteria import CRITERIA, Evidence
from scoring.gradients import loss_gradients
from scoring.slices import as_array

#: A batch: images as the model takes them, and int64 labels where the loss is needed.
Data = tuple[Tensor, Tensor | None]


def gather(model: nn.Module, graph: ChannelGraph, criterion: str, data: Data | None = None, seed: int = 0) -> Evidence:
    """Everything that one criterion needs.

    Args:
        model: the traced network; run in eval mode where data is needed, and left as it was.
        graph: of `trace`.
        criterion: a key of `CRITERIA`.
        data: (images, labels); labels only for criteria that need gradients.
        seed: of the random control.

    Raises:
        SecateurError: for weights that are not finite or not the traced ones, for a criterion without its data.
    """
    tensors = model.state_dict()
    check_weights(graph, tensors)
    norm_layers = frozenset(name for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    needs = CRITERIA[criterion].needs
    if needs == "weights":
        return Evidence(tensors, norm_layers, seed=seed)
    if data is None:
        raise SecateurError(f"criterion {criterion!r} needs data; give data=(images, labels)")
    images, labels = data
    if len(images) == 0:
        raise SecateurError(
            f"criterion {criterion!r} needs at least one image, but got data of shape {tuple(images.shape)}"
        )
    if needs == "gradients":
        if labels is None:
            raise SecateurError(f"criterion {criterion!r} needs labels; give data=(images, labels)")
        return Evidence(tensors, norm_layers, loss_gradients(model, graph, images, labels), seed=seed)
    measure = map_ranks if needs == "ranks" else map_zeros
    return Evidence(tensors, norm_layers, maps=reading_maps(model, graph, images, measure), seed=seed)


def check_weights(graph: ChannelGraph, tensors: dict[str, Tensor]) -> None:
    """Raises SecateurError when a tensor of the graph is missing, of another shape, or not finite."""
    for group in graph.groups:
        for member in group.members:
            tensor = tensors.get(member.tensor)
            if tensor is None:
                raise SecateurError(f"the graph names {member.tensor!r}, which the model lacks; trace this model")
            if member.dim >= tensor.dim() or int(member.index.max()) >= tensor.shape[member.dim]:
                raise SecateurError(
                    f"{member.tensor!r} has shape {tuple(tensor.shape)}, which the graph does not fit; trace this model"
                )
    for name in {member.tensor: None for group in graph.groups for member in group.members}:
        # By numpy: torch would split this trifle over the cores, and wait for each of them when they are busy.
        if not np.isfinite(as_array(tensors[name])).all():
            raise SecateurError(f"{name!r} holds NaN or infinite weights; finite weights are needed")
