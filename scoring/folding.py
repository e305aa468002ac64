"""Batch norm folded into the convolution in front of it: one layer less to run, the same function up to rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from backbones.graph import ChannelGraph, owner
from backbones.module_copy import copy_with
from backbones.program import Program, Ref, Step
from backbones.structure import Structure
from backbones.surgery import apply_plan, plan

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Folded:
    """A dense network with batch norms folded away, for forward passes in eval mode only.

    Attributes:
        model: holds `nn.Identity` in place of each folded norm, and a bias in the convolution before it.
        pairs: module paths, convolution -> norm.
    """

    model: nn.Module
    pairs: dict[str, str]

    def cut(self, graph: ChannelGraph, structure: Structure) -> nn.Module | None:
        """The pruned network, or None where a removed layer takes one half of a pair only."""
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


def fold(model: nn.Module, graph: ChannelGraph) -> Folded:
    """Folds every batch norm that alone reads one convolution, both plain modules called once.

    Args:
        model: the dense network; not changed, its tensors are shared where they stay as they are.
        graph: of it.
    """
    folded = copy_with(model, {id(value): value for value in [*model.parameters(), *model.buffers()]})
    pairs = dict(_pairs(folded, graph.program))
    with torch.no_grad():
        for conv, norm in pairs.items():
            _merge(folded.get_submodule(conv), folded.get_submodule(norm))
            parent, _, name = norm.rpartition(".")
            setattr(folded.get_submodule(parent), name, nn.Identity())
    return Folded(folded, pairs)


def _pairs(model: nn.Module, program: Program) -> list[tuple[str, str]]:
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
        if type(first) in CONVOLUTIONS and type(second) in NORMS and not (_observed(first) or _observed(second)):
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


def _observed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._modules)


def _merge(conv: nn.Module, norm: nn.Module) -> None:
    weight, mean, variance = conv.weight, norm.running_mean, norm.running_var
    assert isinstance(weight, torch.Tensor)
    assert isinstance(mean, torch.Tensor)
    assert isinstance(variance, torch.Tensor)
    assert isinstance(norm, NORMS)
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
