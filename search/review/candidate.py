"""Candidates: what a search looked at, and how one is compared with others."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from backbones.arguments import explains
from backbones.artefact import read_artefact
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.files import atomic_write
from backbones.structure import Structure
from search.data.task import ACCURACY, MetricSpec
from search.review.footprint import Footprint

Axis = Literal["macs", "params", "latency", "memory", "batch_seconds", "single_seconds"]
Measure = Literal["accuracy", "score"]


@dataclass(frozen=True, slots=True)
class Refit:
    """A structure's network before any training, with refitted weights.

    Attributes:
        artefact: the refitted network (safetensors).
        accuracy: the task's metric (accuracy, with classes) on the validation split; a percentage is a fraction.
        cut_accuracy: the same with the weights that the cut leaves, batch-norm statistics renewed.
    """

    artefact: Path
    accuracy: float
    cut_accuracy: float


@dataclass(frozen=True, slots=True)
class Retraining:
    """How far one structure came by one recipe.

    Attributes:
        recipe: every setting of the whole training: those of `Recipe.to_dict`, "flow", "steps" and "start".
        label: the whole training in a few words: its epochs, and what else tells it from others of the same study.
        rungs: (epochs, validation accuracy) of each training by this recipe, the shortest first. Short ones decide
            between finalists (`search.study.finalists`); the whole one is the last, where it was made.
        test_accuracy: on the test split after the whole training, a fraction in [0, 1]; None before.
        artefact: the network after the whole training (safetensors).
        structure: that the training ended with; None where it is not known.
        cost: of that structure.
    """

    recipe: Mapping[str, Any]
    label: str
    rungs: tuple[tuple[int, float], ...]
    test_accuracy: float | None = None
    artefact: Path | None = None
    structure: Structure | None = None
    cost: Cost | None = None

    @property
    def epochs(self) -> int:
        """How many epochs the whole training takes."""
        return int(self.recipe["epochs"])

    @property
    def reached(self) -> int:
        """Epochs of the longest training so far."""
        return self.rungs[-1][0]

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy after the whole training, a fraction in [0, 1]; None before."""
        return self.rungs[-1][1] if self.reached == self.epochs else None

    @property
    def short(self) -> bool:
        """Whether short trainings belong to it: the structure was a finalist."""
        return len(self.rungs) > 1 or self.accuracy is None

    def place(self, metric: MetricSpec = ACCURACY) -> tuple[float, float]:
        """A key to sort by: whole trainings first, then those that came farthest; among these the best first."""
        length = math.inf if self.accuracy is not None else float(self.reached)
        return -length, -metric.worth(self.rungs[-1][1])


@dataclass(frozen=True)
@explains("save")
class Candidate:
    """One structure that a search looked at (a trial), the dense network, or a baseline to compare with.

    Attributes:
        number: the trial's number in its study; -1 for the dense network and for baselines.
        structure: what is kept; None when the trial never got as far, or for a baseline from elsewhere.
        parameters: what the sampler proposed (thresholds, keep ratios).
        cost: MACs and parameters of one sample (latency in seconds and memory in bytes when measured).
        score: training-free score, higher is better, in the scorer's own unit.
        confirmed: the same score on images that no trial saw, of those that were looked at again; else None.
        accuracy: the task's metric (accuracy, with classes) on the validation split after retraining; a percentage is a
            fraction. Of several retrainings the best.
        test_accuracy: the same on the test split, of that retraining; nothing is ever selected by it.
        seconds: time spent on the trial, retraining not included.
        reason: why it is infeasible, one sentence; None when it is feasible.
        artefact: the retrained network (safetensors).
        retrainings: every recipe by which it was retrained, the one whose result is shown first.
        refit: what it reaches before any training, where it was refitted.
        footprint: measured latency and size on disk, of networks that were retrained and of the dense one; where a
            budget bounds latency, of all finalists and refitted ones.
        label: a name to show instead of the trial number, `dense`, `uniform`.
        rule: the rule or the given structure that a trial of the warm start comes from; empty for what was proposed.
    """

    number: int
    structure: Structure | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    score: float | None = None
    accuracy: float | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0
    reason: str | None = None
    artefact: Path | None = None
    retrainings: tuple[Retraining, ...] = ()
    refit: Refit | None = None
    footprint: Footprint | None = None
    label: str = ""
    rule: str = ""
    confirmed: float | None = None

    @property
    def id(self) -> str:
        """The structure's content id, empty without a structure."""
        return self.structure.id if self.structure else ""

    @property
    def name(self) -> str:
        """What people call it: its label, `trial 17`, or of a rule's structure `trial 2 (sensitivity)`."""
        return self.label or f"trial {self.number}" + (f" ({self.rule})" if self.rule else "")

    @property
    def title(self) -> str:
        """Its name and its structure's id, by which every text and table calls it: `trial 17, 3fa9c1d2e4b0`."""
        return f"{self.name}, {self.id}" if self.id and self.id != self.name else self.name

    @property
    def cut_accuracy(self) -> float | None:
        """On the validation split with the weights that the cut leaves; None where it was not refitted."""
        return None if self.refit is None else self.refit.cut_accuracy

    @property
    def refitted_accuracy(self) -> float | None:
        """On the validation split with refitted weights, before any training; None where it was not refitted."""
        return None if self.refit is None else self.refit.accuracy

    def after(self, one: Retraining) -> Self:
        """The candidate as a retraining left it, and without the others."""
        same = one.structure == self.structure
        return replace(
            self,
            structure=one.structure,
            cost=one.cost,
            accuracy=one.accuracy,
            test_accuracy=one.test_accuracy,
            artefact=one.artefact,
            retrainings=(one,),
            refit=self.refit if same else None,
            footprint=self.footprint if same else None,
        )

    def by_retraining(self) -> tuple[Self, ...]:
        """The candidate once for each retraining; itself alone where there is at most one."""
        return tuple(map(self.after, self.retrainings)) if len(self.retrainings) > 1 else (self,)

    def on(self, axis: Axis) -> float | None:
        """The cost on one axis; None when unknown. `batch_seconds` and `single_seconds` are of the footprint."""
        if axis in ("batch_seconds", "single_seconds"):
            found = self.footprint
            return None if found is None else found.latency if axis == "batch_seconds" else found.single
        return None if self.cost is None else getattr(self.cost, axis)

    def value(self, measure: Measure) -> float | None:
        """The accuracy or the score; None when it was not measured or is not a finite number."""
        number = self.accuracy if measure == "accuracy" else self.score
        return number if number is not None and math.isfinite(number) else None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copies the retrained network to `path`; `secateur.load` reads it.

        Raises:
            SecateurError: when this candidate was not retrained, its file is gone, damaged or another network, or the
                folder does not exist; what lies at `path` is then left alone.
        """
        target = Path(path)
        if self.artefact is None:
            raise SecateurError(
                f"{self.name} ({self.id or 'no structure'}) was not retrained, so it has no file to save"
            )
        if not self.artefact.is_file():
            raise SecateurError(f"the retrained network of {self.name} is gone: {str(self.artefact)!r} is not a file")
        if not target.parent.is_dir():
            raise SecateurError(f"cannot save to {str(target)!r}: the folder {str(target.parent)!r} does not exist")
        told = read_artefact(self.artefact)[0].get("provenance", {})
        if self.id and self.id not in (told.get("structure"), told.get("ended")):
            raise SecateurError(f"{self.artefact} is not the network of {self.name} ({self.id})")
        with atomic_write(target) as part:
            shutil.copyfile(self.artefact, part)
        return target


def worth(one: Candidate, measure: Measure, metric: MetricSpec) -> float | None:
    """What a candidate is worth by a measure, higher is better whatever the metric's direction; None as `value`."""
    value = one.value(measure)
    return metric.worth(value) if value is not None and measure == "accuracy" else value


def ranked(candidates: Iterable[Candidate], measure: Measure, metric: MetricSpec = ACCURACY) -> list[Candidate]:
    """The candidates that have a measure, best first: of equals the one of fewer MACs, then the earlier trial.

    Args:
        candidates: in any order.
        measure: accuracy (the task's metric) or score.
        metric: the task's metric, whose direction says what is better.
    """
    known = [(value, one) for one in candidates if (value := worth(one, measure, metric)) is not None]
    known.sort(key=lambda pair: (-pair[0], pair[1].on("macs") or 0.0, pair[1].number))
    return [one for _, one in known]


def ties(ones: Sequence[Candidate], values: Sequence[float | None]) -> str:
    """Says which others are as good as the first, and what the first was taken for; empty when none is.

    Args:
        ones: candidates, the one that counts first and of equals the cheapest.
        values: what each is judged by.
    """
    found = {one.id or one.name: one for one, value in zip(ones, values, strict=True) if value == values[0]}
    equals = [one.name for one in list(found.values())[1:]]
    if not equals:
        return ""
    more = f" and {len(equals) - 3} more" if len(equals) > 3 else ""
    return (
        f"level with {', '.join(equals[:3])}{more}; of equals the one of the fewest MACs, then the earliest, is taken"
    )


def nondominated(pairs: Sequence[tuple[float, float]]) -> list[bool]:
    """For (cost, value) pairs: is no other pair at least as cheap and as good, and better in one of the two?

    Equal pairs do not dominate each other. O(n log n).
    """
    mask = [False] * len(pairs)
    cheaper, here, at = -math.inf, -math.inf, math.nan
    for i in sorted(range(len(pairs)), key=lambda i: (pairs[i][0], -pairs[i][1])):
        cost, value = pairs[i]
        if cost != at:
            cheaper, here, at = max(cheaper, here), value, cost
        mask[i] = value == here and value > cheaper
    return mask
