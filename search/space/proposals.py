"""One proposal: what the sampler suggests, the structure that follows, and how a trial stores it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure, keep_mask
from search.space.budget import Bound, Target
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, Projected, project


class Named(Protocol):
    """A group of coupled channels."""

    @property
    def name(self) -> str:
        """The group's name in the channel graph."""

    @property
    def size(self) -> int:
        """How many channels the group has in the dense network."""


class Layout(Protocol):
    """What reading a stored structure needs: a `ChannelGraph`, or the outline of one in a storage."""

    @property
    def id(self) -> str:
        """The channel graph's id."""

    @property
    def groups(self) -> Sequence[Named]:
        """The channel groups in the order of the forward pass."""

    @property
    def channels(self) -> int:
        """Number of channels over all groups."""


def pack(graph: ChannelGraph, structure: Structure, cost: Cost) -> dict[str, Any]:
    """A structure and its cost as attributes of a trial; its id is noted beside them.

    Args:
        graph: the dense network's channel graph.
        structure: of that graph.
        cost: what the structure costs; axes that are None are left out.

    Returns:
        "kept" (hex digits, one bit per channel in the graph's order), "removed" where layers are, and one item per axis
        of the cost.
    """
    kept = np.packbits(keep_mask(graph, structure)[:-1]).tobytes().hex()
    removed = {"removed": list(structure.removed)} if structure.removed else {}
    return {"kept": kept, **removed, **{axis: value for axis, value in asdict(cost).items() if value is not None}}


def unpack(graph: Layout, facts: Mapping[str, Any]) -> Structure:
    """The structure that a trial's attributes describe.

    Args:
        graph: layout of the channels.
        facts: attributes of a trial, as `pack` made them.

    Raises:
        SecateurError: when they describe no structure of this graph.
    """
    try:
        packed = np.frombuffer(bytes.fromhex(facts["kept"]), dtype=np.uint8)
        mask = np.unpackbits(packed, count=graph.channels)
        removed = tuple(str(name) for name in facts.get("removed", ()))
    except (ValueError, TypeError) as error:
        raise SecateurError(f"a stored structure cannot be read ({error}); was the storage edited?") from None
    starts = np.cumsum([0, *(group.size for group in graph.groups)])
    kept = tuple(
        (group.name, tuple(np.flatnonzero(mask[start : start + group.size]).tolist()))
        for group, start in zip(graph.groups, starts, strict=False)
    )
    return Structure(graph.id, kept, removed)


def cost_of(facts: Mapping[str, Any]) -> Cost:
    """The cost that a trial's attributes state."""
    return Cost(**{axis.name: facts[axis.name] for axis in fields(Cost) if axis.name in facts})


TARGET, AIMED = "target", " aimed at"
"""Names of the parameters that say which target a trial aims at, and where in a band."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What became of a suggestion.

    Attributes:
        found: the structure inside the budget; None when there is none.
        facts: user attributes of the trial.
    """

    found: Projected | None
    facts: Mapping[str, Any]


def propose(problem: SearchProblem, trial: optuna.Trial) -> Proposal:
    """Asks the sampler and projects what it suggests onto the budget."""
    band, target = _target(problem, trial)
    allocation = problem.suggest(trial)
    found = project(problem, allocation, target)
    if isinstance(found, Infeasible) and target is not band:  # the point aimed at is too close to the band's lower end
        found = project(problem, allocation, band)
    if isinstance(found, Infeasible):
        return Proposal(None, {"reason": found.reason})
    facts = {"structure": found.structure.id, **pack(problem.graph, found.structure, found.cost)}
    resolved = {"effective": dict(found.resolved_params)} if found.resolved_params else {}
    return Proposal(found, {**facts, **resolved, "strength": found.strength})


def target_params(
    problem: SearchProblem, number: int, cost: Cost | None = None
) -> Iterator[tuple[str, BaseDistribution, float]]:
    """The parameters that say which target a trial aims at: name, distribution, and the value for a known structure.

    Args:
        problem: whose targets they are.
        number: the target's place among them.
        cost: what the structure costs, for the place inside a band; without it the value there means nothing.
    """
    target = problem.targets[number]
    if len(problem.targets) > 1:
        yield TARGET, IntDistribution(0, len(problem.targets) - 1), number
    if not target.capped:
        first = target.bounds[target.aimed]
        dense = getattr(problem.cost_model.dense, first.axis)
        low, high = first.low / dense, first.high / dense
        share = low if cost is None else getattr(cost, first.axis) / dense
        yield first.axis + AIMED, FloatDistribution(low, high), min(max(share, low), high)


def _target(problem: SearchProblem, trial: optuna.Trial) -> tuple[Target, Target]:
    """What this trial aims at: the cap or one of several targets (twice the same), or a band and a point inside it."""
    number = trial.suggest_int(TARGET, 0, len(problem.targets) - 1) if len(problem.targets) > 1 else 0
    target = problem.targets[number]
    if target.capped:
        return target, target
    first = target.bounds[target.aimed]
    dense = getattr(problem.cost_model.dense, first.axis)
    goal = trial.suggest_float(first.axis + AIMED, first.low / dense, first.high / dense) * dense
    point = Bound(first.axis, first.low, max(first.low, goal))
    return target, replace(target, bounds=tuple(point if bound is first else bound for bound in target.bounds))
