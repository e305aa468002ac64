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

from backbones.modes import evaluating
from backbones.structure import Structure
from backbones.surgery import PruningPlan, prune
from scoring.batch_norm import BatchNorm
from scoring.reconstruction.additions import WatchAdditions
from scoring.reconstruction.fit import Rectifier, fit
from scoring.reconstruction.norms import Norm, norm_of, settle
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


def refit(targets: DenseTargets, structure: Structure, *, ridge: float = RIDGE, rounds: int = ROUNDS) -> nn.Module:
    """A structure of the dense network, refitted to its targets.

    Args:
        targets: of `gather_targets`.
        structure: what is kept.
        ridge: how strongly weights are drawn to the cut ones, relative to the mean diagonal of the inputs' Gram; > 0.
        rounds: alternations with the targets that a ReLU leaves free; 0 for plain least squares.

    Returns:
        the pruned network, in the training flags of the dense one. `secateur_as_cut` names the layers that were not
        refitted, with the reasons.

    Raises:
        SecateurError: for a structure of another graph.
    """
    pruned = prune(targets.model, targets.graph, structure, check=False)
    plan = pruned.secateur_origin
    assert isinstance(plan, PruningPlan)
    run = _Pass(targets, pruned, plan, ridge, rounds)
    handles = [handle for path, module in pruned.named_modules() for handle in run.hooks(path, module)]
    try:
        with evaluating(pruned), torch.no_grad(), run.additions:
            pruned(*targets.inputs)
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
        wanted = _columns(target.outputs, kept).to(dtype)
        norm = self._norm(layer.norm)
        zero, scale = norm.zero(wanted) if norm else (torch.zeros_like(wanted[:1]), torch.ones_like(wanted[:1]))
        read = (wanted - zero) / scale  # what the dense network's next operation reads
        if other is not None and target.other is not None:
            dense, now = _columns(target.other, kept), channel_rows(other, module).index_select(0, target.where.outputs)
            read = read + dense
            wanted = wanted + (dense - now) * scale
            zero = zero - now * scale
        rectifier = None
        if layer.rectified:
            silent, at, sign = (split_outputs(each, groups) for each in (read <= 0, zero, scale.sign()))
            rectifier = Rectifier(silent, at, sign)
        old = weight_matrix(module, weight.to(dtype))
        found = fit(
            gather(module, entered, target.where, dtype),
            split_outputs(wanted, groups),
            old,
            centred=layer.centred,
            ridge=self.ridge,
            rectifier=rectifier,
            rounds=self.rounds,
        )
        if found is None:
            self.failed[layer.path] = "no finite solution: its inputs or weights overflow"
            return
        weights, constant = found[0], join_outputs(found[1])[0]
        weight.copy_(weight_of(module, weights, weight))
        if isinstance(module.bias, Tensor):
            module.bias.copy_(constant)
        elif layer.norm is not None:
            self.constants[layer.norm] = constant

    def _norm(self, path: str | None) -> Norm | None:
        if path is None:
            return None
        return norm_of(self.targets.model.get_submodule(path), self._kept(f"{path}.running_mean").get(0))

    def _kept(self, tensor: str) -> dict[int, tuple[int, ...]]:
        return dict(self.plan.tensors.get(tensor, {}))

    def _settling(self, path: str, seen: list[tuple[Tensor, Tensor]]) -> Callable[..., None]:
        dense, kept = self.targets.model.get_submodule(path), self._kept(f"{path}.running_mean").get(0)
        calls = self.targets.moments[path]

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            was = tuple(_columns(value, kept) for value in calls[len(seen) % len(calls)])
            seen.append(moments(args[0]))
            settle(module, norm_of(dense, kept), seen[-1], (was[0], was[1]), self.constants.get(path))

        return before


def _columns(values: Tensor, kept: Sequence[int] | None) -> Tensor:
    """The kept positions of the last dimension."""
    return values if kept is None else values[..., torch.as_tensor(kept, device=values.device)]
