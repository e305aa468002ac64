"""A trial pruning at trace time: code with literal sizes is found now, not in the middle of a search."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from backbones.cost_table import Cost
from backbones.errors import first_line, source_line
from backbones.graph import ChannelGraph, Frozen, Group
from backbones.inputs import output_of, tensors_in
from backbones.masked_reference import masked_reference, relative_difference
from backbones.modes import evaluating, seed_all, training_code
from backbones.module_copy import copy_with
from backbones.program import references
from backbones.removal import removable
from backbones.state import State
from backbones.structure import Structure
from backbones.surgery import PruningPlan, apply_plan, plan

CERTAIN = 1e-5
"""A relative difference to the masked dense network up to here is rounding; above, float64 decides."""
PRECISE = 1e-9
"""Relative difference in float64 above which a pruned network counts as wrong."""
COARSE = {torch.bfloat16: 0.1, torch.float16: 0.03}
"""The same for networks whose code does not run in float64, by their weights' type; 1e-3 for float32."""


COMPARED_WHOLE = Cost(macs=3_000_000_000, params=50_000_000)
"""Networks with more of either are compared on one half of their channels instead of both."""
DATALESS = 1_000_000_000
"""MACs of the whole example from which on shapes are found without data: torch takes longer over a small operation
without data than over one with."""


Orders = Mapping[str, NDArray[np.int64]]
"""Group name -> the numbers of its channels, shuffled."""
Attempt = Callable[[Orders, Mapping[str, int]], bool]
"""Prunes some groups: of each, the channels in a given order up to a given number are kept.

False when the pruned network computes wrong values; raises what its code raises when shapes do not fit.
"""

ModeBlock = Callable[[nn.Module], AbstractContextManager[None]]
"""What puts a network into the mode it runs in."""


@dataclass(frozen=True, slots=True)
class Defect:
    """Why a trial pruning failed.

    Attributes:
        line: the source line, `model.py:12: x = x.view(-1, 64)`, empty when unknown.
        reason: one sentence.
        module: path of the module in whose forward it broke, empty when unknown.
    """

    line: str
    reason: str
    module: str


@dataclass(frozen=True, eq=False)
class PruningCheck:
    """A traced network that groups are pruned in on trial, to see which of them cannot really be.

    Attributes:
        plain: the given model.
        model: the same with random numbers in the place of constant weights (see `nonconstant_weights`).
        graph: the channel graph to check.
        example: inputs to compare outputs on, not the same everywhere (see `random_inputs`).
        state: what is put back after each run.
    """

    plain: nn.Module
    model: nn.Module
    graph: ChannelGraph
    example: tuple[Any, ...]
    state: State

    def failures(self) -> tuple[Frozen, ...]:
        """The groups that cannot really be pruned, found by pruning all at once and bisecting only where that fails.

        A group fails when the pruned network does not run on the example, or does not equal the masked dense network.
        Groups whose channels share layer or group statistics change values by nature: only their shapes are checked.
        Shapes come first, without data: values are compared only where no shape failed (trace again without those).
        """
        groups, mixed = self.graph.groups, self.graph.mixed
        broken = self._culprits(groups, self._shapes_fit)
        if not broken and self._training_example is not None:
            broken = self._culprits(groups, self._trains)
        if not broken:
            broken = self._culprits([group for group in groups if group.name not in mixed], self._values_equal)
        if not broken and mixed:
            broken = self._culprits(groups, self._runs)
        return tuple(
            Frozen(
                group.name.partition("#")[0],
                tuple(range(group.size)),
                "trial pruning",
                group.name,
                why.line,
                why.reason,
            )
            for group, why in broken
        )

    def irremovable(self) -> tuple[Frozen, ...]:
        """The modules that the code does not run without, be it in training, among those that might be removed.

        All that are nested equally deep are removed at once, and looked at one by one only where that fails.
        """
        paths = list(removable(self.graph))
        depths = [sum(path.startswith(f"{other}.") for other in paths) for path in paths]
        levels = [[path for path, depth in zip(paths, depths, strict=True) if depth == level] for level in {*depths}]
        return tuple(
            Frozen(path, (), "trial removal", path, why.line, why.reason)
            for level in levels
            for path, why in self._needed(level)
        )

    def _needed(self, paths: Sequence[str]) -> list[tuple[str, Defect]]:
        defect = self._removal_defect(paths)
        if defect is None:
            return []
        if len(paths) == 1:
            return [(paths[0], defect)]
        middle = len(paths) // 2
        return [*self._needed(paths[:middle]), *self._needed(paths[middle:])]

    def _removal_defect(self, paths: Sequence[str]) -> Defect | None:
        """What goes wrong when these modules are replaced by the identity."""
        known = removable(self.graph)
        gone = tuple(dict.fromkeys(module for path in paths for module in known[path]))
        cut = PruningPlan(Structure.full(self.graph), None, {}, {}, gone)
        what = "the code does not run without it"
        try:
            dense, example = (self.model, self.example)
            if self._meta_model is not None:
                dense, example = self._meta_model, self._meta_example
            self._check_shapes(self._output(apply_plan(dense, cut), example), self._eval_shapes)
            if self._training_example is not None:
                what = "code that only runs in training does not run without it"
                output = self._output(apply_plan(self.model, cut), self._training_example, training_code)
                self._check_shapes(output, self._training_shapes)
        except Exception as error:
            return Defect(source_line(error), f"{what}: {first_line(error)}", _module(error))
        return None

    def _culprits(self, groups: Sequence[Group], attempt: Attempt) -> list[tuple[Group, Defect]]:
        defect = self._defect(groups, attempt) if groups else None
        if defect is None:
            return []
        if len(groups) == 1:
            return [(groups[0], defect)]
        one, other = _parted(groups, defect.module)
        broken = [*self._culprits(one, attempt), *self._culprits(other, attempt)]
        if not broken:  # neither part fails alone: they only fail together
            return [(group, defect) for group in groups]
        gone = {group.name for group, _ in broken}
        if any(gone >= {group.name for group in part} for part in (one, other)):
            return broken  # what is left of the other part is known to be well
        return broken + self._culprits([group for group in groups if group.name not in gone], attempt)

    def _defect(self, groups: Sequence[Group], attempt: Attempt) -> Defect | None:
        """What goes wrong when these groups are pruned."""
        rng = np.random.default_rng(0)
        orders = {group.name: rng.permutation(group.size) for group in groups}
        cuts = {name: max(1, round(len(order) * rng.uniform(0.4, 0.7))) for name, order in orders.items()}
        try:
            if attempt(orders, cuts):
                return None
        except Exception as error:
            what = "code that only runs in training" if attempt == self._trains else "a literal size in the code"
            return Defect(source_line(error), f"{what}: {first_line(error)}", _module(error))
        finally:
            self.state.restore()
        if all(group.name in self.graph.summed for group in groups):
            return Defect("", "a norm over these channels counts a dropped one, which is not zero by then", "")
        return Defect("", "the code uses a channel count as a number: values change when it is pruned", "")

    def _shapes_fit(self, orders: Orders, cuts: Mapping[str, int]) -> bool:
        """A literal size can fit by chance: one channel less has no divisor in common, one survives no squeeze."""
        for kept in (
            {name: order[:1] for name, order in orders.items()},
            {name: order[1:] for name, order in orders.items()},
            {name: order[: cuts[name]] for name, order in orders.items()},
        ):
            chosen = plan(self.graph, Structure.of(self.graph, kept))
            if self._meta_model is not None:
                self._check_shapes(
                    self._output(apply_plan(self._meta_model, chosen), self._meta_example), self._eval_shapes
                )
            else:
                self._check_shapes(self._output(apply_plan(self.model, chosen), self.example), self._eval_shapes)
        return True

    def _values_equal(self, orders: Orders, cuts: Mapping[str, int]) -> bool:
        """Two halves are compared, so that every channel is looked at."""
        halves = [{name: order[: cuts[name]] for name, order in orders.items()}]
        if self.graph.costs.dense.macs < COMPARED_WHOLE.macs and self.graph.costs.dense.params < COMPARED_WHOLE.params:
            halves.append({name: order[cuts[name] :] for name, order in orders.items()})
        return all(self._is_equal(self.model, Structure.of(self.graph, kept)) for kept in halves)

    def _runs(self, orders: Orders, cuts: Mapping[str, int]) -> bool:
        kept = {name: order[: cuts[name]] for name, order in orders.items()}
        eval_output(apply_plan(self.model, plan(self.graph, Structure.of(self.graph, kept))), self.example)
        return True

    def _trains(self, orders: Orders, cuts: Mapping[str, int]) -> bool:
        example = self._training_example
        assert example is not None
        kept = {name: order[: cuts[name]] for name, order in orders.items()}
        pruned = apply_plan(self.model, plan(self.graph, Structure.of(self.graph, kept)))
        self._check_shapes(self._output(pruned, example, training_code), self._training_shapes)
        return True

    @cached_property
    def _training_example(self) -> tuple[Any, ...] | None:
        """Inputs that the code which only runs in training takes; None if there is no such code or none fits.

        Statistics of a batch may need more than one sample.
        """
        if "training" not in self.state.code:
            return None
        for example in (self.example, tree_map(_twice, self.example)):
            try:
                self._output(copy_with(self.model, {}), example, training_code)
            except Exception:  # it needs targets, say
                continue
            return example
        return None

    @cached_property
    def _training_shapes(self) -> list[tuple[int, ...]]:
        assert self._training_example is not None
        return _shapes(self._output(copy_with(self.model, {}), self._training_example, training_code))

    @cached_property
    def _eval_shapes(self) -> list[tuple[int, ...]]:
        steps = self.graph.program.steps
        return [steps[ref.step].shape for ref in references(steps[-1].args)]

    def _check_shapes(self, output: Any, wanted: Sequence[tuple[int, ...]]) -> None:
        found = _shapes(output)
        if len(found) == len(wanted) and found != wanted:
            raise ValueError(f"the network's output has shapes {found} instead of {wanted}")

    @cached_property
    def _meta_example(self) -> Any:
        return tree_map(_to_meta, self.example)

    @cached_property
    def _meta_model(self) -> nn.Module | None:
        """The network without data, None when its code cannot do without or computing takes less (see `DATALESS`)."""
        if self.graph.costs.dense.macs * self.graph.program.batch < DATALESS:
            return None
        meta_model = self._copy_as(_to_meta)
        try:
            self._output(meta_model, self._meta_example)
        except Exception:
            return None
        return meta_model

    def _copy_as(self, change: Callable[[Any], Any]) -> nn.Module:
        """The network with every tensor changed, those among its attributes too."""
        tensors = (*self.model.parameters(), *self.model.buffers(), *State(self.model).tensors)
        return copy_with(self.model, {id(value): change(value) for value in tensors})

    def _output(self, model: nn.Module, example: Sequence[Any], mode: ModeBlock = evaluating) -> Any:
        try:
            return eval_output(model, example, mode)
        finally:
            self.state.restore()

    def _is_equal(self, model: nn.Module, structure: Structure) -> bool:
        """Whether the pruned network's output is that of the masked dense one."""
        gap = self._gap(model, structure, self.example)
        if gap <= CERTAIN:
            return True
        if gap != gap and model is not self.plain:  # the stand-ins overflowed
            return self._is_equal(self.plain, structure)
        try:
            return self._gap(self._double_model, structure, tree_map(_double, self.example)) <= PRECISE
        except Exception:
            return gap <= COARSE.get(_dtype(model), 1e-3)

    def _gap(self, model: nn.Module, structure: Structure, example: tuple[Any, ...]) -> float:
        output = self._output(apply_plan(model, plan(self.graph, structure)), example)
        seed_all(0)
        return relative_difference(output, masked_reference(model, self.graph, structure, example))

    @cached_property
    def _double_model(self) -> nn.Module:
        return self._copy_as(_double)


def eval_output(model: nn.Module, example: Sequence[Any], mode: ModeBlock = evaluating) -> Any:
    """The output of `model` on `example`, in eval mode if no other is given, without gradients, from random seed 0."""
    seed_all(0)
    with mode(model), torch.no_grad():
        return output_of(model, example)


def _shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(item.shape) for item in tensors_in(output)]


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim else value


def _parted(groups: Sequence[Group], module: str) -> tuple[Sequence[Group], Sequence[Group]]:
    """Two parts of the groups: those with weights in the module that broke and the others, or halves."""
    inside = f"{module}."
    suspects = [group for group in groups if any(member.tensor.startswith(inside) for member in group.members)]
    if module and 0 < len(suspects) < len(groups):
        names = {group.name for group in suspects}
        return suspects, [group for group in groups if group.name not in names]
    return groups[: len(groups) // 2], groups[len(groups) // 2 :]


def _module(error: BaseException) -> str:
    """The path of the innermost module in whose code an error was raised, "" when that is the network itself."""
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [found for found in frames if isinstance(found, nn.Module)]
    return next((path for path, found in modules[0].named_modules() if found is modules[-1]), "") if modules else ""


def random_inputs(example: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, with noise for floating-point tensors that are the same everywhere: zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(0)

    def replace(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1 and _is_constant(value):
            return torch.randn(value.shape, generator=generator).to(value)
        return value

    inputs: tuple[Any, ...] = tree_map(replace, example)
    return inputs


def nonconstant_weights(model: nn.Module) -> nn.Module:
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
