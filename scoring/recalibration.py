"""Batch-norm statistics that fit the weights a network has now."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backbones.modes import device_of, evaluating

BatchNorm = nn.modules.batchnorm._BatchNorm


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces all batch-norm running statistics by their mean over `batches`, in place, without gradients.

    Pruning shifts the statistics of every layer behind the cut; this repairs them at the price of a few forward passes
    (adaptive batch norm, Li et al., ECCV 2020, EagleEye). Everything else, dropout too, stays in evaluation mode.

    Args:
        model: changed in place (only batch-norm buffers); training flags are kept.
        batches: normalised images (B, C, H, W); nothing happens when there are none.
    """
    images = iter(batches)
    first = next(images, None)
    if first is None:
        return
    place = device_of(model)
    with renewing(model), torch.no_grad():
        for batch in itertools.chain([first], images):
            model(batch.to(place))


@contextmanager
def renewing(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, but for batch norms: they use the statistics of each batch and collect their mean."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean instead of a decaying one
            norm.train()
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
