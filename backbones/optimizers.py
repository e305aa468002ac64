"""An optimizer for the pruned network that goes on where the dense network's stood."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.surgery import cuts_of


@explained
def transfer_optimizer(optimizer: Optimizer, model: nn.Module, pruned: nn.Module) -> Optimizer:
    """Rebuilds an optimizer for a pruned module, with momentum and other state cut like the parameters.

    Parameter groups and their settings stay as they are. State tensors of a parameter's shape (SGD momentum, Adam's
    averages) lose the same positions as the parameter; scalars (step counts) are copied; tensors of any other shape
    cannot be cut and make the parameter start afresh. Parameters of removed layers leave their group.

    Args:
        optimizer: the optimizer of the dense module; it is not changed.
        model: the dense module, or what an earlier cut made of it.
        pruned: what `prune` made of that module, in one cut or several.

    Returns:
        an optimizer of the same class over the parameters of `pruned`.

    Raises:
        SecateurError: when `pruned` carries no origin or was not cut out of `model`, or the optimizer holds parameters
            that `model` does not have.
    """
    cuts, done = cuts_of(pruned), cuts_of(model)
    if not cuts:
        raise SecateurError("the pruned module carries no origin; make it with prune(model, graph, structure)")
    if cuts[: len(done)] != done:
        raise SecateurError("the pruned module was not cut out of this model; pass the one that prune() was given")
    cuts = cuts[len(done) :]
    names = {id(value): name for name, value in model.named_parameters()}
    targets = dict(pruned.named_parameters(remove_duplicate=False))
    groups: list[dict[str, Any]] = []
    moved: dict[Tensor, Mapping[Any, Any]] = {}
    for group in optimizer.param_groups:
        values = []
        for value in group["params"]:
            if id(value) not in names:
                raise SecateurError(
                    f"the optimizer holds a parameter of shape {tuple(value.shape)} that is not the model's; "
                    "pass the dense model it was made for"
                )
            name = names[id(value)]
            if name in targets:
                values.append(targets[name])
                state = _cut(optimizer.state.get(value, {}), value, [cut.tensors.get(name, {}) for cut in cuts])
                if state:
                    moved[targets[name]] = state
        groups.append({**{key: setting for key, setting in group.items() if key != "params"}, "params": values})
    result = type(optimizer)([group for group in groups if group["params"]], **_accepted(optimizer))
    for value, state in moved.items():
        result.state[value] = dict(state)
    return result


def _cut(state: Mapping[Any, Any], dense: Tensor, cuts: Sequence[Mapping[int, tuple[int, ...]]]) -> Mapping[Any, Any]:
    found: dict[Any, Any] = {}
    for key, item in state.items():
        if not isinstance(item, Tensor) or item.numel() == 1:
            found[key] = item.clone() if isinstance(item, Tensor) else item
        elif item.shape == dense.shape:
            for dim, kept in chain.from_iterable(dims.items() for dims in cuts):
                item = item.index_select(dim, torch.tensor(kept, device=item.device))
            found[key] = item.clone()
        else:
            return {}
    return found


def _accepted(optimizer: Optimizer) -> dict[str, Any]:
    """The defaults that the constructor takes back; internal ones are only in the groups."""
    known = inspect.signature(type(optimizer).__init__).parameters
    return {key: value for key, value in optimizer.defaults.items() if key in known}
