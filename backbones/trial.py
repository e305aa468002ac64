"""A trial pruning at trace time: code with literal sizes is found now, not in the middle of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from backbones.graph import ChannelGraph, Frozen, Group
from backbones.modes import evaluating
from backbones.oracle import difference, masked
from backbones.program import first_line, place
from backbones.structure import Structure
from backbones.surgery import cut, plan

TOLERANCE = 1e-3
"""Relative difference to the masked dense network above which a pruned network counts as wrong (float32)."""


def failures(model: nn.Module, graph: ChannelGraph) -> tuple[Frozen, ...]:
    """The groups that cannot really be pruned, found by pruning all of them at once and bisecting only on failure.

    A group fails when the pruned network does not run on the example, or does not equal the masked dense network.
    Groups whose channels share layer or group statistics change values by nature: only their shapes are checked.
    """
    exact = [group for group in graph.groups if group.name not in graph.mixed]
    broken = _culprits(model, graph, exact, numeric=True)
    gone = {group.name for group, _, _ in broken}
    rest = [group for group in graph.groups if group.name not in gone]
    if len(rest) > len(exact) - len(broken):
        broken += _culprits(model, graph, rest, numeric=False)
    return tuple(
        Frozen(group.name.partition("#")[0], tuple(range(group.size)), "trial pruning", group.name, line, reason)
        for group, line, reason in broken
    )


def _culprits(
    model: nn.Module, graph: ChannelGraph, groups: Sequence[Group], *, numeric: bool
) -> list[tuple[Group, str, str]]:
    if not groups:
        return []
    problem = _attempt(model, graph, groups, numeric=numeric)
    if problem is None:
        return []
    if len(groups) == 1:
        return [(groups[0], *problem)]
    half = len(groups) // 2
    broken = _culprits(model, graph, groups[:half], numeric=numeric)
    broken += _culprits(model, graph, groups[half:], numeric=numeric)
    gone = {group.name for group, _, _ in broken}
    rest = [group for group in groups if group.name not in gone]
    if not broken:  # neither half fails alone: they only fail together
        return [(group, *problem) for group in groups]
    if len(groups) > 2 and _attempt(model, graph, rest, numeric=numeric) is not None:
        broken += _culprits(model, graph, rest, numeric=numeric)
    return broken


def _attempt(
    model: nn.Module, graph: ChannelGraph, groups: Sequence[Group], *, numeric: bool
) -> tuple[str, str] | None:
    """(source line, reason) when pruning these groups goes wrong."""
    rng = np.random.default_rng(0)
    kept = {
        group.name: rng.permutation(group.size)[: max(1, round(group.size * rng.uniform(0.4, 0.7)))] for group in groups
    }
    structure = Structure.of(graph, kept)
    try:
        pruned = cut(model, plan(graph, structure))
        with evaluating(pruned), torch.no_grad():
            output = pruned(*graph.example)
    except Exception as error:
        return place(error), f"a literal size in the code: {first_line(error)}"
    if numeric:
        gap = difference(output, masked(model, graph, structure, graph.example))
        if not gap <= TOLERANCE:
            return "", "the code uses a channel count as a number: values change when it is pruned"
    return None
