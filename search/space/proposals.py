"""One proposal: what the sampler suggests, the structure that follows, and how a trial stores it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure, keep_mask
from search.space.budget import Target
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
    with _reading():
        removed = tuple(str(name) for name in facts.get("removed", ()))
        [mask] = _masks(graph, [facts])
    kept = tuple(
        (group.name, tuple(np.flatnonzero(mask[start : start + group.size]).tolist()))
        for group, start in zip(graph.groups, _starts(graph), strict=True)
    )
    return Structure(graph.id, kept, removed)


def kept_counts(graph: Layout, facts: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """(trials, groups) how many channels the structures of trials keep; of all at once far faster than by `unpack`.

    Args:
        graph: layout of the channels.
        facts: attributes of trials, as `pack` made them.

    Raises:
        SecateurError: when some describe no structure of this graph.
    """
    with _reading():
        return np.add.reduceat(_masks(graph, facts), _starts(graph), axis=1, dtype=np.int64)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise SecateurError(f"a stored structure cannot be read ({error}); was the storage edited?") from None


def _masks(graph: Layout, facts: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """(trials, channels) 1 where a channel is kept."""
    packed = [np.frombuffer(bytes.fromhex(one["kept"]), dtype=np.uint8) for one in facts]
    return np.unpackbits(np.stack(packed), axis=1, count=graph.channels)


def _starts(graph: Layout) -> NDArray[np.int64]:
    return np.cumsum([0, *(group.size for group in graph.groups)])[:-1]


def cost_of(facts: Mapping[str, Any]) -> Cost:
    """The cost that a trial's attributes state.

    Raises:
        SecateurError: when they state no numbers.
    """
    latency, memory = facts.get("latency"), facts.get("memory")
    try:
        return Cost(
            int(facts["macs"]),
            int(facts["params"]),
            None if latency is None else float(latency),
            None if memory is None else int(memory),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SecateurError(f"a stored cost cannot be read ({error!r}); was the storage edited?") from None


TARGET, AIMED = "target", " aimed at"
"""Names of the facts that say which target a trial aims at, and where in a band; they stand under `AIM`."""
AIM = "aim"
"""User attribute of trials of several targets or a band: what they aim at."""
WARM = "warm"
"""User attribute: the trial's place in the warm start; trials that a sampler proposed have none."""
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie evenly over [0, 1) wherever one begins to count (Knuth, TAOCP 3, section 6.4)."""


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
    """Asks the sampler and projects what it suggests onto the budget.

    What a trial aims at is no business of the sampler, which would soon aim at the cheap end of a band alone, where a
    structure is hard to dominate: trials take the targets in turn, and go evenly over a band.
    """
    number, target = aimed_target(problem, trial.number)
    band = problem.targets[number]
    allocation = problem.suggest(trial)
    found = project(problem, allocation, target)
    if isinstance(found, Infeasible) and target is not band:  # the point aimed at is too close to the band's lower end
        found = project(problem, allocation, band)
    if isinstance(found, Infeasible):
        return Proposal(None, {"reason": found.reason})
    aim = aim_of(problem, number, target)
    facts = {"structure": found.structure.id, **pack(problem.graph, found.structure, found.cost)}
    resolved = {"effective": dict(found.resolved_params)} if found.resolved_params else {}
    return Proposal(found, {**facts, **({AIM: aim} if aim else {}), **resolved, "strength": found.strength})


def aimed_target(problem: SearchProblem, trial: int) -> tuple[int, Target]:
    """What the trial of that number aims at: the number of a target, and the target or the part of it below a point."""
    number, turn = trial % len(problem.targets), trial // len(problem.targets)
    band = problem.targets[number]
    return number, band if band.capped else point_in(band, (0.5 + turn * GOLDEN) % 1.0)


def aim_of(problem: SearchProblem, number: int, point: Target | Cost) -> dict[str, float]:
    """What a trial aims at, in numbers: which of several targets, and the share of the dense cost inside a band.

    Args:
        problem: whose targets they are.
        number: the target's place among them.
        point: the top of the part of the band that is aimed at, or the cost of a known structure.
    """
    target = problem.targets[number]
    aim: dict[str, float] = {TARGET: number} if len(problem.targets) > 1 else {}
    if not target.capped:
        first = target.bounds[target.aimed]
        goal = point.bounds[target.aimed].high if isinstance(point, Target) else getattr(point, first.axis)
        aim[first.axis + AIMED] = min(max(goal, first.low), first.high) / getattr(problem.cost_model.dense, first.axis)
    return aim


def point_in(band: Target, share: float) -> Target:
    """The part of a band below a point: `share` of the way up along the axis that trials spread over."""
    first = band.bounds[band.aimed]
    point = replace(first, high=first.low + share * (first.high - first.low))
    return replace(band, bounds=tuple(point if bound is first else bound for bound in band.bounds))
