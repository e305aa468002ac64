"""Layer by layer: every layer behind a cut refitted to the dense network's outputs, in one forward pass.

After He et al., "Channel pruning for accelerating very deep neural networks" (ICCV 2017, equation 1 with the mask
given), for all layers of any traced network at once. New here: a residual branch makes up for what the stream has lost,
a ReLU behind a layer leaves targets free, and batch norms keep the dense network's scale instead of stretching what
the fit explains to the dense variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from backbones.inputs import output_of
from backbones.modes import evaluating
from backbones.structure import Structure
from backbones.surgery import PruningPlan, prune
from scoring.batch_norm import BatchNorm
from scoring.reconstruction.additions import WatchAdditions
from scoring.reconstruction.fit import fit
from scoring.reconstruction.norms import Norm, norm_of, settle_norm, shift_norm
from scoring.reconstruction.patches import (
    channel_rows,
    gather,
    join_outputs,
    outputs_kept,
    padded,
    parts,
    positions,
    split_outputs,
    weight_matrix,
    weight_of,
)
from scoring.reconstruction.targets import DenseTargets, LayerTarget, moments

RIDGE = 0.03
ROUNDS = 2
"""Alternations with the targets that a ReLU leaves free."""


def refit(
    targets: DenseTargets,
    structure: Structure,
    *,
    ridge: float = RIDGE,
    rounds: int = ROUNDS,
    for_training: bool = True,
) -> nn.Module:
    """A structure of the dense network, refitted to its targets.

    Args:
        targets: of `gather_targets`.
        structure: what is kept.
        ridge: how strongly weights are drawn to the cut ones, relative to the mean diagonal of the inputs' Gram; > 0.
        rounds: alternations with the targets that a ReLU leaves free; 0 for plain least squares.
        for_training: write batch norms so that batch statistics give the same function; without, which is faster, the
            network is right in evaluation mode only.

    Returns:
        the pruned network, in the training flags of the dense one. `secateur_as_cut` names the layers that were not
        refitted, with the reasons.

    Raises:
        SecateurError: for a structure of another graph.
    """
    pruned = prune(targets.model, targets.graph, structure, check=False)
    plan = pruned.secateur_origin
    assert isinstance(plan, PruningPlan)
    run = _Pass(targets, pruned, plan, ridge, rounds, for_training)
    handles = [handle for path, module in pruned.named_modules() for handle in run.hooks(path, module)]
    try:
        with evaluating(pruned), torch.no_grad(), run.additions:
            output_of(pruned, targets.inputs)
    finally:
        for handle in handles:
            handle.remove()
    here = dict(pruned.named_modules())
    as_cut = {path: reason for path, reason in {**targets.left, **run.failed}.items() if path in here}
    pruned.secateur_as_cut = as_cut  # type: ignore[assignment]
    return pruned


@dataclass(eq=False)
class _Pass:
    """One forward pass of the pruned network, in which layers are refitted just before they run."""

    targets: DenseTargets
    pruned: nn.Module
    plan: PruningPlan
    ridge: float
    rounds: int
    for_training: bool
    additions: WatchAdditions = field(default_factory=WatchAdditions)
    constants: dict[str, Tensor] = field(default_factory=dict)
    held: dict[str, Tensor] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def hooks(self, path: str, module: nn.Module) -> list[RemovableHandle]:
        """Registers what a module needs."""
        target = self.targets.layers.get(path)
        if target is not None and target.other is None:
            return [module.register_forward_pre_hook(self._refitting(target), with_kwargs=True)]
        if target is not None:
            end = self.pruned.get_submodule(target.layer.end)
            return [
                module.register_forward_pre_hook(self._holding(path), with_kwargs=True),
                end.register_forward_hook(self._waiting(target, module)),
            ]
        if self.targets.moments.get(path) and isinstance(module, BatchNorm):
            return [module.register_forward_pre_hook(self._settling(path, []))]
        return []

    def _refitting(self, target: LayerTarget) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._fit(target, module, args[0] if args else kwargs["input"], None)

        return before

    def _holding(self, path: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if path not in self.done:
                self.held[path] = args[0] if args else kwargs["input"]

        return before

    def _waiting(self, target: LayerTarget, module: nn.Module) -> Callable[..., None]:
        """The layer has run as cut; once the other summand is known it is refitted, and runs again."""
        path = target.layer.path

        def after(end: nn.Module, args: object, output: Tensor) -> None:
            def see(ours: Tensor, other: Tensor) -> None:
                entered = self.held.pop(path)
                self.done.add(path)
                self._fit(target, module, entered, other)
                again = module(entered)
                ours.copy_(again if end is module else end(again))

            if path in self.held:
                self.additions.expect(output, see)

        return after

    def _fit(self, target: LayerTarget, module: nn.Module, entered: Tensor, other: Tensor | None) -> None:
        layer, groups = target.layer, parts(module)
        weight = module.weight
        assert isinstance(weight, Tensor)
        if positions(padded(entered, module), module) != target.positions:
            self.failed[layer.path] = "channels lie along its positions, not along its inputs"
            return
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        kept = outputs_kept(self.targets.model.get_submodule(layer.path), self._kept(f"{layer.path}.weight"))
        read = _columns(target.outputs, kept).to(dtype)
        base, scale = torch.zeros_like(read[0]), torch.ones_like(read[0])
        if layer.norm is not None:
            base, scale = self._norm(layer.norm).affine(dtype)
            read = (read - base) / scale  # as the dense network's next operation reads it
        wanted, edge = read, torch.zeros_like(read[:1])
        if other is not None and target.other is not None:
            now = channel_rows(other, module).index_select(0, target.where.outputs).to(dtype)
            read = read + _columns(target.other, kept)
            wanted, edge = read - now, -now
        found = fit(
            gather(module, entered, target.where, dtype),
            split_outputs(wanted, groups),
            weight_matrix(module, weight.to(dtype)) / split_outputs(scale[None], groups),
            centred=layer.centred,
            ridge=self.ridge,
            silent=split_outputs(read <= 0, groups) if layer.rectified else None,
            edge=split_outputs(edge, groups),
            rounds=self.rounds,
        )
        if found is None:
            self.failed[layer.path] = "no finite solution: its inputs or weights overflow"
            return
        weights = found[0] * split_outputs(scale[None], groups)
        constant = join_outputs(found[1])[0] * scale + base
        weight.copy_(weight_of(module, weights, weight))
        if isinstance(module.bias, Tensor):
            module.bias.copy_(constant)
            constant = torch.zeros_like(constant)
        if layer.norm is not None:
            self.constants[layer.norm] = constant

    def _norm(self, path: str) -> Norm:
        return norm_of(self.targets.model.get_submodule(path), self._kept(f"{path}.running_mean").get(0))

    def _kept(self, tensor: str) -> dict[int, tuple[int, ...]]:
        return dict(self.plan.tensors.get(tensor, {}))

    def _settling(self, path: str, seen: list[tuple[Tensor, Tensor]]) -> Callable[..., None]:
        dense, calls = self._norm(path), self.targets.moments[path]
        kept = self._kept(f"{path}.running_mean").get(0)

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            constant = self.constants.get(path)
            if constant is not None and not self.for_training:
                shift_norm(module, dense, constant)
                return
            was = tuple(_columns(value, kept) for value in calls[len(seen) % len(calls)])
            seen.append(moments(args[0]))
            settle_norm(module, dense, seen[-1], (was[0], was[1]), constant)

        return before


def _columns(values: Tensor, kept: Sequence[int] | None) -> Tensor:
    """The kept positions of the last dimension."""
    return values if kept is None else values.index_select(-1, torch.as_tensor(kept, device=values.device))
