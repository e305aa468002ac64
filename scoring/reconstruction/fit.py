"""The problem of one layer: weights that give what the dense network's next operation reads, and a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from scoring.reconstruction.ridge import Ridge, multiply


def fit(
    patches: Tensor,
    wanted: Tensor,
    old: Tensor,
    *,
    centred: bool,
    ridge: float,
    silent: Tensor | None = None,
    edge: Tensor | None = None,
    rounds: int = 0,
) -> tuple[Tensor, Tensor] | None:
    """Ridge regression drawn to the old weights; behind it a ReLU may leave targets free.

    Where the dense network's ReLU is silent any output on its silent side is as good as another: such targets are
    moved to what the current weights give there, or to the edge, and the weights are solved for again (the alternation
    of Zhang et al., "Accelerating very deep convolutional networks for classification and detection", 2015, section
    3.2, with the hard choice). The same decomposition serves all rounds.

    Args:
        patches: (parts, rows, unknowns); centred in place where a constant is free.
        wanted: (parts, rows, outputs).
        old: (parts, unknowns, outputs).
        centred: whether a constant per output is free.
        ridge: relative to the mean diagonal of the patches' Gram.
        silent: (parts, rows, outputs) where the dense network's ReLU gives 0; None without a ReLU.
        edge: (parts, rows or 1, outputs) the output below which the ReLU is silent here.
        rounds: of the alternation.

    Returns:
        the weights (parts, unknowns, outputs) and the constant (parts, 1, outputs); None where nothing finite is found.
    """
    means = None
    if centred:
        means = patches.mean(1, keepdim=True)
        patches -= means
    solver = Ridge.of(patches, ridge)
    if solver is None:
        return None
    before = multiply(patches, old)
    targets, added = wanted, torch.zeros_like(old)
    for left in range(rounds if silent is not None else 0, -1, -1):
        middle = targets.mean(1, keepdim=True) if centred else torch.zeros_like(targets[:, :1])
        solved = solver.solve(targets - before - middle)
        if solved is None:
            return None
        added = solved
        if left and silent is not None and edge is not None:
            given = multiply(patches, added).add_(before).add_(middle)
            targets = torch.where(silent, torch.minimum(given, edge), wanted)
    weights: Tensor = old + added
    return weights, middle if means is None else middle - multiply(means, weights)
