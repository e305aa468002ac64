"""The law of surgery: a pruned network equals the dense one whose dropped channels nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from backbones.graph import ChannelGraph
from backbones.inputs import named, without_dataclasses
from backbones.modes import evaluating
from backbones.structure import Structure


def masked_reference(model: nn.Module, graph: ChannelGraph, structure: Structure, example: Sequence[Any]) -> Any:
    """The dense model's output, in eval mode, with every weight that reads a dropped channel set to zero.

    Where an operation without weights sums over a group (`ChannelGraph.summed`) that is not enough: there, all that
    makes a dropped channel is set to zero too. Layers removed by the structure are not bypassed here. No copy of the
    model is made.

    Args:
        model: the network that was traced.
        graph: its channel graph.
        structure: what to keep.
        example: the inputs to compute the output for.
    """
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed: dict[str, Tensor] = {}
    for group in graph.groups:
        dropped = np.setdiff1d(np.arange(group.size), structure.keep[group.name])
        for member in group.members if group.name in graph.summed else group.inputs:
            if member.tensor not in changed:
                changed[member.tensor] = weights[member.tensor].detach().clone()
            positions = torch.from_numpy(member.index[dropped].reshape(-1))
            changed[member.tensor].index_fill_(member.dim, positions.to(changed[member.tensor].device), 0.0)
    with evaluating(model), torch.no_grad():
        return functional_call(model, changed, tuple(example), named(example))


def relative_difference(left: Any, right: Any) -> float:
    """The largest difference between two outputs, relative to the largest value; inf if shapes differ.

    Outputs are tensors, dataclasses or anything that torch's pytree can take apart (tuples, lists, dicts, registered
    classes).
    """
    ones, others = (tree_leaves(without_dataclasses(output)) for output in (left, right))
    if len(ones) != len(others):
        return float("inf")
    gaps = [_gap(one, other) for one, other in zip(ones, others, strict=True)]
    return float(np.max(gaps)) if gaps else 0.0  # nan if any is


def _gap(left: Any, right: Any) -> float:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return 0.0 if type(left) is type(right) else float("inf")
    if left.shape != right.shape:
        return float("inf")
    if left.numel() == 0:
        return 0.0
    left, right = left.detach().double(), right.detach().double()
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))
