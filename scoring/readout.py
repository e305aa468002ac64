"""What the last layer could make of a pruned network's features if it alone were trained: a ridge regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.modes import evaluating
from scoring.scoring_task import ScoredStructure

RIDGE = 1e-2
"""Penalty, in units of the mean variance of the features."""


def readout(scored: ScoredStructure) -> float:
    """Share of the variance of the dense network's logits that a linear map of the pruned features explains, R^2.

    The map is fitted in closed form (ridge regression) to the recalibration images and judged on the batch, so it asks
    how much of what the dense network knows is still in the features, not how well the old classifier reads them:
    retraining renews the classifier first. Not published as a pruning score; a linear probe (Alain and Bengio, 2017)
    with the dense logits as targets. Needs recalibration batches; beside the recalibration one forward pass over them
    and one over the batch (the dense network's are shared).

    Raises:
        SecateurError: when the network does not end in a linear layer; when the batch itself recalibrates.
    """
    batches = scored.task.need_batches("readout")
    if scored.task.renews_itself:
        raise SecateurError("readout needs recalibration images other than the batch that it is judged on")
    model = scored.recalibrated("readout")
    features = torch.cat([_features(model, batch) for batch in batches])
    weights, mean, offset = _fit(features, scored.task.dense_on_recalibration)
    explained = (_features(model, scored.task.batch) - mean) @ weights + offset
    dense = scored.task.dense.logits
    spread = float((dense - dense.mean(0)).square().sum())
    return 1.0 - float((dense - explained).square().sum()) / spread if spread > 0 else 0.0


def _fit(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (F, classes), mean of the features (F,) and of the targets (classes,)."""
    mean, offset = features.mean(0), targets.mean(0)
    centred = features - mean
    gram = centred.T @ centred
    penalty = RIDGE * float(gram.diagonal().mean()) or 1.0  # of features that never vary any will do
    gram.diagonal().add_(penalty)
    weights: Tensor = torch.linalg.solve(gram, centred.T @ (targets - offset))
    return weights, mean, offset


def _features(model: nn.Module, batch: Tensor) -> Tensor:
    """(B, F) float64 input of the linear layer that gives the network's output."""
    seen: list[tuple[Tensor, Tensor]] = []

    def look(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen[:] = [(args[0].detach(), output)]

    handles = [module.register_forward_hook(look) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with evaluating(model), torch.no_grad():
            logits = model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not seen or seen[0][1] is not logits or seen[0][0].ndim != 2:
        raise SecateurError("readout needs a network that ends in a linear layer on (B, F) features")
    if not bool(torch.isfinite(seen[0][0]).all()):
        raise SecateurError("a feature is NaN or infinite; the structure cannot be scored")
    return seen[0][0].double()
