"""From a network as it is now to a structure within a budget: what a flow calls again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from search.space.projection import Projected, project
from search.space.space import KINDS, Space

Choose = Callable[[nn.Module, ChannelGraph, Target], Structure]
Spacing = Literal["factors", "amounts"]
CAP_SLACK = (1.0, 0.97, 0.9, 0.7, 0.0)
"""How far below its lower end a cap may stay, tried in turn: a study has other trials, a flow has only this one."""
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
    """A rule for a flow: any width allocation, and any criterion that needs the weights alone.

    Attributes:
        allocate: makes the allocation on fresh filter tables: `GlobalThreshold`, the `Proposed` of a trial, ...
        space: how filters are ranked and compared, and what each group must keep.
    """

    allocate: MakeAllocation
    space: Space = field(default_factory=Space)

    def __call__(self, model: nn.Module, graph: ChannelGraph, target: Target) -> Structure:
        """The structure within `target`; a cap that whole filters can't fill to 2 % is filled as far as they go.

        Raises:
            SecateurError: when the target is out of reach.
        """
        problem = problem_of_weights(self.space, model, graph)
        allocation, reason = self.allocate(problem.tables, problem.limits), ""
        for share in CAP_SLACK if target.capped else CAP_SLACK[:1]:
            loose = Target(tuple(replace(bound, low=share * bound.low) for bound in target.bounds), target.capped)
            found = project(problem, allocation, loose)
            if isinstance(found, Projected):
                return found.structure
            reason = found.reason
        raise SecateurError(f"no structure can be chosen: {reason}")

    @property
    def key(self) -> str:
        """Names the rule, so that a training can tell whether it is continued with the same."""
        name, space = getattr(self.allocate, "__name__", repr(self.allocate)), self.space
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
