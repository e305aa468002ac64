"""What a report is about: the fronts of one or several studies, and what else is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from backbones.errors import SecateurError
from search.data.task import ACCURACY, MetricSpec
from search.review.candidate import Measure
from search.review.front import Front


@dataclass(frozen=True)
class Facts:
    """What is known of one study beside its front; what is empty is left out of the page.

    Attributes:
        histories: structure id (or `dense`) -> one row per epoch with `epoch` (or `number`) and measured values; behind
            the id a comma and the recipe, where one was retrained by several.
        gammas: stage of a slimming ("before", "after") -> layer -> batch-norm scales (C,).
        stages: stage -> wall-clock seconds, in the order in which they ran.
        importances: parameter -> share of the score's variation that it explains, in [0, 1].
        commands: the exact command lines that made the run, in order.
        versions: library -> version.
        environment: machine, processor, threads, seed: whatever else is needed to make it again.
        links: label -> path relative to the page.
    """

    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    gammas: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        fronts: the studies, all their trials included, each with a name of its own; several are drawn over each other.
        title: the heading of the page; the names of the studies when empty.
        facts: name of a study -> what else is known of it.
    """

    fronts: tuple[Front, ...]
    title: str = ""
    facts: Mapping[str, Facts] = field(default_factory=dict)

    def facts_of(self, front: Front) -> Facts:
        """What is known of one study beside its front; empty when nothing is."""
        return self.facts.get(front.name, Facts())

    @property
    def all_facts(self) -> tuple[Facts, ...]:
        """The facts of every study, in the order of the fronts."""
        return tuple(self.facts_of(front) for front in self.fronts)


def measures(fronts: Sequence[Front]) -> list[tuple[Measure, str]]:
    """What there is to draw, with a heading: the metric when something was retrained, the score when there is one."""
    name = common_metric(fronts).name
    found: list[tuple[Measure, str]] = []
    candidates = [one for front in fronts for one in front.candidates]
    if any(one.value("accuracy") is not None for one in candidates):
        found.append(("accuracy", f"{name[:1].upper()}{name[1:]} after retraining, against MACs"))
    if any(one.value("score") is not None for one in candidates) or not found:
        found.append(("score", f"{common_scorer(fronts)} without training, against MACs"))
    return found


def common_metric(fronts: Sequence[Front]) -> MetricSpec:
    """The metric of all fronts.

    Raises:
        SecateurError: when they have different ones, which no axis can show.
    """
    found = list(dict.fromkeys(front.metric for front in fronts))
    if len(found) > 1:
        names = ", ".join(f"{one.heading} ({one.direction} is better)" for one in found)
        raise SecateurError(f"the studies of a report need one metric, but have {names}")
    return found[0] if found else ACCURACY


def common_scorer(fronts: Sequence[Front]) -> str:
    """The scorer's name when all fronts share it, else `score`."""
    names = {front.scorer for front in fronts}
    return names.pop() if len(names) == 1 else "score"


def all_caps(fronts: Sequence[Front]) -> tuple[int, ...]:
    """Every MACs budget of the fronts, once."""
    return tuple(sorted({cap for front in fronts for cap in front.caps}))
