"""Batch norms of a refitted network: the dense network's scale kept, in evaluation and in training mode alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scoring.batch_norm import BatchNorm

Moments = tuple[Tensor, Tensor]
LEAST_GAMMA = 1e-6
"""A smaller |gamma| is taken for this: what stands before it does not matter."""
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """The kept channels of a dense batch norm: gamma (x - mean) / sqrt(variance + eps) + beta.

    Attributes:
        mean, variance: (channels,) running statistics.
        gamma, beta: (channels,) scale and shift; 1 and 0 without parameters.
        eps: of the module.
    """

    mean: Tensor
    variance: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float

    @property
    def spread(self) -> Tensor:
        """(channels,) sqrt(variance + eps)."""
        return torch.sqrt(self.variance + self.eps)

    def affine(self, dtype: torch.dtype) -> Moments:
        """(channels,) base and scale: the norm gives (x - base) / scale."""
        gamma = torch.where(self.gamma.abs() < LEAST_GAMMA, LEAST_GAMMA, self.gamma)
        scale = self.spread / gamma
        return (self.mean - self.beta * scale).to(dtype), scale.to(dtype)


def norm_of(module: nn.Module, kept: Any) -> Norm:
    """Reads a dense batch norm with running statistics.

    Args:
        module: the batch norm.
        kept: positions of the channels that stay, None for all.
    """
    assert isinstance(module, BatchNorm)
    mean, variance = module.running_mean, module.running_var
    assert mean is not None
    assert variance is not None
    gamma = torch.ones_like(mean) if module.weight is None else module.weight.detach()
    beta = torch.zeros_like(mean) if module.bias is None else module.bias.detach()
    if kept is not None:
        places = torch.as_tensor(kept, device=mean.device)
        mean, variance, gamma, beta = (value[places] for value in (mean, variance, gamma, beta))
    return Norm(mean, variance, gamma, beta, module.eps)


def settle_norm(module: nn.Module, dense: Norm, now: Moments, before: Moments, constant: Tensor | None) -> None:
    """Sets a pruned network's batch norm, in place.

    Behind a refitted layer the norm stays the dense network's function, shifted by the fit's constant: what the fit
    does not explain is lacking in its variance, and stretching the rest to the full one would only add to the error.
    The function is written with the statistics that its inputs have now, and a gamma and beta to match, so that batch
    statistics in training give the same. A norm without parameters, or behind anything else, takes the statistics of
    the pass, corrected by how far the dense network's own on these images are from its running ones.

    Args:
        module: the batch norm of the pruned network.
        dense: its channels in the dense network.
        now: (channels,) mean and biased variance of its inputs in this pass.
        before: the same in the dense network, over the same images.
        constant: (channels,) that the fit of the layer before left to it, None where there was none.
    """
    assert isinstance(module, BatchNorm)
    assert module.running_mean is not None
    assert module.running_var is not None
    ratio = (now[1] + LEAST_VARIANCE) / (before[1] + LEAST_VARIANCE)
    mean, variance = dense.mean + now[0] - before[0], dense.variance * ratio
    if constant is None:
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        return
    if not module.affine:
        shift_norm(module, dense, constant)
        return
    gamma = dense.gamma * torch.sqrt(variance + dense.eps) / dense.spread
    module.running_mean.copy_(mean)
    module.running_var.copy_(variance)
    module.weight.copy_(gamma)
    module.bias.copy_(dense.beta + dense.gamma * (mean + constant - dense.mean) / dense.spread)


def shift_norm(module: nn.Module, dense: Norm, constant: Tensor) -> None:
    """The dense network's function behind a fit, written with its own statistics: right in evaluation mode only."""
    assert isinstance(module, BatchNorm)
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(dense.mean - constant)
    module.running_var.copy_(dense.variance)
