"""Batch norms of pruned networks: statistics that fit the weights they have now, or folded into convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, owner
from backbones.inputs import move_tensors, run_on, sample_count
from backbones.modes import device_of, evaluating
from backbones.module_copy import copy_with
from backbones.program import Program, Ref, Step
from backbones.structure import Structure
from backbones.surgery import apply_plan, plan

BatchNorm = nn.modules.batchnorm._BatchNorm
FOLDED_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FOLDED_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@explained
def recalibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Replaces all batch-norm running statistics by their mean over `batches`, in place, without gradients.

    Pruning shifts the statistics of every layer behind the cut; this repairs them at the price of a few forward passes
    (adaptive batch norm, Li et al., ECCV 2020, EagleEye). Everything else, dropout too, stays in evaluation mode.

    Args:
        model: changed in place (only batch-norm buffers); training flags are kept.
        batches: normalised images (B, C, H, W), or inputs of another form, as the network takes them; nothing happens
            when there are none.

    Raises:
        SecateurError: for batches without samples.
    """
    images = iter(batches)
    first = next(images, None)
    if first is None:
        return
    if not sample_count(first):
        raise SecateurError(f"batches must hold batches of inputs, but the first is {first!r}")
    place = device_of(model)
    with recalibrating(model), torch.no_grad():
        for batch in itertools.chain([first], images):
            run_on(model, move_tensors(batch, place))


@contextmanager
def recalibrating(model: nn.Module) -> Iterator[None]:
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


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A dense network with batch norms folded away, for forward passes in eval mode only.

    Attributes:
        model: holds `nn.Identity` in place of each folded norm, and a bias in the convolution before it.
        pairs: module paths, convolution -> norm.
    """

    model: nn.Module
    pairs: dict[str, str]

    def prune(self, graph: ChannelGraph, structure: Structure) -> nn.Module | None:
        """Cuts a structure out of the folded network.

        Args:
            graph: the dense network's channel graph.
            structure: what is kept.

        Returns:
            The pruned network without the folded batch norms, or None where a removed layer takes one half of a
            folded pair only: such a structure has to be cut out of the network as it was.
        """
        origin = plan(graph, structure)
        gone = tuple(f"{path}." for path in origin.removed)
        if any(f"{conv}.".startswith(gone) != f"{norm}.".startswith(gone) for conv, norm in self.pairs.items()):
            return None
        biases = {
            f"{conv}.bias": {0: origin.tensors[f"{conv}.weight"][0]}
            for conv in self.pairs
            if 0 in origin.tensors.get(f"{conv}.weight", {})
        }
        return apply_plan(self.model, replace(origin, tensors={**origin.tensors, **biases}))


def fold_batch_norms(model: nn.Module, graph: ChannelGraph) -> FoldedNetwork:
    """Folds every batch norm into the convolution that it alone reads, where both are plain modules called once.

    Args:
        model: the dense network; not changed, its tensors are shared where they stay as they are.
        graph: its channel graph.
    """
    folded = copy_with(model, {id(value): value for value in [*model.parameters(), *model.buffers()]})
    pairs = dict(_pairs(folded, graph.program))
    with torch.no_grad():
        for conv, norm in pairs.items():
            _merge(folded.get_submodule(conv), folded.get_submodule(norm))
            parent, _, name = norm.rpartition(".")
            setattr(folded.get_submodule(parent), name, nn.Identity())
    return FoldedNetwork(folded, pairs)


def _pairs(model: nn.Module, program: Program) -> list[tuple[str, str]]:
    """Module paths (convolution, norm) that can be folded: the norm alone reads what the convolution gives."""
    found = []
    for number, step in enumerate(program.steps):
        readers = program.users.get(number, ())
        if not step.op.startswith("aten.conv") or len(readers) != 1:
            continue
        reader = program.steps[readers[0]]
        if reader.op != "aten.batch_norm" or reader.args[0] != Ref(number):
            continue
        conv, norm = _own(program, step, 1), _own(program, reader, 3)
        if conv is None or norm is None:
            continue
        first, second = model.get_submodule(conv), model.get_submodule(norm)
        if (
            type(first) in FOLDED_CONVOLUTIONS
            and type(second) in FOLDED_NORMS
            and not (observed(first) or observed(second))
        ):
            found.append((conv, norm))
    return found


def _own(program: Program, step: Step, place: int) -> str | None:
    """The module that a step is the one call of, told by the tensor in an argument place; None where it is not."""
    ref = step.args[place] if len(step.args) > place else None
    if not isinstance(ref, Ref) or program.steps[ref.step].kind not in ("parameter", "buffer"):
        return None
    name = program.tensors.names.get(program.steps[ref.step].op, "")
    path = owner(name)
    calls = [s for s in program.steps if s.kind == "call" and path in s.modules]
    return path if path == step.module and calls == [step] and path != name else None


def observed(module: nn.Module) -> bool:
    """Whether hooks or inner modules look at the module, so that folding it away would be noticed."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._modules)


def _merge(conv: nn.Module, norm: nn.Module) -> None:
    """Gives the convolution the weight and bias that do what it and its norm do in eval mode."""
    weight, mean, variance = conv.weight, norm.running_mean, norm.running_var
    assert isinstance(weight, torch.Tensor)
    assert isinstance(mean, torch.Tensor)
    assert isinstance(variance, torch.Tensor)
    assert isinstance(norm, FOLDED_NORMS)
    scale = torch.rsqrt(variance.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if isinstance(conv.bias, torch.Tensor):
        shift = shift + conv.bias.double() * scale
    shape = (-1,) + (1,) * (weight.ndim - 1)
    conv._parameters["weight"] = nn.Parameter((weight.double() * scale.view(shape)).to(weight.dtype), False)
    conv._parameters["bias"] = nn.Parameter(shift.to(weight.dtype), False)
