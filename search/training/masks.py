"""Unstructured weight pruning on top of a pruned structure (double pruning): masks made once and held while tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from backbones.errors import SecateurError
from search.checks import check_range

Scope = Literal["global", "layer"]
Masks = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class EffectiveParameters:
    """What is left of the parameters.

    Attributes:
        params: all parameter elements of the network.
        masked: elements held at zero.
    """

    params: int
    masked: int

    @property
    def effective(self) -> int:
        """Parameters that may differ from zero."""
        return self.params - self.masked


def magnitude_masks(model: nn.Module, amount: float, *, scope: Scope = "global", spare: Iterable[str] = ()) -> Masks:
    """Masks that drop the smallest weights of convolutions and linear layers (Han et al., NeurIPS 2015).

    Args:
        model: not changed.
        amount: share of those weights to drop, 0 <= amount < 1.
        scope: "global" compares weights over all layers, "layer" drops the same share of each.
        spare: layers left alone, by module path.

    Returns:
        parameter name -> bool mask of its shape, True where the weight stays; a tied weight once.

    Raises:
        SecateurError: for an amount out of range, an unknown scope or layer, or a network without such weights.
    """
    check_range("amount", amount, 0, 1, below=True)
    if scope not in ("global", "layer"):
        raise SecateurError(f"scope must be 'global' or 'layer', but got {scope!r}")
    weights = _weights(model, set(spare))
    # torch.nn.utils.prune chooses what goes; its re-parametrisation (weight_orig, weight_mask) would change the names
    # of the state dict and is left out.
    rule = prune.L1Unstructured(amount)
    if scope == "layer":
        return {name: rule.compute_mask(weight, torch.ones_like(weight)).bool() for name, weight in weights.items()}
    flat = torch.cat([weight.reshape(-1) for weight in weights.values()])
    pieces = (
        rule.compute_mask(flat, torch.ones_like(flat)).bool().split([weight.numel() for weight in weights.values()])
    )
    return {name: piece.view_as(weight) for (name, weight), piece in zip(weights.items(), pieces, strict=True)}


def _weights(model: nn.Module, spare: set[str]) -> dict[str, Tensor]:
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    found: dict[str, Tensor] = {}
    named = {name: module for name, module in model.named_modules() if isinstance(module, layers)}
    unknown = sorted(spare - set(named))
    if unknown:
        raise SecateurError(f"spare names {unknown[0]!r}; the layers with weights are {', '.join(named)}")
    seen: set[int] = set()
    for name, module in named.items():
        weight = module.weight
        if name not in spare and id(weight) not in seen:
            seen.add(id(weight))
            found[f"{name}.weight" if name else "weight"] = weight.detach()
    if not found:
        raise SecateurError("no convolution or linear layer is left to prune weights of")
    return found


def hold(model: nn.Module, masks: Mapping[str, Tensor]) -> Callable[[], None]:
    """A step, run after the optimiser's, that sets masked weights to zero.

    Args:
        model: changed by the step.
        masks: parameter name -> mask of its shape, False where the weight is zero.

    Raises:
        SecateurError: for an unknown parameter or a mask of another shape.
    """
    parameters = dict(model.named_parameters())
    held, dropped = [], []
    for name, mask in masks.items():
        if name not in parameters:
            raise SecateurError(f"a mask names {name!r}; the network has no such parameter")
        if mask.shape != parameters[name].shape:
            raise SecateurError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}; the parameter has {tuple(parameters[name].shape)}"
            )
        held.append(parameters[name])
        dropped.append(~mask.bool().to(parameters[name].device))

    def zero() -> None:
        # masked_fill_ and not a product: 0 * NaN is NaN, and -0.0 would count as a difference
        with torch.no_grad():
            for parameter, gone in zip(held, dropped, strict=True):
                parameter.masked_fill_(gone, 0)

    return zero


def effective_parameters(model: nn.Module, masks: Mapping[str, Tensor]) -> EffectiveParameters:
    """Parameters in all and those held at zero; a zero that is not masked counts as a parameter.

    Raises:
        SecateurError: when a mask does not belong to `model`.
    """
    hold(model, masks)
    total = sum(parameter.numel() for parameter in model.parameters())
    return EffectiveParameters(total, sum(int((~mask.bool()).sum()) for mask in masks.values()))
