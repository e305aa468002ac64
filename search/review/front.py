"""What a search found: every candidate, and the ones that no other beats on both cost and quality."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.files import atomic_write
from backbones.structure import Structure
from search.review.footprint import Footprint
from search.space import budget

if TYPE_CHECKING:
    import pandas

Axis = Literal["macs", "params", "latency", "memory", "batch_seconds"]
Measure = Literal["accuracy", "score"]
Status = Literal["front", "dominated", "infeasible", "unmeasured"]


@dataclass(frozen=True)
class Candidate:
    """One structure that a search looked at (a trial), the dense network, or a baseline to compare with.

    Attributes:
        number: the trial's number in its study; -1 for the dense network and for baselines.
        structure: what is kept; None when the trial never got as far, or for a baseline from elsewhere.
        parameters: what the sampler proposed (thresholds, keep ratios).
        cost: MACs and parameters of one sample (latency in seconds and memory in bytes when measured).
        score: training-free score, higher is better, in the scorer's own unit.
        accuracy: on the validation split after retraining, a fraction in [0, 1].
        test_accuracy: on the test split after retraining, a fraction in [0, 1]; nothing is ever selected by it.
        seconds: time spent on the trial, retraining not included.
        reason: why it is infeasible, one sentence; None when it is feasible.
        artefact: the retrained network (safetensors).
        footprint: measured latency and size on disk, of networks that were retrained and of the dense one.
        label: a name to show instead of the trial number, `dense`, `uniform`.
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
    footprint: Footprint | None = None
    label: str = ""

    @property
    def id(self) -> str:
        """The structure's content id, empty without a structure."""
        return self.structure.id if self.structure else ""

    @property
    def name(self) -> str:
        """What people call it: its label, or `trial 17`."""
        return self.label or f"trial {self.number}"

    def on(self, axis: Axis) -> float | None:
        """The cost on one axis; None when unknown. `batch_seconds` is the latency of the footprint."""
        if axis == "batch_seconds":
            return None if self.footprint is None else self.footprint.latency
        return None if self.cost is None else getattr(self.cost, axis)

    def value(self, measure: Measure) -> float | None:
        """The accuracy or the score; None when it was not measured or is not a finite number."""
        number = self.accuracy if measure == "accuracy" else self.score
        return number if number is not None and math.isfinite(number) else None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copies the retrained network to `path`; `secateur.load` reads it.

        Raises:
            SecateurError: when this candidate was not retrained, its file is gone, or the folder does not exist.
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
        with atomic_write(target) as part:
            shutil.copyfile(self.artefact, part)
        return target


@dataclass(frozen=True)
class Front:
    """All candidates of one study, with the Pareto front that they make. Pure data.

    Attributes:
        name: the study.
        dense: the network that the search started from.
        candidates: every trial, in order of number.
        scorer: what the score is, `naswot_last`.
        caps: the budget: MACs that a candidate may have at most, one per target.
        baselines: other networks to show beside the candidates; never part of the front.
    """

    name: str
    dense: Candidate
    candidates: tuple[Candidate, ...]
    scorer: str = "score"
    caps: tuple[int, ...] = ()
    baselines: tuple[Candidate, ...] = ()

    @property
    def measure(self) -> Measure:
        """What the front is about: accuracy as soon as one feasible candidate has been retrained, else the score."""
        retrained = any(one.reason is None and one.value("accuracy") is not None for one in self.candidates)
        return "accuracy" if retrained else "score"

    def statuses(self, measure: Measure | None = None, axis: Axis = "macs") -> tuple[Status, ...]:
        """For each candidate: on the front, dominated, infeasible, or without the measurement in question.

        Args:
            measure: accuracy or score, higher is better; by default `self.measure`.
            axis: the cost, lower is better.
        """
        measure = measure or self.measure
        pairs = [(one.on(axis), one.value(measure)) for one in self.candidates]
        rows = [
            i
            for i, (cost, value) in enumerate(pairs)
            if cost is not None and value is not None and self.candidates[i].reason is None
        ]
        winners = nondominated([pairs[i] for i in rows])  # type: ignore[misc]
        status: list[Status] = ["unmeasured" if one.reason is None else "infeasible" for one in self.candidates]
        for i, wins in zip(rows, winners, strict=True):
            status[i] = "front" if wins else "dominated"
        return tuple(status)

    def points(self, measure: Measure | None = None, axis: Axis = "macs") -> tuple[Candidate, ...]:
        """The non-dominated candidates, cheapest first; of trials with the same structure only the first.

        A candidate is dominated when another one is at least as cheap and at least as good, and better in one of the
        two. Arguments as for `statuses`.
        """
        found: dict[tuple[float, str | int], Candidate] = {}
        for one, status in zip(self.candidates, self.statuses(measure, axis), strict=True):
            if status == "front":
                found.setdefault((one.on(axis) or 0.0, one.id or one.number), one)
        return tuple(one for _, one in sorted(found.items(), key=lambda item: (item[0][0], item[1].number)))

    def best(
        self, *, macs: float | str | None = None, params: float | str | None = None, measure: Measure | None = None
    ) -> Candidate:
        """The candidate of the highest accuracy (or score), within the limits; of equals the cheapest.

        Args:
            macs: the most MACs it may have: a fraction of the dense network's (`0.2`, `"20%"`) or an absolute number
                (`25_000_000`, `"25M"`); up to 1 a number without a unit is a fraction.
            params: the same for parameters.
            measure: accuracy or score; by default `self.measure`.

        Raises:
            SecateurError: for a limit that is no amount, when no candidate has been measured, or none of them is within
                the limits.
        """
        measure = measure or self.measure
        limits = {"macs": self._limit("macs", macs), "params": self._limit("params", params)}
        ranked = zip(self.candidates, self.statuses(measure), strict=True)
        measured = [one for one, status in ranked if status in ("front", "dominated")]
        if not measured:
            raise SecateurError(f"front {self.name!r} has no feasible candidate with a {measure}; run the search first")
        within = [one for one in measured if one.cost and all(getattr(one.cost, k) <= v for k, v in limits.items())]
        if not within:
            least = min(one.cost.macs for one in measured if one.cost), min(o.cost.params for o in measured if o.cost)
            asked = ", ".join(f"{k} <= {v:,.0f}" for k, v in limits.items() if math.isfinite(v))
            raise SecateurError(
                f"front {self.name!r} has no candidate with {asked}; the smallest with a {measure} have "
                f"{least[0]:,} MACs and {least[1]:,} parameters"
            )
        return max(within, key=lambda one: (one.value(measure) or 0.0, -(one.on("macs") or 0.0), -one.number))

    def knee(self, measure: Measure | None = None) -> Candidate:
        """The point of the front after which more MACs buy little: the one farthest above the line between its ends.

        Both axes are scaled to the front's own range, and the distance to the chord is compared: the rule of Kneedle
        (Satopaa et al., "Finding a 'Kneedle' in a haystack", ICDCSW 2011) with the knee of Branke et al. ("Finding
        knees in multi-objective optimization", PPSN 2004) in mind. Of equals the cheapest; so too of two points, both
        of which lie on the chord.

        Args:
            measure: accuracy or score; by default `self.measure`.

        Raises:
            SecateurError: when the front is empty.
        """
        measure = measure or self.measure
        points = self.points(measure)
        if not points:
            raise SecateurError(f"front {self.name!r} has no feasible candidate with a {measure}; run the search first")
        xs = _unit([one.on("macs") or 0.0 for one in points])
        ys = _unit([one.value(measure) or 0.0 for one in points])
        return max(zip(points, xs, ys, strict=True), key=lambda row: (round(row[2] - row[1], 12), -row[1]))[0]

    def rows(self) -> list[dict[str, Any]]:
        """One flat record per candidate: what `front.csv` holds (accuracies as fractions, costs of one sample)."""
        from search.review.front_files import rows

        return rows(self)

    def to_dataframe(self) -> pandas.DataFrame:
        """The rows as a pandas data frame.

        Raises:
            SecateurError: when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise SecateurError("Front.to_dataframe needs pandas; install it with: pip install pandas") from None
        return pandas.DataFrame(self.rows())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `front.json` (everything; `Front.load` reads it) and `front.csv` into an existing folder."""
        from search.review.front_files import save_fronts

        save_fronts((self,), folder)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Front:
        """Reads `front.json` from a folder that `save` wrote to.

        Raises:
            SecateurError: when there is no such file, it is not a front, or it holds several fronts.
        """
        from search.review.front_files import load_fronts

        fronts = load_fronts(folder)
        if len(fronts) != 1:
            names = ", ".join(repr(front.name) for front in fronts)
            raise SecateurError(f"{str(folder)!r} holds {len(fronts)} fronts ({names}); Front.load wants exactly one")
        return fronts[0]

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws the front to a file: PNG, SVG or an interactive HTML page, by the ending of `path`.

        Raises:
            SecateurError: for another ending, or a folder that does not exist.
        """
        from search.review.report import plot_fronts

        return plot_fronts((self,), path)

    def _repr_html_(self) -> str:
        from search.review.report import notebook_html

        return notebook_html(self)

    def _limit(self, axis: Axis, limit: float | str | None) -> float:
        if limit is None:
            return math.inf
        if isinstance(limit, str):
            limit, relative = budget.limit(axis, limit)
        else:
            relative = limit <= 1
        if not limit > 0:
            raise SecateurError(f"{axis} > 0 must hold, but got {axis}={limit}")
        if not relative:
            return limit
        dense = self.dense.on(axis)
        if dense is None:
            raise SecateurError(
                f"{axis}={limit} is a fraction of the dense {axis}, which front {self.name!r} does not know"
            )
        return limit * dense


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


def _unit(values: Iterable[float]) -> list[float]:
    values = list(values)
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
