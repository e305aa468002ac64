"""SynFlow: how much flows through the weights of a pruned network (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import math

import torch
from torch.func import functional_call

from backbones.errors import SecateurError
from backbones.inputs import as_arguments, first_samples, map_tensors, named, tensors_in
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
    ones = map_tensors(
        lambda tensor: torch.ones_like(tensor, dtype=torch.float64 if tensor.is_floating_point() else None),
        as_arguments(first_samples(scored.task.batch, 1)),
    )
    with evaluating(model):
        outputs = functional_call(model, {**leaves, **buffers}, tuple(ones), named(ones))
        flow = torch.stack([one.sum() for one in tensors_in(outputs) if one.is_floating_point()]).sum()
        grads = torch.autograd.grad(flow, list(leaves.values()), allow_unused=True)
    total = sum(
        float((value.detach() * grad).abs().sum())
        for value, grad in zip(leaves.values(), grads, strict=True)
        if grad is not None
    )
    if not 0 < total < math.inf:
        raise SecateurError(f"the synaptic flow is {total}; the structure cannot be scored")
    return math.log(total)
