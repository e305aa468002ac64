"""The problem of one layer: weights that give what the dense network's next operation reads, and a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from scoring.reconstruction.ridge import Ridge, means_of, multiply

FREELY = 1e30
"""How much further than its own size a target below the ReLU may lie: as far as numbers go."""


def below_the_relu(whole: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Between what bounds the targets of a layer may lie when a ReLU reads its sum with something else.

    Where the dense network's ReLU is silent any output on its silent side is as good as another. Arithmetic only, no
    masks, which are slower.

    Args:
        whole: what the dense network's ReLU reads.
        wanted: what the layer shall add to what is there already, so that the ReLU reads the same.

    Returns:
        the lowest and the highest targets, in the shape of both; equal to `wanted` where the ReLU is not silent.
    """
    under = whole.clamp(max=0)
    highest = wanted - under
    return under.mul_(FREELY).add_(wanted), highest


def fit(
    patches: Tensor,
    wanted: Tensor,
    old: Tensor,
    *,
    centred: bool,
    ridge: float,
    free: tuple[Tensor, Tensor] | None = None,
    rounds: int = 0,
) -> tuple[Tensor, Tensor] | None:
    """Ridge regression drawn to the old weights, to targets that may be free within bounds.

    Free targets are moved to what the current weights give, within their bounds, and the weights are solved for again
    (the alternation of Zhang et al., "Accelerating very deep convolutional networks for classification and detection",
    2015, section 3.2, with the hard choice). The same decomposition serves all rounds.

    Args:
        patches: (parts, rows, unknowns); may be centred in place.
        wanted: (parts, rows, outputs).
        old: (parts, unknowns, outputs).
        centred: whether a constant per output is free.
        ridge: relative to the mean diagonal of the patches' Gram.
        free: (parts, rows, outputs) the lowest and the highest targets, of `below_the_relu`; None where all are fixed.
        rounds: of the alternation.

    Returns:
        the weights (parts, unknowns, outputs) and the constant (parts, 1, outputs); None where nothing finite is found.
    """
    solver = Ridge.of(patches, ridge, centred=centred)
    if solver is None:
        return None
    moves = 0 if free is None else rounds
    added = solver.roughly(wanted, old) if moves else None
    targets, exact = wanted, added is None
    for moving in [False] * exact + [True] * moves:
        weights = old if added is None else old + added
        given = multiply(patches, weights)
        if centred:
            given += means_of(targets) - multiply(solver.means, weights)
        if moving and free is not None:
            targets = torch.clamp(given, *free)
        residual = torch.sub(targets, given, out=given)
        if centred:
            residual -= means_of(residual)
        added = solver.solve(residual, added)
        if added is None:
            return None
    weights = old if added is None else old + added
    constant = means_of(targets) - multiply(solver.means + solver.taken, weights)
    return weights, constant if centred else torch.zeros_like(constant)
