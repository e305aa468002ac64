"""Cuts a structure out of a model: a smaller module of the same class, the given one untouched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from backbones.architectures.resnet_cifar import ZeroPadShortcut
from backbones.arguments import explained
from backbones.checkpoint import plain_name
from backbones.errors import SecateurError, first_line
from backbones.graph import ChannelGraph
from backbones.memory_order import in_order, says_channels_last
from backbones.modes import evaluating
from backbones.module_copy import copy_with, runs_apart
from backbones.multihead import drop_heads, drops_heads
from backbones.registry import BackboneSpec
from backbones.removal import reduced
from backbones.state import untouched
from backbones.structure import Structure, keep_mask

GATES = {"LSTM": 4, "GRU": 3}
"""Kind of recurrent layer -> rows of its weights for each unit; one for the others."""


@dataclass(frozen=True)
class PruningPlan:
    """Where a pruned module comes from: all that is needed to cut its like out of the dense module, without a trace.

    Attributes:
        structure: what the cut kept.
        spec: how the dense backbone was built, None for a user's own module.
        tensors: parameter or buffer name -> dimension -> kept positions.
        sizes: path of a module or attribute -> for each of its dense channels whether it is kept (see
            `ChannelGraph.sized`).
        removed: module paths replaced by the identity.
        before: the cut that made the module which this one was cut out of; None where that was dense.
    """

    structure: Structure
    spec: BackboneSpec | None
    tensors: Mapping[str, Mapping[int, tuple[int, ...]]]
    sizes: Mapping[str, tuple[bool, ...]]
    removed: tuple[str, ...]
    before: PruningPlan | None = None

    @property
    def cuts(self) -> tuple[PruningPlan, ...]:
        """All cuts since the dense module, the first one first."""
        return (*(self.before.cuts if self.before else ()), self)


def cuts_of(model: nn.Module) -> tuple[PruningPlan, ...]:
    """The cuts that a module has gone through since it was dense, the first one first."""
    origin: PruningPlan | None = getattr(model, "secateur_origin", None)
    return () if origin is None else origin.cuts


@explained
def prune(model: nn.Module, graph: ChannelGraph, structure: Structure, *, check: bool = True) -> nn.Module:
    """A copy of `model` that holds only what `structure` keeps.

    Class, hooks, `requires_grad`, dtype, device, memory format and training mode are those of the model; parameters
    shared by two modules stay shared. The copy carries its `PruningPlan` as `secateur_origin`, behind those of the
    cuts that the model went through itself.

    Args:
        model: the network that was traced, dense or pruned before.
        graph: its channel graph.
        structure: what to keep.
        check: run the example through the result, and compare output shapes with the model's.

    Raises:
        SecateurError: when the structure is of another graph, code with literal sizes no longer fits, or the copy
            would go on computing with the given model's weights.
    """
    structure.check(graph)
    check_model(model, graph)
    pruned = apply_plan(model, plan(graph, structure, getattr(model, "secateur_spec", None)))
    if check:
        _run(model, pruned, graph)
    return pruned


def check_model(model: nn.Module, graph: ChannelGraph) -> None:
    """Raises SecateurError unless a graph can be of this model: names and shapes of its parameters and buffers."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    for name, tensor in graph.tensors.items():
        found = tensors.get(name)
        if found is None or found.shape != tensor.shape:
            has = "has none" if found is None else f"has {tuple(found.shape)}"
            raise SecateurError(
                f"the graph was traced with {name} of shape {tensor.shape}, this model {has}; trace the same model"
            )


def plan(graph: ChannelGraph, structure: Structure, spec: BackboneSpec | None = None) -> PruningPlan:
    """What surgery has to do, as plain data."""
    removed: tuple[str, ...] = ()
    target, kept = graph, structure
    if structure.removed:
        reduction = reduced(graph, structure.removed)
        target, kept, removed = reduction.graph, reduction.translate(structure), reduction.modules
    mask = keep_mask(target, kept)
    tensors = {
        name: {dim: tuple(np.flatnonzero(mask[units]).tolist()) for dim, units in tensor.units.items()}
        for name, tensor in target.tensors.items()
    }
    sizes = {module: tuple(mask[units].tolist()) for module, units in target.sized.items()}
    return PruningPlan(structure, spec, tensors, sizes, removed)


def apply_plan(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """Makes one cut in a copy of `model`: the module that the plan was made for, or a fresh one of its architecture.

    The plan's `before` is not looked at: the copy's is what the model went through.
    """
    origin: PruningPlan | None = getattr(model, "secateur_origin", None)
    tensors: dict[int, Any] = {id(origin): origin}
    changed: set[int] = set()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        dims = plan.tensors.get(name) or plan.tensors.get(plain_name(name))
        tensors[id(value)] = _selected(value, dims or {})
        if dims:
            changed.add(id(tensors[id(value)]))
    pruned = copy_with(model, tensors)
    for path in plan.removed:
        parent, _, child = path.rpartition(".")
        setattr(pruned.get_submodule(parent), child, nn.Identity())
    if plan.removed:
        for module in pruned.modules():
            # Two activations now follow each other, and one in place would overwrite what the other's gradient needs.
            if getattr(module, "inplace", None) is True:
                module.inplace = False  # type: ignore[assignment]
    for path, module in pruned.named_modules():
        if any(id(value) in changed for value in (*module._parameters.values(), *module._buffers.values())):
            sync_layer_sizes(module)
        size = plan.sizes.get(path) or plan.sizes.get(plain_name(path))
        if size:
            _set_layer_sizes(module, size)
    holders = {plain_name(path): module for path, module in pruned.named_modules()}
    for attribute, kept in plan.sizes.items():
        holder, name = holders.get(plain_name(attribute.rpartition(".")[0])), attribute.rpartition(".")[2]
        if type(getattr(holder, name, None)) is int:
            setattr(holder, name, sum(kept))
    pruned.secateur_origin = replace(plan, before=origin)  # type: ignore[assignment]
    return pruned


def _selected(value: Tensor, dims: Mapping[int, tuple[int, ...]]) -> Tensor:
    """A copy with only the kept positions, of the same class, memory format and `requires_grad`."""
    data = value.detach()
    if not dims:
        data = data.clone()
    for dim, kept in sorted(dims.items(), key=lambda item: len(item[1]) / value.shape[item[0]]):
        data = data.index_select(dim, torch.tensor(kept, device=data.device))
    if says_channels_last(value):
        data = in_order(data, torch.channels_last)
    elif value.ndim == 5 and value.is_contiguous(memory_format=torch.channels_last_3d) and not value.is_contiguous():
        data = data.contiguous(memory_format=torch.channels_last_3d)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(data, requires_grad=value.requires_grad)
    return data


def sync_layer_sizes(module: nn.Module) -> None:
    """Makes the numbers a layer states agree with the tensors it holds."""
    weight = getattr(module, "weight", None)
    if isinstance(module, _ConvNd):
        first, second = module.weight.shape[:2]
        depthwise = module.groups > 1 and module.groups == module.in_channels
        if module.transposed:
            module.groups = first if depthwise else module.groups
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            multiplier = module.out_channels // module.in_channels if depthwise else 1
            module.groups = first // multiplier if depthwise else module.groups
            module.in_channels, module.out_channels = second * module.groups, first
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = module.weight.shape
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        sample = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if sample is None else len(sample)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(module.weight)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and isinstance(weight, Tensor):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.RNNBase):
        reader = module.all_weights[0][0]
        module.input_size, module.hidden_size = reader.shape[1], reader.shape[0] // GATES.get(module.mode, 1)
    elif isinstance(module, nn.RNNCellBase):
        module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
    elif isinstance(module, nn.MultiheadAttention) and drops_heads(module):
        drop_heads(module, module.num_heads)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


def _set_layer_sizes(module: nn.Module, kept: tuple[bool, ...]) -> None:
    """Sets the sizes of a module that has no tensor to read them from."""
    if isinstance(module, ZeroPadShortcut):
        module.before, module.after = sum(kept[: module.before]), sum(kept[len(kept) - module.after :])
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = (sum(kept),)
    elif isinstance(module, _NormBase):
        module.num_features = sum(kept)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = sum(kept)
    elif isinstance(module, nn.MultiheadAttention) and not all(kept):  # kept: of each sample's heads
        drop_heads(module, module.num_heads * sum(kept) // len(kept))


def _run(model: nn.Module, pruned: nn.Module, graph: ChannelGraph) -> None:
    with evaluating(pruned), untouched(pruned), torch.no_grad():
        try:
            runs_apart(model, pruned, graph.example)
        except SecateurError:
            raise
        except Exception as error:
            raise SecateurError(f"the pruned network does not run on the example: {first_line(error)}") from error
