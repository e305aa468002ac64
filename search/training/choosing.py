"""From a network as it is now to a structure within a budget: what a flow calls again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
from optuna.trial import FixedTrial, Trial
from torch import nn

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.tables import FilterTables
from search.space.allocations import WidthAllocation
from search.space.budget import Bound, Target
from search.space.problem import problem_of_weights
from search.space.projection import Infeasible, project
from search.space.space import KINDS, Space

Choose = Callable[[nn.Module, ChannelGraph, Target], Structure]
Spacing = Literal["factors", "amounts"]
MakeAllocation = Callable[[FilterTables, Limits], WidthAllocation]


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a trial proposed, as a direction on the filter tables of another moment.

    Its `repr` is part of the identity in training checkpoints.

    Attributes:
        kind: the kind of space, a key of `search.space.space.KINDS`.
        parameters: what the sampler suggested, (name, value).
    """

    kind: str
    parameters: tuple[tuple[str, float], ...]

    def __call__(self, tables: FilterTables, limits: Limits) -> WidthAllocation:
        """The same direction on these tables; groups that a smaller network no longer has are left out."""
        trial = cast("Trial", FixedTrial(dict(self.parameters)))  # it suggests what it was given
        direction = KINDS[self.kind](trial, tables, limits)
        return direction(tables, limits, np.arange(len(tables.groups)))


def chooser_of(space: Space, parameters: Mapping[str, float]) -> Chooser:
    """The rule by which a trial of a study chose its structure, to be followed again as the weights change.

    Args:
        space: the search space of the study.
        parameters: what the sampler suggested for the trial, name -> value.
    """
    return Chooser(Proposed(space.kind, tuple(sorted(parameters.items()))), space)


@dataclass(frozen=True, slots=True)
class Chooser:
    """A rule for a flow: any width allocation, and any criterion that needs the weights alone ("auto" is "l2" here).

    Attributes:
        allocate: makes the allocation on fresh filter tables: `GlobalThreshold`, the `Proposed` of a trial, ...
        space: how filters are ranked and compared, and what each group must keep.
    """

    allocate: MakeAllocation
    space: Space = field(default_factory=Space)

    def __call__(self, model: nn.Module, graph: ChannelGraph, target: Target) -> Structure:
        """The structure within `target`.

        Raises:
            SecateurError: when the target is out of reach.
        """
        problem = problem_of_weights(self.space, model, graph)
        found = project(problem, self.allocate(problem.tables, problem.limits), target)
        if isinstance(found, Infeasible):
            raise SecateurError(f"no structure can be chosen: {found.reason}")
        return found.structure

    @property
    def key(self) -> str:
        """Names the rule, so that a training can tell whether it is continued with the same."""
        name, space = getattr(self.allocate, "__name__", repr(self.allocate)), self.space.of_weights
        return f"{name} {space.criterion} {space.linkage} {space.features} {space.reduction} {space.limits}"


def intermediate_target(dense: Cost, target: Target, share: float, spacing: Spacing) -> Target:
    """What a network may cost on the way from the dense cost to the target.

    Args:
        dense: cost of the dense network.
        target: what is wanted in the end.
        share: how far on the way, 0 for the dense cost, 1 for the target.
        spacing: "factors" takes the same part of what is left in each of k equal steps of `share` (iterative pruning),
            "amounts" the same amount (soft pruning).
    """
    bounds = []
    for bound in target.bounds:
        whole = float(getattr(dense, bound.axis))
        end = min(bound.high, whole)
        if spacing == "factors":
            factor = (end / whole) ** (share - 1)  # 1 at share 1, so that the last target is exact
            bounds.append(Bound(bound.axis, factor * bound.low, factor * bound.high))
        else:
            high = whole - share * (whole - end)
            bounds.append(Bound(bound.axis, high * bound.low / bound.high, high))
    return Target(tuple(bounds), target.capped)
