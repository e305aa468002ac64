"""The problem of one layer: weights that give the wanted outputs, a constant, and what a ReLU behind does not mind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoring.reconstruction.ridge import Ridge


@dataclass(frozen=True, eq=False)
class Rectifier:
    """The ReLU behind a layer, in the units of the layer's output.

    Attributes:
        silent: (parts, rows, outputs) where the dense network's ReLU gives 0.
        zero: (parts, rows or 1, outputs) output of the layer at which the ReLU's input is 0.
        sign: (parts, 1, outputs) 1 where the ReLU's input rises with the output, -1 where it falls, 0 for not at all.
    """

    silent: Tensor
    zero: Tensor
    sign: Tensor


def fit(
    patches: Tensor,
    wanted: Tensor,
    old: Tensor,
    *,
    centred: bool,
    ridge: float,
    rectifier: Rectifier | None = None,
    rounds: int = 0,
) -> tuple[Tensor, Tensor] | None:
    """Ridge regression drawn to the old weights; with a rectifier, alternating with the targets it leaves free.

    Where the dense network's ReLU is silent any output on its silent side is as good as another: such targets are
    moved to what the current weights give there, and the weights are solved for again (the alternation of Zhang et al.,
    "Accelerating very deep convolutional networks", 2015, section 3.2, with the hard choice). The same decomposition
    serves all rounds.

    Args:
        patches: (parts, rows, unknowns).
        wanted: (parts, rows, outputs).
        old: (parts, unknowns, outputs).
        centred: whether a constant per output is free.
        ridge: relative to the mean diagonal of the patches' Gram.
        rectifier: the ReLU behind.
        rounds: of the alternation.

    Returns:
        the weights (parts, unknowns, outputs) and the constant (parts, 1, outputs); None where nothing finite is found.
    """
    means = patches.mean(1, keepdim=True) if centred else None
    inner = patches if means is None else patches - means
    solver = Ridge.of(inner, ridge)
    before = torch.bmm(inner, old)

    def solve(targets: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        middle = targets.mean(1, keepdim=True) if centred else torch.zeros_like(targets[:, :1])
        added = None if solver is None else solver.solve(targets - middle - before)
        if added is None:
            return None
        given = before + torch.bmm(inner, added) + middle
        return old + added, middle, given

    found = solve(wanted)
    for _ in range(rounds if rectifier is not None else 0):
        if found is None or rectifier is None:
            break
        given = found[2]
        beyond = (given - rectifier.zero) * rectifier.sign <= 0
        free = torch.where(beyond, given, rectifier.zero.expand_as(given))
        found = solve(torch.where(rectifier.silent, free, wanted))
    if found is None:
        return None
    weights, middle, _ = found
    return weights, middle if means is None else middle - torch.bmm(means, weights)
