"""Layer by layer: every layer behind a cut refitted to the dense network's outputs, in one forward pass.

After He et al., "Channel pruning for accelerating very deep neural networks" (ICCV 2017, equation 1 with the mask
given), for all layers of any traced network at once. New here: a residual branch makes up for what the stream has lost,
a ReLU behind a layer leaves targets free, and batch norms keep the dense network's scale instead of stretching what
the fit explains to the dense variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import _pop_mode_temporarily

from backbones.inputs import output_of
from backbones.memory_order import keep_order, says_channels_last
from backbones.modes import evaluating, fast_precision
from backbones.structure import Structure
from backbones.surgery import PruningPlan, prune
from scoring.batch_norm import BatchNorm, observed
from scoring.reconstruction.additions import WatchAdditions
from scoring.reconstruction.fit import below_the_relu, fit
from scoring.reconstruction.layers import REFITTABLE
from scoring.reconstruction.norms import Moments, Norm, norm_of, settle_norm, shift_norm
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
    forward_only: bool = False,
    half: bool | None = None,
) -> nn.Module:
    """A structure of the dense network, refitted to its targets.

    Args:
        targets: of `gather_targets`.
        structure: what is kept.
        ridge: how strongly weights are drawn to the cut ones, relative to the mean diagonal of the inputs' Gram; > 0.
        rounds: alternations with the targets that a ReLU leaves free; 0 for plain least squares.
        forward_only: for forward passes in evaluation mode alone, which is faster: batch norms are folded into the
            refitted layers that they read, and the pass may be made in bfloat16 (the layers are solved for in float32
            all the same). Without, batch norms are written so that batch statistics give the same function in training.
        half: whether that pass is in bfloat16; None for where `fast_precision` says so.

    Returns:
        the pruned network, in the training flags of the dense one. `secateur_as_cut` names the layers that were not
        refitted, with the reasons.

    Raises:
        SecateurError: for a structure of another graph.
    """
    pruned = prune(targets.model, targets.graph, structure, check=False)
    plan = pruned.secateur_origin
    assert isinstance(plan, PruningPlan)
    if forward_only and any(isinstance(one, Tensor) and says_channels_last(one) for one in targets.inputs):
        keep_order(pruned, torch.channels_last)
    run = _Pass(targets, pruned, plan, ridge, rounds, forward_only)
    precision = fast_precision(targets.inputs[0] if forward_only and len(targets.inputs) == 1 else None, half)
    with evaluating(pruned), torch.no_grad(), run.attached(), run.additions, precision:
        output_of(pruned, targets.inputs)
    if run.additions.waiting:  # the cut network never adds them: each layer by itself
        alone = {path: replace(target, other=None) for path, target in targets.layers.items()}
        targets = replace(targets, layers=alone)
        return refit(targets, structure, ridge=ridge, rounds=rounds, forward_only=forward_only, half=half)
    for path in run.folded:
        parent, _, name = path.rpartition(".")
        setattr(pruned.get_submodule(parent), name, nn.Identity())
    here = dict(pruned.named_modules())
    as_cut = {path: reason for path, reason in {**targets.left, **run.failed}.items() if path in here}
    pruned.secateur_as_cut = as_cut  # type: ignore[assignment]
    return pruned


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A layer of the pruned network.

    Attributes:
        target: what it is fitted to.
        module: its convolution or linear layer.
        norm: the batch norm that alone reads it, or None.
        whole: whether nothing looks at the two while they run, so that they can run as one, and later than they are
            called.
    """

    target: LayerTarget
    module: nn.Module
    norm: nn.Module | None
    whole: bool

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        own = self.module._parameters
        return self.plain_with(own["weight"], own.get("bias"), *args, **kwargs)

    def plain_with(self, weight: Tensor | None, bias: Tensor | None, *args: Any, **kwargs: Any) -> Any:
        """What the module would compute with another weight and bias, in the precision of its input.

        Mixed precision does not reach a call out of `WatchAdditions`.
        """
        own, dtype = self.module._parameters, (args[0] if args else kwargs["input"]).dtype
        kept = own["weight"], own.get("bias")
        given = (None if one is None else nn.Parameter(one.to(dtype), False) for one in (weight, bias))
        own["weight"], own["bias"] = given
        try:
            return type(self.module).forward(self.module, *args, **kwargs)
        finally:
            own["weight"], own["bias"] = kept

    def behind(self, left: Any) -> Any:
        """What the norm makes of it, where it does not run by itself."""
        return type(self.norm).forward(self.norm, left) if self.norm is not None and self.whole else left


@dataclass(eq=False)
class _Pass:
    """One forward pass of the pruned network, in which every layer is refitted just before it runs.

    A layer and the batch norm that alone reads it run as one; where a sum reads them, once the other summand is known.
    """

    targets: DenseTargets
    pruned: nn.Module
    plan: PruningPlan
    ridge: float
    rounds: int
    forward_only: bool
    additions: WatchAdditions = field(default_factory=WatchAdditions)
    failed: dict[str, str] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside the block the layers that are refitted, and the batch norms, run as this pass wants."""
        modules = dict(self.pruned.named_modules())
        layers = [layer for target in self.targets.layers.values() if (layer := self._layer(target, modules))]
        own = {layer.target.layer.norm for layer in layers}
        hooks = [
            module.register_forward_pre_hook(self._settling(path))
            for path, module in modules.items()
            if isinstance(module, BatchNorm) and self.targets.moments.get(path) and path not in own
        ]
        for layer in layers:
            vars(layer.module)["forward"] = partial(self._call, layer)
            if layer.norm is not None and layer.whole:
                vars(layer.norm)["forward"] = _same
        try:
            yield
        finally:
            for layer in layers:
                vars(layer.module).pop("forward")
                if layer.norm is not None:
                    vars(layer.norm).pop("forward", None)
            for hook in hooks:
                hook.remove()

    def _layer(self, target: LayerTarget, modules: dict[str, nn.Module]) -> _Layer | None:
        """The layer as the cut left it; None where it was removed."""
        module, norm = modules.get(target.layer.path), modules.get(target.layer.norm or "")
        if not isinstance(module, REFITTABLE):
            return None
        if target.layer.norm is None:
            return _Layer(target, module, None, not observed(module))
        if not isinstance(norm, BatchNorm) or len(self.targets.moments.get(target.layer.norm, ())) != 1:
            self.failed[target.layer.path] = "the batch norm behind it was removed, or is not called once"
            return None
        return _Layer(target, module, norm, not observed(module) and not observed(norm))

    def _call(self, layer: _Layer, /, *args: Any, **kwargs: Any) -> Any:
        """In the place of a layer's forward."""
        entered = args[0] if args else kwargs["input"]
        if positions(padded(entered, layer.module), layer.module) != layer.target.positions:
            self.failed[layer.target.layer.path] = "channels lie along its positions, not along its inputs"
            return self._as_cut(layer, args, kwargs)
        if layer.target.other is None or not layer.whole:
            with _pop_mode_temporarily():
                return self._fitted(layer, entered, args, kwargs)
        held = _outputs_like(layer, entered)
        self.additions.expect(held, lambda other: self._fitted(layer, entered, args, kwargs, other))
        return held

    def _as_cut(self, layer: _Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        left = layer.plain(*args, **kwargs)
        if layer.norm is not None:
            self._settle(layer.target.layer.end, layer.norm, lambda: moments(left), None)
        return layer.behind(left)

    def _fitted(
        self,
        layer: _Layer,
        entered: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        other: Tensor | None = None,
    ) -> Any:
        """Solves for the layer, writes it and its norm, and runs them."""
        module, norm, end = layer.module, layer.norm, layer.target.layer.end
        weight = module.weight
        assert isinstance(weight, Tensor)
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        base, scale = (None, None) if norm is None else self._norm(end).affine(dtype)
        with torch.autocast(weight.device.type, enabled=False):
            found = self._solve(layer, entered, other, weight.to(dtype), base, scale)
        if found is None:
            self.failed[layer.target.layer.path] = "no finite solution: its inputs or weights overflow"
            return self._as_cut(layer, args, kwargs)
        matrix, constant = found
        read = weight_of(module, matrix, weight).to(weight.dtype)  # with the norm behind
        if base is None or scale is None or norm is None:
            _write(module, read, constant)
            return layer.plain(*args, **kwargs)
        if self.forward_only and layer.whole:
            module._parameters["bias"] = nn.Parameter(constant.to(weight.dtype), False)
            _write(module, read, constant)
            self.folded.append(end)
            return layer.plain(*args, **kwargs)
        raw = constant * scale + base
        if layer.whole:
            left = layer.plain_with(read, constant, *args, **kwargs)
        _write(module, weight_of(module, matrix * split_outputs(scale[None], parts(module)), weight), raw)
        shift = raw if module.bias is None else torch.zeros_like(raw)
        if not layer.whole:
            left = layer.plain(*args, **kwargs)
            self._settle(end, norm, lambda: moments(left), shift)
            return left

        def now() -> Moments:
            mean, variance = moments(left)
            return mean * scale + base - shift, variance * scale.square()

        self._settle(end, norm, now, shift)
        return left

    def _solve(
        self,
        layer: _Layer,
        entered: Tensor,
        other: Tensor | None,
        weight: Tensor,
        base: Tensor | None,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor] | None:
        """The weight as a matrix and the constant (outputs,) with which the next operation reads what is wanted."""
        target, module, groups = layer.target, layer.module, parts(layer.module)
        dtype = weight.dtype
        kept = outputs_kept(
            self.targets.model.get_submodule(target.layer.path), self._kept(f"{target.layer.path}.weight")
        )
        old, whole = weight_matrix(module, weight), _columns(target.outputs, kept).to(dtype)
        if base is not None and scale is not None:
            old, whole = old / split_outputs(scale[None], groups), (whole - base).div_(scale)
        wanted = whole
        if other is not None and target.other is not None:
            whole = whole + _columns(target.other, kept)
            wanted = whole - channel_rows(other, module).index_select(0, target.where.outputs)
        free = below_the_relu(whole, wanted) if target.layer.rectified and self.rounds else None
        found = fit(
            gather(module, entered, target.where, dtype),
            split_outputs(wanted, groups),
            old,
            centred=target.layer.centred,
            ridge=self.ridge,
            free=None if free is None else (split_outputs(free[0], groups), split_outputs(free[1], groups)),
            rounds=self.rounds,
        )
        return None if found is None else (found[0], join_outputs(found[1])[0])

    def _norm(self, path: str) -> Norm:
        return norm_of(self.targets.model.get_submodule(path), self._kept(f"{path}.running_mean").get(0))

    def _kept(self, tensor: str) -> dict[int, tuple[int, ...]]:
        return dict(self.plan.tensors.get(tensor, {}))

    def _settle(
        self, path: str, module: nn.Module, now: Callable[[], Moments], constant: Tensor | None, call: int = 0
    ) -> None:
        """Sets a batch norm; `now` measures its inputs, `constant` is what the fit before it left to it."""
        dense = self._norm(path)
        if constant is not None and self.forward_only:
            shift_norm(module, dense, constant)
            return
        calls, kept = self.targets.moments[path], self._kept(f"{path}.running_mean").get(0)
        mean, variance = calls[call % len(calls)]
        settle_norm(module, dense, now(), (_columns(mean, kept), _columns(variance, kept)), constant)

    def _settling(self, path: str) -> Callable[..., None]:
        calls = count()

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._settle(path, module, lambda: moments(args[0]), None, next(calls))

        return before


def _same(entered: Any) -> Any:
    """In the place of a batch norm's forward that has run already."""
    return entered


def _outputs_like(layer: _Layer, entered: Tensor) -> Tensor:
    """Room for what the layer will give, not filled."""
    module, shape = layer.module, list(layer.target.left)
    assert isinstance(module.weight, Tensor)
    if isinstance(module, _ConvNd):
        shape.insert(1, module.out_channels)
    else:
        shape.append(len(module.weight))
    last = entered.ndim == 4 and entered.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=entered.dtype, device=entered.device, memory_format=order)


def _write(module: nn.Module, weight: Tensor, constant: Tensor) -> None:
    assert isinstance(module.weight, Tensor)
    module.weight.copy_(weight)
    if isinstance(module.bias, Tensor):
        module.bias.copy_(constant)


def _columns(values: Tensor, kept: Sequence[int] | None) -> Tensor:
    """The kept positions of the last dimension."""
    return values if kept is None else values.index_select(-1, torch.as_tensor(kept, device=values.device))
