"""Gradients of the loss at the weights that make the channels, without touching the model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from backbones.graph import ChannelGraph
from scoring.measuring import measuring
from scoring.slices import makers


def loss_gradients(model: nn.Module, graph: ChannelGraph, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean cross entropy over one batch, in eval mode.

    Args:
        model: classifier; its parameters, buffers, gradients and modes stay as they are.
        graph: of `trace`.
        images: (B, C, H, W) on the model's device.
        labels: (B,) int64.

    Returns:
        Per weight that makes channels its gradient, zeros where the loss does not depend on it.

    Raises:
        SecateurError: when the model fails on the images, or the loss on the labels.
    """
    names = dict.fromkeys(member.tensor for group in graph.groups for member in makers(group))
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    leaves = [state[name].requires_grad_(True) for name in names]
    with measuring(model, images):
        loss = cross_entropy(functional_call(model, state, (images,)), labels)
        found = grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))
