"""The numbers behind each channel: which weights make it, which weights read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backbones.errors import SecateurError
from backbones.graph import Group, Member

#: Numbers as the model holds them, float32 or float64.
Weights = NDArray[np.floating[Any]]
#: Numbers that are computed from them.
Floats = NDArray[np.float64]

#: Which weights describe a channel when channels are compared with each other.
FEATURES: Mapping[str, str] = {
    "fan_in": "the weights that make the channel, of every layer of the group",
    "fan_out": "the weights that read the channel, of every layer that does",
    "both": "fan_in and fan_out side by side (CUP: Duggal et al. 2019, arXiv 1911.08630, there with kernels as norms)",
}


def as_array(tensor: Tensor) -> Weights:
    """A tensor of any device and number format as a float32 or float64 array, without a copy where possible."""
    values = tensor.detach().cpu()
    return np.asarray((values if values.dtype in (torch.float32, torch.float64) else values.float()).numpy())


def member_rows(tensor: Tensor, member: Member) -> Weights:
    """The part of `tensor` that each channel owns, flattened.

    Args:
        tensor: the member's parameter.
        member: the dimension of `tensor` that its channels lie in, and their (size, width) positions there.

    Returns:
        (size, width * elements per position), float32 or float64; a view where the layout allows.
    """
    moved = np.moveaxis(as_array(tensor), member.dim, 0)
    size, width = member.index.shape
    positions = member.index.ravel()
    whole = positions.size == moved.shape[0] and bool((positions == np.arange(positions.size)).all())
    picked = moved if whole else moved[positions]
    return picked.reshape(size, -1) if picked.size else np.zeros((size, width), moved.dtype)


def filter_members(group: Group) -> tuple[Member, ...]:
    """The members that make the channels; where no weight makes them, those that read them.

    Raises:
        SecateurError: when no weight makes or reads the channels.
    """
    members = group.filters or group.inputs
    if not members:
        raise SecateurError(
            f"group {group.name!r} has no weight that makes or reads its channels, so its filters cannot be compared; "
            f"leave it out with trace(..., ignore=[{group.name!r}])"
        )
    return members


def feature_members(group: Group, features: str) -> tuple[Member, ...]:
    """The members that `features` (a key of `FEATURES`) looks at; fan_in stands in for a missing fan_out."""
    if features == "fan_in":
        return filter_members(group)
    if features == "fan_out":
        return group.inputs or filter_members(group)
    return filter_members(group) + (group.inputs if group.filters else ())


def feature_blocks(group: Group, tensors: Mapping[str, Tensor], features: str) -> list[tuple[Weights, float]]:
    """What the channels of one group are compared by: one block a member, each brought to mean row norm one.

    Every member counts alike, whatever the scale of its weights.

    Args:
        group: n channels.
        tensors: the model's state.
        features: a key of `FEATURES`.

    Returns:
        (block, scale) pairs: the feature vector of channel i is the concatenation of `scale * block[i]`; blocks are
        (n, k) and stay as they lie in memory.
    """
    blocks = []
    for member in feature_members(group, features):
        block = member_rows(tensors[member.tensor], member)
        mean = float(row_norms(block).mean())
        blocks.append((block, 1.0 / mean if mean > 0 else 0.0))
    return blocks


def row_norms(block: Weights) -> Floats:
    """(n,) Euclidean norms of the rows of an (n, k) block, summed in float64."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64)))


def feature_points(group: Group, tensors: Mapping[str, Tensor], features: str) -> Floats:
    """What `feature_blocks` gives, as one matrix with no more columns than rows.

    Where there are more features than channels the vectors are turned into the space that they span, which leaves all
    distances as they are and makes clustering cheaper.

    Returns:
        (n, k) points, k <= n.
    """
    blocks = feature_blocks(group, tensors, features)
    points = np.concatenate([block.astype(np.float64) * scale for block, scale in blocks], axis=1)
    if points.shape[1] <= len(points):
        return points
    triangle: Floats = np.asarray(np.linalg.qr(points.T, mode="r"))
    return triangle.T
