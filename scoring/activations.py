"""What flows through the channels: figures of activation maps, taken where the next layers read them.

HRank and APoZ are defined on maps behind the non-linearity. The layer that makes a channel does not see them (a batch
norm or a residual sum may stand between), but the layers that read the channel do, so the hooks sit on their inputs.
A group that no layer reads is measured at the outputs of the layers that make it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group, Member
from scoring.measuring import measuring

Worth = NDArray[np.float64]
#: From (..., rows, columns) maps to (...) figures.
Measure = Callable[[Tensor], Tensor]


def map_ranks(maps: Tensor) -> Tensor:
    """Rank of each map as a matrix; (..., rows, columns) -> (...)."""
    ranks: Tensor = torch.linalg.matrix_rank(maps)
    return ranks


def map_zeros(maps: Tensor) -> Tensor:
    """Share of each map that is not exactly zero, so that larger is better; (..., rows, columns) -> (...)."""
    return (maps != 0).double().mean((-2, -1))


def reading_maps(
    model: nn.Module, graph: ChannelGraph, images: Tensor, measure: Measure
) -> dict[str, tuple[Worth, ...]]:
    """One forward pass in eval mode; the mean figure of every channel at every layer that reads it.

    Args:
        model: left as it was.
        graph: of `trace`.
        images: (B, ...) as the model takes them; some tens are enough for a stable order (HRank, section 3).
        measure: `map_ranks` or `map_zeros`.

    Returns:
        Per group one (n,) array for each layer, in the group's order.

    Raises:
        SecateurError: when the model fails on the images, or a group passes no layer that can be watched.
    """
    figures: dict[tuple[str, int], list[Worth]] = {}
    handles = []
    try:
        for group in graph.groups:
            for number, member in enumerate(group.members):
                module = model.get_submodule(member.layer)
                if member.role == "vector" or not isinstance(module, _ConvNd | nn.Linear):
                    continue
                seen = figures.setdefault((group.name, number), [])
                handles.append(_watch(module, member, measure, seen))
        with measuring(model, images), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return {group.name: _of_group(group, figures) for group in graph.groups}


def _of_group(group: Group, figures: Mapping[tuple[str, int], list[Worth]]) -> tuple[Worth, ...]:
    for role in ("input", "filter"):
        members = [i for i, member in enumerate(group.members) if member.role == role and figures.get((group.name, i))]
        if members:
            return tuple(np.mean(figures[group.name, i], axis=0) for i in members)
    raise SecateurError(
        f"no layer that ran shows the activation maps of group {group.name!r}; take a criterion of the weights "
        "or leave the group out with trace(..., ignore=...)"
    )


def _watch(module: nn.Module, member: Member, measure: Measure, seen: list[Worth]) -> torch.utils.hooks.RemovableHandle:
    positions = torch.as_tensor(_positions(module, member))
    channels_last = isinstance(module, nn.Linear)

    def look(values: Tensor) -> None:
        figures = measure(_maps(values, positions.to(values.device), channels_last))
        seen.append(figures.double().mean((0, 2)).cpu().numpy())

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(args[0] if args else kwargs["input"])

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        look(output)

    if member.role == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def _positions(module: nn.Module, member: Member) -> NDArray[np.int64]:
    """(n, width) positions of the channels in the activation.

    Dimension 1 of a grouped convolution's weight counts within one part: the channel lies in every part.
    """
    if not isinstance(module, _ConvNd) or module.groups == 1 or member.dim != 1:
        return member.index
    parts = np.arange(module.groups) * module.weight.shape[1]
    return np.asarray((member.index[..., None] + parts).reshape(len(member.index), -1))


def _maps(values: Tensor, positions: Tensor, channels_last: bool) -> Tensor:
    """The (B, n, width, rows, columns) maps of the channels at (n, width) positions.

    Behind a flatten the shape of a map is lost: its elements are laid out as near to a square as they divide.
    """
    if not channels_last:
        picked = values[:, positions]
        spatial = picked.shape[3:]
        return picked.reshape(*picked.shape[:3], math.prod(spatial[:-1]), spatial[-1])
    picked = values[..., positions]
    if picked.dim() > 3:
        return picked.flatten(1, -3).permute(0, 2, 1, 3).unsqueeze(2)
    width = positions.shape[1]
    rows = max(divisor for divisor in range(1, math.isqrt(width) + 1) if width % divisor == 0)
    return picked.reshape(*picked.shape[:2], 1, rows, width // rows)
