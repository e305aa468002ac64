"""Double pruning (Lee et al., 2020): weights go after filters have gone, and the loss is tuned away with masks held."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from backbones.arguments import explained
from backbones.errors import SecateurError
from search.data.data import Data
from search.data.task import ACCURACY
from search.training.checkpoint import History
from search.training.engine import train
from search.training.masks import EffectiveParameters, Masks, Scope, effective_parameters, magnitude_masks
from search.training.metrics import netscore
from search.training.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class SparsifyResult:
    """A network whose small weights are zero.

    Attributes:
        masks: parameter name -> True where the weight stayed.
        parameters: all, and those held at zero.
        history: the curve of the tuning.
    """

    masks: Masks
    parameters: EffectiveParameters
    history: History

    def netscore(self, macs: float) -> float:
        """NetScore of the test accuracy, the effective parameters and `macs`, the multiply-adds of one sample.

        Zero weights save parameters, not multiply-adds: a dense kernel multiplies by them all the same.

        Raises:
            SecateurError: for a task whose metric is no share of right answers.
        """
        if self.history.metric != ACCURACY:
            raise SecateurError(f"NetScore is of an accuracy, not of {self.history.metric.name!r}")
        return netscore(self.history.test_accuracy or 0.0, self.parameters.effective, macs)


@explained
def sparsify(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    amount: float,
    *,
    scope: Scope = "global",
    spare: Iterable[str] = (),
    teacher: nn.Module | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> SparsifyResult:
    """Drops the smallest weights of a (pruned) network and tunes the others, in place.

    Args:
        model: changed in place; its names and shapes stay, dropped weights are exactly zero.
        data: the task.
        recipe: how the weights that stay are tuned.
        amount: share of the weights of convolutions and linear layers to drop, 0 <= amount < 1.
        scope: compare weights over all layers ("global") or drop the same share of each ("layer").
        spare: layers left alone, by module path.
        teacher: the dense network, to learn from.
        folder: for an exact resume, see `train`.
        device: where tuning computes: "cpu", "cuda", ...
        progress: show a bar when standard error is a terminal.

    Raises:
        SecateurError: as `magnitude_masks` and `train`.
    """
    masks = magnitude_masks(model, amount, scope=scope, spare=spare)
    history = train(model, data, recipe, teacher=teacher, folder=folder, device=device, masks=masks, progress=progress)
    return SparsifyResult(masks, effective_parameters(model, masks), history)
