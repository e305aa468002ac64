"""The law every network is held to: pruned equals masked dense, arithmetic equals a recount, gradients are finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.cost import cost, recount
from backbones.graph import ChannelGraph
from backbones.inputs import output_of
from backbones.masked_reference import masked_reference
from backbones.modes import evaluating
from backbones.structure import Structure
from backbones.surgery import prune


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with random vectors: fresh norms (ones, zeros) would hide values that end up elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and value.ndim <= 1 and value.numel() > 1:
                low, high = (0.5, 1.5) if name.endswith(("var", "weight")) else (-0.3, 0.3)
                value.uniform_(low, high, generator=generator)
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    """A float64 input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor inside nested outputs."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, (tuple, list)) else []


def gap(model: nn.Module, graph: ChannelGraph, structure: Structure, pruned: nn.Module) -> float:
    """The largest difference of the pruned network to the masked dense one, relative to the largest value."""
    with evaluating(pruned), torch.no_grad():
        found = tensors_of(output_of(pruned, graph.example))
    wanted = tensors_of(masked_reference(model, graph, structure, graph.example))
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in wanted]
    scale = max(float(tensor.abs().max()) for tensor in wanted)
    assert np.isfinite(scale)
    assert scale > 1e-9
    return max(float((one - other).abs().max()) for one, other in zip(found, wanted, strict=True)) / scale


def parameters(module: nn.Module) -> int:
    """Number of parameter elements, tied ones once."""
    return sum(value.numel() for value in module.parameters())


def assert_law(
    model: nn.Module,
    graph: ChannelGraph,
    structure: Structure,
    *,
    values: bool = True,
    counted: bool = True,
    without_gradient: Sequence[str] = (),
    tolerance: float = 1e-9,
) -> nn.Module:
    """Parity to `tolerance` (unless `values` is off), exact cost (MACs unless `counted` is off), finite gradients."""
    pruned = prune(model, graph, structure)
    if values:
        assert gap(model, graph, structure, pruned) < tolerance
    arithmetic = cost(graph, structure)
    if counted:
        assert arithmetic.macs == recount(pruned, graph.example).macs
    assert arithmetic.params == parameters(pruned)
    assert_finite_gradients(pruned, graph, without_gradient)
    return pruned


def assert_finite_gradients(pruned: nn.Module, graph: ChannelGraph, without_gradient: Sequence[str] = ()) -> None:
    """Every parameter that the forward pass uses gets a finite gradient, but those known to have none."""
    pruned.eval()
    pruned.zero_grad()
    outputs = [tensor for tensor in tensors_of(output_of(pruned, graph.example)) if tensor.requires_grad]
    torch.autograd.backward([tensor.square().sum() for tensor in outputs])
    silent = set()
    for name, value in pruned.named_parameters():
        if value.grad is None:
            silent.add(name)
        else:
            assert bool(torch.isfinite(value.grad).all()), f"{name} has gradients that are not finite"
    pruned.zero_grad()
    assert silent <= {*graph.unreached, *without_gradient}
