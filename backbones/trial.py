"""A trial pruning at trace time: code with literal sizes is found now, not in the middle of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from backbones.cost import Cost
from backbones.graph import ChannelGraph, Frozen, Group
from backbones.modes import evaluating
from backbones.module_copy import copy_with
from backbones.oracle import difference, masked
from backbones.program import first_line, place, references
from backbones.structure import Structure
from backbones.surgery import cut, plan

CERTAIN = 1e-5
"""A relative difference to the masked dense network up to here is rounding; above, float64 decides."""
PRECISE = 1e-9
"""Relative difference in float64 above which a pruned network counts as wrong."""
COARSE = {torch.bfloat16: 0.1, torch.float16: 0.03}
"""The same for networks whose code does not run in float64, by their weights' type; 1e-3 for float32."""


LARGE = Cost(macs=3_000_000_000, params=50_000_000)
"""Networks with more of either are compared on one half of their channels instead of both."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A network to try structures on.

    Attributes:
        plain: the given model.
        model: the same with stand-ins for constant weights (see `awake`).
        graph: its channel graph.
        example: inputs to compare outputs on (see `lively`).
    """

    plain: nn.Module
    model: nn.Module
    graph: ChannelGraph
    example: tuple[Any, ...]

    def failures(self) -> tuple[Frozen, ...]:
        """The groups that cannot really be pruned, found by pruning all at once and bisecting only on failure.

        A group fails when the pruned network does not run on the example, or does not equal the masked dense network.
        Groups whose channels share layer or group statistics change values by nature: only their shapes are checked.
        """
        mixed = self.graph.mixed
        exact = [group for group in self.graph.groups if group.name not in mixed]
        broken = self._culprits(exact, numeric=True)
        gone = {group.name for group, _, _ in broken}
        rest = [group for group in self.graph.groups if group.name not in gone]
        if mixed:
            broken += self._culprits(rest, numeric=False)
        return tuple(
            Frozen(group.name.partition("#")[0], tuple(range(group.size)), "trial pruning", group.name, line, reason)
            for group, line, reason in broken
        )

    def _culprits(self, groups: Sequence[Group], *, numeric: bool) -> list[tuple[Group, str, str]]:
        problem = self._attempt(groups, numeric=numeric) if groups else None
        if problem is None:
            return []
        if len(groups) == 1:
            return [(groups[0], *problem)]
        half = len(groups) // 2
        broken = self._culprits(groups[:half], numeric=numeric)
        broken += self._culprits(groups[half:], numeric=numeric)
        gone = {group.name for group, _, _ in broken}
        rest = [group for group in groups if group.name not in gone]
        if not broken:  # neither half fails alone: they only fail together
            return [(group, *problem) for group in groups]
        return broken + self._culprits(rest, numeric=numeric) if len(groups) > 2 else broken

    def _attempt(self, groups: Sequence[Group], *, numeric: bool) -> tuple[str, str] | None:
        """(source line, reason) when pruning these groups goes wrong."""
        rng = np.random.default_rng(0)
        orders = {group.name: rng.permutation(group.size) for group in groups}
        cuts = {name: max(1, round(len(order) * rng.uniform(0.4, 0.7))) for name, order in orders.items()}
        # a literal size can fit by chance: one channel less has no divisor in common, one channel survives no squeeze
        extremes = [{name: order[:1] for name, order in orders.items()}]
        extremes.append({name: order[1:] for name, order in orders.items()})
        # two halves, so that every channel is looked at
        halves = [{name: order[: cuts[name]] for name, order in orders.items()}]
        halves.append({name: order[cuts[name] :] for name, order in orders.items()})
        try:
            for kept in extremes:
                self._run_somewhere(Structure.of(self.graph, kept))
            dense = self.graph.costs.dense
            small = dense.macs < LARGE.macs and dense.params < LARGE.params
            for kept in halves if numeric and small else halves[:1]:
                structure = Structure.of(self.graph, kept)
                if not numeric:
                    run(cut(self.model, plan(self.graph, structure)), self.example)
                elif not self._is_equal(self.model, structure):
                    return "", "the code uses a channel count as a number: values change when it is pruned"
        except Exception as error:
            return place(error), f"a literal size in the code: {first_line(error)}"
        return None

    def _run_somewhere(self, structure: Structure) -> None:
        """Runs the pruned network for its shapes: without data where the code can do without, else with."""
        origin = plan(self.graph, structure)
        try:
            self._check_shapes(run(cut(self._shadow, origin), tree_map(_to_meta, self.example)))
        except Exception:
            self._check_shapes(run(cut(self.model, origin), self.example))

    def _check_shapes(self, output: Any) -> None:
        found = [tuple(item.shape) for item in tree_leaves(output) if isinstance(item, Tensor)]
        steps = self.graph.program.steps
        wanted = [steps[ref.step].shape for ref in references(steps[-1].args)]
        if len(found) == len(wanted) and found != wanted:
            raise ValueError(f"the network's output has shapes {found} instead of {wanted}")

    @cached_property
    def _shadow(self) -> nn.Module:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return copy_with(self.model, {id(value): _to_meta(value) for value in tensors})

    def _is_equal(self, model: nn.Module, structure: Structure) -> bool:
        """Whether the pruned network's output is that of the masked dense one."""
        gap = self._gap(model, structure, self.example)
        if gap <= CERTAIN:
            return True
        if gap != gap and model is not self.plain:  # the stand-ins overflowed
            return self._is_equal(self.plain, structure)
        try:
            return self._gap(self._doubled, structure, tree_map(_double, self.example)) <= PRECISE
        except Exception:
            return gap <= COARSE.get(_dtype(model), 1e-3)

    def _gap(self, model: nn.Module, structure: Structure, example: tuple[Any, ...]) -> float:
        output = run(cut(model, plan(self.graph, structure)), example)
        torch.manual_seed(0)
        return difference(output, masked(model, self.graph, structure, example))

    @cached_property
    def _doubled(self) -> nn.Module:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return copy_with(self.model, {id(value): _double(value) for value in tensors})


def run(model: nn.Module, example: Sequence[Any]) -> Any:
    """The output in eval mode, without gradients, with the random numbers of seed 0."""
    torch.manual_seed(0)
    with evaluating(model), torch.no_grad():
        return model(*example)


def lively(example: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs, with noise for floating-point tensors that are the same everywhere: zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(0)

    def replace(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1 and _is_constant(value):
            return torch.randn(value.shape, generator=generator).to(value)
        return value

    return tuple(tree_map(replace, item) for item in example)


def awake(model: nn.Module) -> nn.Module:
    """A copy that shares the model's weights, except constant ones (zero-initialised, fresh norms): those get noise.

    A zero-initialised residual branch would hide every mistake inside it.
    """
    generator = torch.Generator().manual_seed(0)
    tensors: dict[int, Any] = {id(value): value for value in model.parameters()}
    tensors.update({id(value): value.detach().clone() for value in model.buffers()})
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and value.numel() > 1 and _is_constant(value):
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float32)
            base = float(value.detach().reshape(-1)[0])
            spread = noise - 0.5 if abs(base) < 1e-2 and not name.endswith("var") else (0.5 + noise) * (base or 1.0)
            if value.ndim > 1:
                spread = spread / max(1.0, value[0].numel() ** 0.5)
            stand_in = spread.to(value)
            tensors[id(value)] = nn.Parameter(stand_in) if isinstance(value, nn.Parameter) else stand_in
    return copy_with(model, tensors)


def _to_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return nn.Parameter(value.to("meta"), False) if isinstance(value, nn.Parameter) else value.to("meta")


def _double(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    doubled = value.detach().double()
    return nn.Parameter(doubled) if isinstance(value, nn.Parameter) else doubled


def _is_constant(value: Tensor) -> bool:
    flat = value.detach().reshape(-1)
    return bool(flat[0] == flat[-1]) and bool((flat == flat[0]).all())


def _dtype(model: nn.Module) -> torch.dtype:
    found = {value.dtype for value in model.parameters() if value.is_floating_point()}
    return next((dtype for dtype in COARSE if dtype in found), torch.float32)
