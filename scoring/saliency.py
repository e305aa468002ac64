"""Scores from gradients at the pruned weights: SynFlow and ZiCo."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from backbones.errors import SecateurError
from backbones.modes import evaluating
from scoring.scoring_task import ScoredStructure


def synflow(scored: ScoredStructure) -> float:
    """Log of sum over weights of |w dR/dw|, R the summed output for an input of ones with all weights made positive.

    Tanaka et al., NeurIPS 2020, equation 3 and algorithm 1; normalisation is left out of the flow, as in the zero-cost
    proxies (Abdelfattah et al., ICLR 2021), by making its parameters positive and running it in eval mode. Needs
    gradients, and of the batch only its shape; one forward and one backward pass of one sample, in float64 since the
    flow grows exponentially with depth.

    Raises:
        SecateurError: when the flow is zero or not finite.
    """
    model = scored.pruned
    state = {name: value.detach().double().abs() for name, value in model.named_parameters()}
    leaves = {name: value.requires_grad_(True) for name, value in state.items()}
    buffers = {
        name: torch.zeros_like(value, dtype=torch.float64)
        if name.endswith("running_mean")
        else value.double()
        if value.is_floating_point()
        else value
        for name, value in model.named_buffers()
    }
    ones = torch.ones_like(scored.task.batch[:1], dtype=torch.float64)
    with evaluating(model):
        flow = functional_call(model, {**leaves, **buffers}, (ones,)).sum()
        grads = torch.autograd.grad(flow, list(leaves.values()), allow_unused=True)
    total = sum(
        float((value.detach() * grad).abs().sum())
        for value, grad in zip(leaves.values(), grads, strict=True)
        if grad is not None
    )
    if not 0 < total < math.inf:
        raise SecateurError(f"the synaptic flow is {total}; the structure cannot be scored")
    return math.log(total)


def zico(scored: ScoredStructure) -> float:
    """Sum over layers of log of the sum of |mean| / standard deviation of the weights' gradients over half-batches.

    Li et al., ICLR 2023, equation 15, on two halves of the batch. Needs the batch, labels and gradients; two forward
    and backward passes of half a batch each. Weights with the same gradient in both halves don't count.

    Raises:
        SecateurError: without a layer whose gradients vary, or for fewer than 4 samples.
    """
    labels = scored.task.need_labels("zico")
    batch = scored.task.batch
    if len(batch) < 4:
        raise SecateurError(f"zico needs a batch of at least 4 samples, but got {len(batch)}")
    model = scored.pruned
    weights = [
        module.weight
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and module.weight.requires_grad
    ]
    halves: list[tuple[Tensor, ...]] = []
    with evaluating(model):
        for images, classes in zip(batch.chunk(2), labels.chunk(2), strict=True):
            loss = cross_entropy(model(images), classes)
            halves.append(torch.autograd.grad(loss, weights, allow_unused=True))
    logs = []
    for first, second in zip(*halves, strict=True):
        if first is None or second is None:
            continue
        pair = torch.stack([first, second]).double()
        spread = pair.std(0, correction=0)
        moving = spread > 0
        value = float((pair.abs().mean(0)[moving] / spread[moving]).sum())
        if value > 0:
            logs.append(math.log(value))
    if not logs:
        raise SecateurError("zico finds no layer whose gradients vary; the structure cannot be scored")
    return sum(logs)
