"""What an evaluation found, for every scorer: how well it ranks, what choosing by it costs; as files with pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones.files import write_text
from search.data.task import ACCURACY, MetricSpec
from search.evaluate import statistics
from search.evaluate.statistics import Interval
from search.formatting import correlation, markdown_table
from search.review.chart_style import Spec, write_chart
from search.run.evaluation_plan import AccuracySplit
from search.space.families import SampledStructure

Floats = NDArray[np.float64]
CONTROLS = ("params", "macs", "random")


@dataclass(frozen=True, slots=True)
class ScorerResult:
    """How well one scorer, or one rank sum of scorers, orders structures by their accuracy after retraining.

    Of a task with another metric, here and below, accuracy is that metric; tau is positive where the score prefers what
    is better by it, whatever its direction.

    Attributes:
        scorer: name, "a+b" for a rank sum.
        tau: Kendall's tau-b between score and accuracy over all structures.
        tau_top: the same inside the top third by accuracy.
        spearman: Spearman's rank correlation over all structures.
        regret: accuracy, as a fraction, lost by retraining only the structure with the highest score; never negative.
        regret_fifth: the same, lost by retraining the fifth with the highest scores and taking the best of them.
        beats: control scorer -> share of paired resamples in which this scorer's tau is above the control's.
        seconds: to score one structure on the machine of the run; None for rank sums.
        failed: structures that the scorer could not score; they count as its lowest.
    """

    scorer: str
    tau: Interval
    tau_top: Interval
    spearman: float
    regret: float
    regret_fifth: float
    beats: Mapping[str, float]
    seconds: float | None
    failed: int


@dataclass(frozen=True, eq=False)
class Evidence:
    """Structures of one cost, their scores, and their accuracies after retraining.

    Attributes:
        name: the study's name, for titles.
        settings: plan, budget, machine and versions, as plain values.
        structures: each was retrained with every seed.
        scores: scorer -> (structures,) scores, NaN where the scorer failed.
        accuracies: "validation", and "test" where it was looked at -> (structures, seeds) accuracies, fractions.
        seconds: scorer -> seconds to score one structure.
        measure: the accuracy that `results` compare with: "validation" or "test".
        metric: what accuracies are.
    """

    name: str
    settings: Mapping[str, Any]
    structures: tuple[SampledStructure, ...]
    scores: Mapping[str, Floats]
    accuracies: Mapping[str, Floats]
    seconds: Mapping[str, float]
    measure: AccuracySplit = "validation"
    metric: MetricSpec = ACCURACY

    @property
    def truth(self) -> Floats:
        """(structures,) accuracy, mean over the seeds."""
        return np.asarray(self.accuracies[self.measure].mean(1), dtype=np.float64)

    @property
    def ceiling(self) -> tuple[float, float]:
        """Tau of retraining against retraining, over all and inside the top third (`statistics.ceiling`)."""
        return statistics.ceiling(self.metric.worth(1.0) * self.accuracies[self.measure])

    @property
    def _ends(self) -> dict[str, float]:
        """The best, the mean and the worst accuracy."""
        sign, truth = self.metric.worth(1.0), self.truth
        return {
            "best": sign * float((sign * truth).max()),
            "mean": float(truth.mean()),
            "worst": sign * float((sign * truth).min()),
        }

    @cached_property
    def results(self) -> tuple[ScorerResult, ...]:
        """How each score did, the highest tau first."""
        truth = self.metric.worth(1.0) * self.truth
        best = statistics.top(truth)
        ranked = {name: _lowest_for_missing(values) for name, values in self.scores.items()}
        draws = statistics.resampled_tau(ranked, truth)
        top_draws = statistics.resampled_tau({name: values[best] for name, values in ranked.items()}, truth[best])
        found = [
            ScorerResult(
                name,
                statistics.interval_of(statistics.tau(values, truth), draws[name]),
                statistics.interval_of(statistics.tau(values[best], truth[best]), top_draws[name]),
                statistics.spearman(values, truth),
                _regret(self.scores[name], truth),
                _regret(self.scores[name], truth, 0.2),
                {other: statistics.share_above(draws[name], draws[other]) for other in CONTROLS if other in draws},
                self.seconds.get(name),
                int(np.isnan(self.scores[name]).sum()),
            )
            for name, values in ranked.items()
        ]
        return tuple(sorted(found, key=lambda one: -one.tau.value if not math.isnan(one.tau.value) else math.inf))

    def rows(self) -> list[dict[str, Any]]:
        """Family, cost, accuracies of every seed and scores of each structure, as plain values."""
        return [
            {
                "structure": one.structure.id,
                "family": one.family,
                "macs": one.cost.macs,
                "params": one.cost.params,
                **{name: [round(float(v), 5) for v in values[i]] for name, values in self.accuracies.items()},
                "scores": {name: _plain(values[i]) for name, values in self.scores.items()},
            }
            for i, one in enumerate(self.structures)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        whole, inside = self.ceiling
        return {
            "study": self.name,
            "settings": dict(self.settings),
            "measure": self.measure,
            "metric": asdict(self.metric),
            "structures": len(self.structures),
            "seeds": self.accuracies[self.measure].shape[1],
            self.metric.key: self._ends,
            "seed_deviation": _plain(statistics.seed_deviation(self.accuracies[self.measure])),
            "ceiling": {"all": _plain(whole), "top third": _plain(inside)},
            "verdicts": [_finite(asdict(one)) for one in self.results],
            "rows": self.rows(),
        }

    def summary(self) -> str:
        """Two lines on the accuracies and the ceiling."""
        metric, (whole, inside) = self.metric, self.ceiling
        seeds = self.accuracies[self.measure].shape[1]
        ends = ", ".join(f"{name} {metric.compact(value)}" for name, value in self._ends.items())
        lines = [
            f"{len(self.structures)} structures, {seeds} seed{'s' * (seeds > 1)} each; {self.measure} {metric.name}: "
            + ends
        ]
        if seeds > 1:
            deviation = metric.difference(statistics.seed_deviation(self.accuracies[self.measure]), 2)
            unit = "points" if metric.unit == "%" else metric.unit
            lines.append(
                f"ceiling (tau between seeds): {whole:+.2f} over all, {inside:+.2f} in the top third; one retraining "
                f"varies by {deviation} {unit}".rstrip()
            )
        return "\n".join(lines)

    def table_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for a table: score, taus with intervals, regrets in points or the metric's unit, seconds."""
        header = ["score", "tau, all", "tau, top third", "regret", "of fifth", "s"]
        rows = [
            [
                one.scorer,
                str(one.tau),
                str(one.tau_top),
                self.metric.difference(one.regret),
                self.metric.difference(one.regret_fifth),
                "-" if one.seconds is None else f"{one.seconds:.2g}",
            ]
            for one in self.results
        ]
        return header, rows

    def markdown(self) -> str:
        """The table for a document, with Spearman and the share of resamples above each control."""
        header, rows = self.table_rows()
        header += ["Spearman", *(f"> {control}" for control in CONTROLS)]
        for row, one in zip(rows, self.results, strict=True):
            row.append(correlation(one.spearman))
            shares = (one.beats.get(control, math.nan) for control in CONTROLS)
            row += ["-" if math.isnan(share) else f"{share:.0%}" for share in shares]
        table = markdown_table(header, [[f"`{row[0]}`", *row[1:]] for row in rows])
        return f"{self.summary()}\n\n{table}\n"


def with_rank_sums(scores: Mapping[str, Floats], names: Sequence[str]) -> dict[str, Floats]:
    """The columns that `names` ask for; "a+b" is the rank sum over all structures, NaN where a part scored none."""
    columns = {}
    for name in names:
        parts = [_lowest_for_missing(scores[part]) for part in name.split("+")]
        nothing = any(np.isnan(scores[part]).all() for part in name.split("+"))
        alone = scores[name] if len(parts) == 1 else statistics.rank_sum(parts)
        columns[name] = np.full(len(alone), np.nan) if nothing else alone
    return columns


def _regret(values: Floats, truth: Floats, share: float | None = None) -> float:
    """NaN where nothing was scored."""
    if np.isnan(values).all():
        return float("nan")
    return statistics.regret(_lowest_for_missing(values), truth, share)


def _lowest_for_missing(values: Floats) -> Floats:
    """NaN becomes lower than anything that was scored."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), (known.min() if len(known) else 0.0) - 1.0, values)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return _plain(value) if isinstance(value, float) else value


PANEL = 150
PANELS_A_ROW = 4


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Writes evidence.json, evidence.md, scatter.png, scatter.svg, tau.png and tau.svg, each file in one step."""
    write_text(folder / "evidence.json", json.dumps(evidence.to_dict(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "evidence.md", evidence.markdown())
    for name, chart in (("scatter", scatter_chart(evidence)), ("tau", tau_chart(evidence))):
        for ending in ("png", "svg"):
            write_chart(chart, folder / f"{name}.{ending}")


def scatter_chart(evidence: Evidence) -> Spec:
    """One small panel a scorer, the best first: score against accuracy after retraining, coloured by family."""
    truth, metric = evidence.truth, evidence.metric
    form = ".0%" if metric.unit == "%" else metric.ticks[0]
    title = {one.scorer: f"{one.scorer}  {one.tau.value:+.2f}" for one in evidence.results}
    rows = [
        {"score": title[result.scorer], "value": float(value), "accuracy": float(truth[i]), "family": one.family}
        for result in evidence.results
        for i, (one, value) in enumerate(zip(evidence.structures, evidence.scores[result.scorer], strict=True))
        if np.isfinite(value)
    ]
    number = {"type": "quantitative", "scale": {"zero": False}}
    return {
        "data": {"values": rows},
        "title": {"text": f"{evidence.name}: scores before retraining, {metric.name} after", "subtitle": "number: tau"},
        "facet": {
            "field": "score",
            "type": "nominal",
            "sort": list(title.values()),
            "header": {"title": None, "labelFontSize": 12},
        },
        "columns": PANELS_A_ROW,
        "spec": {
            "width": PANEL,
            "height": PANEL,
            "mark": {"type": "point", "filled": True, "size": 28, "opacity": 0.8},
            "encoding": {
                "x": {"field": "value", "title": None, "axis": {"tickCount": 3, "format": ".3~g"}, **number},
                "y": {
                    "field": "accuracy",
                    "title": f"{evidence.measure} {metric.heading}",
                    "axis": {"tickCount": 4, "format": form},
                    **number,
                },
                "color": {"field": "family", "type": "nominal", "legend": {"title": None, "orient": "top"}},
            },
        },
        "resolve": {"scale": {"x": "independent"}},
    }


def tau_chart(evidence: Evidence) -> Spec:
    """Tau over all structures and inside the top third, with 95 % intervals and the ceiling."""
    whole, inside = evidence.ceiling
    parts = (("all structures", whole, "tau"), ("top third", inside, "tau_top"))
    rows, limits = [], []
    for part, ceiling, attribute in parts:
        if not np.isnan(ceiling):
            limits.append({"part": part, "ceiling": ceiling})
        for result in evidence.results:
            interval = getattr(result, attribute)
            if np.isfinite([interval.value, interval.low, interval.high]).all():
                rows.append(
                    {
                        "scorer": result.scorer,
                        "part": part,
                        "tau": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    order = [result.scorer for result in evidence.results]
    scorer = {"field": "scorer", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 220}}
    tau = {"type": "quantitative", "scale": {"domain": [-1, 1]}}

    def panel(part: str, labels: bool) -> Spec:
        mine = {"filter": {"field": "part", "equal": part}}
        y = scorer if labels else {**scorer, "axis": None}
        interval = {"x": {"field": "low", "title": "tau", **tau}, "x2": {"field": "high"}, "y": y}
        return {
            "title": part,
            "width": 260,
            "height": {"step": 20},
            "layer": [
                {"data": {"values": [{"x": 0}]}, "mark": "rule", "encoding": {"x": {"field": "x", **tau}}},
                {
                    "data": {"values": [row for row in limits if row["part"] == part]},
                    "mark": {"type": "rule", "strokeDash": [5, 3]},
                    "encoding": {"x": {"field": "ceiling", **tau}},
                },
                {"transform": [mine], "mark": {"type": "rule", "strokeWidth": 2}, "encoding": interval},
                {
                    "transform": [mine],
                    "mark": {"type": "point", "filled": True, "size": 60},
                    "encoding": {"x": {"field": "tau", **tau}, "y": y},
                },
            ],
        }

    subtitle = "95 % intervals" + (", dashed: tau between retraining seeds" if limits else "")
    return {
        "data": {"values": rows},
        "title": {
            "text": f"{evidence.name}: rank agreement with {evidence.metric.name} after retraining",
            "subtitle": subtitle,
        },
        "hconcat": [panel("all structures", True), panel("top third", False)],
    }
