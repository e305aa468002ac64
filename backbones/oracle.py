"""The law of surgery: a pruned network equals the dense one whose dropped channels nobody reads (design section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from backbones.graph import ChannelGraph
from backbones.modes import evaluating
from backbones.structure import Structure


def masked(model: nn.Module, graph: ChannelGraph, structure: Structure, example: Sequence[Any]) -> Any:
    """The dense model's output, in eval mode, with every weight that reads a dropped channel set to zero.

    Layers removed by the structure are not bypassed here. No copy of the model is made.
    """
    weights = dict(model.named_parameters())
    changed: dict[str, Tensor] = {}
    for group in graph.groups:
        dropped = np.setdiff1d(np.arange(group.size), structure.keep[group.name])
        for member in group.inputs:
            if member.tensor not in changed:
                changed[member.tensor] = weights[member.tensor].detach().clone()
            positions = torch.from_numpy(member.index[dropped].reshape(-1))
            changed[member.tensor].index_fill_(member.dim, positions.to(changed[member.tensor].device), 0.0)
    with evaluating(model), torch.no_grad():
        return functional_call(model, changed, tuple(example))


def difference(left: Any, right: Any) -> float:
    """The largest absolute difference between two outputs, relative to 1 plus the largest value; inf if shapes differ.

    Outputs are tensors or nested tuples, lists and dicts of them.
    """
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.shape != right.shape:
            return float("inf")
        if left.numel() == 0:
            return 0.0
        left, right = left.detach().double(), right.detach().double()
        return float((left - right).abs().max() / (1.0 + right.abs().max()))
    if isinstance(left, dict) and isinstance(right, dict):
        left, right = list(left.values()), list(right.values())
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        pairs = [difference(a, b) for a, b in zip(left, right, strict=True)]
        return max(pairs, default=0.0)
    return 0.0 if left == right else float("inf")
