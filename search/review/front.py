"""What a search found: every candidate, and the ones that no other beats on both cost and quality."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name, one_line
from backbones.files import write_text
from search.data.task import ACCURACY, MetricSpec
from search.formatting import amount, csv_table, html_table
from search.review.candidate import Axis, Candidate, Measure, nondominated, ranked, ties, worth
from search.review.records import (
    by_metric,
    candidate_record,
    changes,
    flat_record,
    headings,
    metric_cell,
    metric_change,
    read_candidate,
    result_cells,
)
from search.space import budget

if TYPE_CHECKING:
    import pandas

FRONT_FORMAT = 1
NOTEBOOK = "overflow-x: auto; max-width: 100%; white-space: nowrap; color: inherit; background: transparent"
"""Style of what a notebook shows: its own colours, light or dark, and a line a row however narrow the page is."""
Status = Literal["front", "dominated", "infeasible", "unmeasured"]


@dataclass(frozen=True)
@explains("best", "save", "load")
class Front:
    """All candidates of one study, with the Pareto front that they make. Pure data.

    Attributes:
        name: the study.
        dense: the network that the search started from.
        candidates: every trial, in order of number.
        scorer: what the score is, `naswot_last`.
        caps: the budget: MACs that a candidate may have at most, one per target.
        baselines: other networks to show beside the candidates; never part of the front.
        metric: what `accuracy` of a candidate is: the task's metric, with its name, direction and unit.
    """

    name: str
    dense: Candidate
    candidates: tuple[Candidate, ...]
    scorer: str = "score"
    caps: tuple[int, ...] = ()
    baselines: tuple[Candidate, ...] = ()
    metric: MetricSpec = ACCURACY

    @property
    def measure(self) -> Measure:
        """What the front is about: accuracy as soon as one feasible candidate has been retrained, else the score."""
        retrained = any(one.reason is None and one.value("accuracy") is not None for one in self.candidates)
        return "accuracy" if retrained else "score"

    def statuses(self, measure: Measure | None = None, axis: Axis = "macs") -> tuple[Status, ...]:
        """For each candidate: on the front, dominated, infeasible, or without the measurement in question.

        Args:
            measure: accuracy (the task's metric, by its direction) or score; by default `self.measure`.
            axis: the cost, lower is better.
        """
        measure = measure or self.measure
        check_name("measure", measure, ("accuracy", "score"))
        check_name("axis", axis, get_args(Axis))
        pairs = [(one.on(axis), worth(one, measure, self.metric)) for one in self.candidates]
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
        """The candidate that is best by accuracy (the metric) or score, within the limits; of equals the cheapest.

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
        placed = zip(self.candidates, self.statuses(measure), strict=True)
        measured = [one for one, status in placed if status in ("front", "dominated")]
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
        return ranked(within, measure, self.metric)[0]

    def ties(self, measure: Measure | None = None) -> str:
        """In words, which candidates are as good as the `best` by a measure; empty when none is."""
        measure = measure or self.measure
        ones = ranked([one for one in self.candidates if one.reason is None], measure, self.metric)
        return ties(ones, [one.value(measure) for one in ones]) if ones else ""

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
        ys = _unit([worth(one, measure, self.metric) or 0.0 for one in points])
        return max(zip(points, xs, ys, strict=True), key=lambda row: (round(row[2] - row[1], 12), -row[1]))[0]

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes by which something was retrained, by their labels."""
        return tuple(dict.fromkeys(one.label for each in self.candidates for one in each.retrainings))

    def with_all_retrainings(self) -> Front:
        """The front with a further candidate, behind the trials, for every further recipe by which one was retrained.

        These have no score, so that each trial counts once where scores are looked at.
        """
        further = [row for one in self.candidates for row in one.by_retraining()[1:]]
        others = [replace(one, score=None, seconds=0.0) for one in further]
        return replace(self, candidates=(*self.candidates, *others)) if others else self

    def highlights(self, most: int = 60) -> tuple[Candidate, ...]:
        """What a result table shows: dense network, front, what was refitted or trained, baselines, cheapest first.

        What was retrained by several recipes has a row for each.

        Args:
            most: points of the front at most, from its cheap end; those that were trained or refitted are all there.
        """
        feasible = [one for one in self.candidates if one.reason is None]
        shown = {one.number: one for one in feasible if one.retrainings or one.accuracy is not None or one.refit}
        shown |= {one.number: one for one in self.points()[:most]}
        baselines = [one for one in self.baselines if one.reason is None]
        ones = sorted([*shown.values(), *baselines], key=lambda one: one.on("macs") or 0.0)
        return (self.dense, *(row for one in ones for row in one.by_retraining()))

    def rows(self) -> list[dict[str, Any]]:
        """One flat record for each candidate and further retraining, all with the same keys: what `front.csv` holds.

        `status` is the place by `measure`; accuracies are fractions, and columns of another metric have its name;
        `accuracy_change` is against the dense network; costs are those of one sample; `parameter …` is what was
        proposed, `width …` the number of channels kept in a group.
        """
        whole = self.with_all_retrainings()
        parameters = sorted({key for one in self.candidates for key in one.parameters})
        groups = list(dict.fromkeys(name for one in self.candidates if one.structure for name in one.structure.widths))
        table = []
        for one, status in zip(whole.candidates, whole.statuses(), strict=True):
            widths = one.structure.widths if one.structure else {}
            row = {"study": self.name, "trial": one.number, "structure": one.id, "status": status}
            row |= by_metric({**flat_record(one), **changes(self.dense, one)}, self.metric)
            row.update({f"parameter {key}": one.parameters.get(key) for key in parameters})
            row.update({f"width {name}": widths.get(name) for name in groups})
            table.append(row)
        return table

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
        """Writes `front.json` (everything; `Front.load` reads it) and `front.csv` into an existing folder.

        Raises:
            SecateurError: when the folder does not exist.
        """
        save_fronts((self,), folder)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Front:
        """Reads `front.json` from a folder that `save` wrote to.

        Raises:
            SecateurError: when there is no such file, it is not a front, or it holds several fronts.
        """
        fronts = load_fronts(folder)
        if len(fronts) != 1:
            names = ", ".join(repr(front.name) for front in fronts)
            raise SecateurError(f"{str(folder)!r} holds {len(fronts)} fronts ({names}); Front.load wants exactly one")
        return fronts[0]

    def __repr__(self) -> str:
        """A few lines: how much was found, the dense network, the best and what it loses."""
        statuses, measure = self.statuses(), self.measure
        found = f"{len(statuses)} trials, {statuses.count('infeasible')} infeasible, {len(self.points())} on the front"
        lines = [f"Front {self.name!r}: {found} by {self.metric.name if measure == 'accuracy' else self.scorer}"]
        lines.append(f"  dense: {self._in_words(self.dense)}")
        if "front" in statuses:
            best, level = self.best(), self.ties()
            lines.append(f"  best, {best.title}: {self._in_words(best)}{f' ({level})' if level else ''}")
        return "\n".join(lines)

    def _in_words(self, one: Candidate) -> str:
        macs, dense = one.on("macs"), self.dense.on("macs")
        share = f" ({macs / dense:.1%} of dense)" if macs and dense and one is not self.dense else ""
        parts = [f"{amount(macs)} MACs{share}"]
        if one.score is not None:
            parts.append(f"{self.scorer} {one.score:.5g}")
        values = (("validation", one.accuracy), ("test", one.test_accuracy))
        parts += [f"{split} {metric_cell(value, self.metric)}" for split, value in values if value is not None]
        change = metric_change(self.dense, one, self.metric)
        return ", ".join([*parts, *([f"{change} against dense"] if one is not self.dense and change != "–" else [])])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of `highlights`, without columns that are empty; narrow pages scroll it."""
        rows = [result_cells(self.dense, one, self.metric) for one in self.highlights()]
        shown = [i for i, cells in enumerate(zip(*rows, strict=True)) if any(cell not in ("", "–") for cell in cells)]
        names = headings(self.metric)
        table = html_table([names[i] for i in shown], [[cells[i] for i in shown] for cells in rows])
        return f'<div style="{NOTEBOOK}">{table}</div>'

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


def save_fronts(fronts: Sequence[Front], folder: str | os.PathLike[str]) -> None:
    """Writes front.json and front.csv of one or several fronts into an existing folder.

    Raises:
        SecateurError: when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SecateurError(f"cannot save a front to {str(folder)!r}: the folder does not exist")
    record = {"format": FRONT_FORMAT, "fronts": [_record(front, folder) for front in fronts]}
    record["digest"] = _digest(record)
    write_text(folder / "front.json", json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
    write_text(folder / "front.csv", csv_table([row for front in fronts for row in front.rows()], ("study", "trial")))


def load_fronts(folder: str | os.PathLike[str]) -> tuple[Front, ...]:
    """Reads the fronts that `save_fronts` wrote; paths of artefacts are taken relative to `folder`.

    Raises:
        SecateurError: when front.json is missing, of another format, or not a front.
    """
    path = Path(folder) / "front.json"
    if not path.is_file():
        raise SecateurError(f"no front in {str(folder)!r}: {path.name} is missing; Front.save writes it")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FRONT_FORMAT:
            raise SecateurError(
                f"{str(path)!r} has format {record['format']}; this version reads format {FRONT_FORMAT}"
            )
        if "digest" in record and record["digest"] != _digest(record):
            raise ValueError("its contents are not those that were saved")
        return tuple(_read(one, Path(folder)) for one in record["fronts"])
    except SecateurError:
        raise
    except Exception as error:  # a file that somebody edited can hold anything
        text = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise SecateurError(f"{str(path)!r} is not a front: {text}; Front.save writes one") from None


def _digest(record: Mapping[str, Any]) -> str:
    """64 hex digits over everything in the file but the digest itself."""
    told = json.loads(json.dumps({key: value for key, value in record.items() if key != "digest"}))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _record(front: Front, folder: Path) -> dict[str, Any]:
    every = (front.dense, *front.candidates, *front.baselines)
    graphs = {one.structure.graph: [name for name, _ in one.structure.kept] for one in every if one.structure}
    return {
        "name": front.name,
        "scorer": front.scorer,
        "caps": list(front.caps),
        "metric": asdict(front.metric),
        "graphs": graphs,
        "dense": candidate_record(front.dense, folder),
        "candidates": [candidate_record(one, folder) for one in front.candidates],
        "baselines": [candidate_record(one, folder) for one in front.baselines],
    }


def _read(record: Mapping[str, Any], folder: Path) -> Front:
    graphs = record["graphs"]
    return Front(
        name=record["name"],
        dense=read_candidate(record["dense"], graphs, folder),
        candidates=tuple(read_candidate(one, graphs, folder) for one in record["candidates"]),
        scorer=record["scorer"],
        caps=tuple(int(cap) for cap in record["caps"]),
        baselines=tuple(read_candidate(one, graphs, folder) for one in record["baselines"]),
        metric=MetricSpec(**record.get("metric", {})),  # which older versions did not write
    )


def _unit(values: Iterable[float]) -> list[float]:
    values = list(values)
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
