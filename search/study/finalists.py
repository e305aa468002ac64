"""Finalists: which structures enter short retrainings, how many stay after each, and what all of that costs.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) in three rungs: all finalists train for a sixteenth of the
epochs, the better half for a quarter, the last few to the end. Every rung is a training of its own by the same recipe,
with fewer epochs and its schedule run through to the end. A training that is stopped in the middle of its schedule is
at a high learning rate and says little about where it would have ended; one that goes on from an annealed rung is no
longer the training that was asked for. This way the networks that are trained to the end are those that the same
retraining gives without finalists, every flow can be shortened, and a rung resumes and is shared as any retraining is.
It costs the epochs that a rung does not take over: 8 finalists and one winner are 8/16 + 4/4 + 1 = 2.5 whole trainings,
in the place of 2.0. Short trainings are noisy, so the shortest discards no more than half, and one of a quarter always
has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from search.checks import check_count
from search.formatting import counted
from search.review.candidate import Candidate
from search.review.front import Front
from search.space.budget import Target
from search.space.problem import SearchProblem
from search.study.candidates import choose, feasible_ranked, take_in_turn

PARTS = (16, 4)
"""A rung trains for this part of the epochs; after the last one the training goes to the end."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Structures of about the same cost that compete for places.

    Attributes:
        members: the best score first.
        places: how many of them are trained to the end.
    """

    members: tuple[Candidate, ...]
    places: int

    @property
    def staying(self) -> tuple[int, ...]:
        """How many take part in each rung, and how many are trained to the end."""
        count = len(self.members)
        return count, max((count + 1) // 2, min(self.places + 1, count)), min(self.places, count)


@dataclass(frozen=True, slots=True)
class Finalists:
    """The structures that a retraining begins with; `print` says what it will cost.

    Attributes:
        slots: a slot for a cap, else one for each part of the front that is to be retrained.
        epochs: of a training to the end.
    """

    slots: tuple[Slot, ...]
    epochs: int

    @property
    def members(self) -> list[Candidate]:
        """All of them."""
        return [one for slot in self.slots for one in slot.members]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Epochs of each rung."""
        return tuple(-(-self.epochs // part) for part in PARTS)

    @property
    def trainings(self) -> dict[int, int]:
        """Epochs -> how many trainings of that length there are, the shortest first."""
        found: dict[int, int] = {}
        for slot in self.slots:
            own: dict[int, int] = {}
            *rungs, last = slot.staying
            for epochs, here, later in zip(self.lengths, rungs, slot.staying[1:], strict=True):
                if here > later:
                    own.setdefault(epochs, here)  # of rungs of one length the first has trained all
            own.setdefault(self.epochs, last)
            for epochs, count in own.items():
                found[epochs] = found.get(epochs, 0) + count
        return dict(sorted(found.items()))

    @property
    def cost(self) -> float:
        """What all trainings cost, in trainings to the end."""
        return sum(epochs * count for epochs, count in self.trainings.items()) / self.epochs

    def __str__(self) -> str:
        if len(self.trainings) == 1:
            return f"the best {len(self.members)}, {counted(self.epochs, 'epoch')} each"
        parts = ", ".join(f"{count} x {epochs}" for epochs, count in self.trainings.items())
        times = f"{self.cost:.1f}".removesuffix(".0")
        return f"{len(self.members)} finalists: {parts} epochs, {times} times one retraining"


def finalists_of(front: Front, problem: SearchProblem, top: int, finalists: int | None, epochs: int) -> Finalists:
    """Chooses what is retrained, by score.

    Over a band or several targets places are spread over the front, and only structures of about the same MACs (of a
    band) or of the same target compete for one.

    Args:
        front: of the search, with the scores.
        problem: what was searched: the targets of the budget.
        top: structures that are trained to the end.
        finalists: structures that train briefly for those places; None for no short trainings.
        epochs: of a training to the end.

    Raises:
        SecateurError: when `top` is no number, below 1 or above `finalists`, or no candidate is feasible.
    """
    check_finalists(top, finalists)
    if finalists is None:
        chosen = choose(front, top, spread=problem.objectives > 1)
        return Finalists((Slot(tuple(chosen), len(chosen)),), epochs)
    bins = _bins(front, top, problem.targets) if problem.objectives > 1 else [feasible_ranked(front)]
    members = take_in_turn(bins, finalists, rules=True)
    places = [0] * len(bins)
    for number in (number for _ in range(top) for number in range(len(bins))):
        if sum(places) < top and places[number] < len(members[number]):
            places[number] += 1
    return Finalists(tuple(Slot(tuple(ones), count) for ones, count in zip(members, places, strict=True)), epochs)


def given_finalists(front: Front, ones: Sequence[Candidate | int], epochs: int) -> Finalists:
    """Trials that the caller chose, themselves or their numbers: all of them are trained to the end.

    Raises:
        SecateurError: for none, or one that is no feasible trial of the front.
    """
    known = {one.number: one for one in front.candidates if one.reason is None and one.structure is not None}
    members = {}
    for one in ones:
        number = one.number if isinstance(one, Candidate) else one
        if number not in known:
            name = one.name if isinstance(one, Candidate) else f"trial {one!r}"
            raise SecateurError(f"{name} is no feasible trial of study {front.name!r}, so it cannot be retrained")
        members[known[number].id] = known[number]
    check_finalists(len(members), None)
    return Finalists((Slot(tuple(members.values()), len(members)),), epochs)


def check_finalists(top: int, finalists: int | None) -> None:
    """Raises SecateurError unless there are at least as many finalists as places, and at least one place."""
    for name, value in (("top", top), *([] if finalists is None else [("finalists", finalists)])):
        check_count(name, value)
    if finalists is not None and not top <= finalists:
        raise SecateurError(f"top <= finalists must hold, but got top={top}, finalists={finalists}")


def _bins(front: Front, top: int, targets: Sequence[Target]) -> list[list[Candidate]]:
    """The parts of a front for which places are given, the dearest first, in each the best score first.

    Of several targets each is a part, and `top` of them at even steps where there are more. A band has `top` parts,
    around even steps in MACs from the dearest to the cheapest point of the front.
    """
    points = front.points("score")
    steps = np.linspace(points[-1].on("macs") or 0, points[0].on("macs") or 0, top) if points else np.empty(0)
    found: dict[int, list[Candidate]] = {}
    for one in feasible_ranked(front):
        assert one.cost is not None
        part = _target(one.cost, targets) if len(targets) > 1 else int(np.abs(steps - one.cost.macs).argmin())
        found.setdefault(part, []).append(one)
    bins = sorted(found.values(), key=lambda ones: -max(one.on("macs") or 0 for one in ones))
    kept = np.rint(np.linspace(0, len(bins) - 1, min(top, len(bins)))).astype(int)
    return [bins[place] for place in kept]


def _target(cost: Cost, targets: Sequence[Target]) -> int:
    """The number of the tightest target that holds."""
    held = [number for number, target in enumerate(targets) if not target.over(cost)]
    return min(held, key=lambda number: [bound.high for bound in targets[number].bounds])
