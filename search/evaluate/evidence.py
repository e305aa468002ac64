"""What an evaluation found: for every scorer how well it ranks, and what choosing by it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backbones.files import write_text
from search.evaluate import statistics
from search.evaluate.statistics import Interval
from search.formatting import correlation, markdown_table, points
from search.space.families import Drawn

Floats = NDArray[np.float64]
Measure = Literal["validation", "test"]
CONTROLS = ("params", "macs", "random")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one score did.

    Attributes:
        scorer: name.
        tau: Kendall's tau-b with accuracy over all structures.
        tau_top: the same inside the top third by accuracy.
        spearman: rank correlation over all.
        regret: fraction of accuracy lost by retraining only the structure it puts on top.
        regret_fifth: likewise by retraining the fifth it puts on top and taking the best.
        beats: control -> share of paired resamples in which its tau is above the control's.
        seconds: a structure, on the machine of the run; None for rank sums.
        failed: structures it could not score; they count as its lowest.
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
    """Structures of one cost, their scores and what retraining made of them.

    Attributes:
        name: of the study.
        settings: of the plan, the budget, machine and versions.
        drawn: structures, each retrained with every seed.
        scores: scorer -> (structures,), NaN where it failed.
        accuracies: "validation", and "test" where it was looked at -> (structures, seeds), fractions.
        seconds: scorer -> a structure.
        measure: whose accuracy the verdicts are about.
    """

    name: str
    settings: Mapping[str, Any]
    drawn: tuple[Drawn, ...]
    scores: Mapping[str, Floats]
    accuracies: Mapping[str, Floats]
    seconds: Mapping[str, float]
    measure: Measure = "validation"

    @property
    def truth(self) -> Floats:
        """(structures,) accuracy, mean over the seeds."""
        return np.asarray(self.accuracies[self.measure].mean(1), dtype=np.float64)

    @property
    def ceiling(self) -> tuple[float, float]:
        """Tau of retraining against retraining, over all and inside the top third (`statistics.ceiling`)."""
        return statistics.ceiling(self.accuracies[self.measure])

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One a score, the highest tau first."""
        truth, best = self.truth, statistics.top(self.truth)
        ranked = {name: _lowest_for_missing(values) for name, values in self.scores.items()}
        draws = statistics.resampled_tau(ranked, truth)
        top_draws = statistics.resampled_tau({name: values[best] for name, values in ranked.items()}, truth[best])
        found = [
            Verdict(
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
        """One a structure: family, cost, accuracies of every seed, scores."""
        return [
            {
                "structure": one.structure.id,
                "family": one.family,
                "macs": one.cost.macs,
                "params": one.cost.params,
                **{name: [round(float(v), 5) for v in values[i]] for name, values in self.accuracies.items()},
                "scores": {name: _plain(values[i]) for name, values in self.scores.items()},
            }
            for i, one in enumerate(self.drawn)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        whole, inside = self.ceiling
        truth = self.truth
        return {
            "study": self.name,
            "settings": dict(self.settings),
            "measure": self.measure,
            "structures": len(self.drawn),
            "seeds": self.accuracies[self.measure].shape[1],
            "accuracy": {"best": float(truth.max()), "mean": float(truth.mean()), "worst": float(truth.min())},
            "seed_deviation": _plain(statistics.seed_deviation(self.accuracies[self.measure])),
            "ceiling": {"all": _plain(whole), "top third": _plain(inside)},
            "verdicts": [_finite(asdict(one)) for one in self.verdicts],
            "rows": self.rows(),
        }

    def save(self, folder: Path) -> None:
        """Writes evidence.json, evidence.md and the pictures, each in one step."""
        from search.evaluate.charts import scatter_chart, tau_chart
        from search.review.chart_style import write_chart

        write_text(folder / "evidence.json", json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        write_text(folder / "evidence.md", self.markdown())
        for name, chart in (("scatter", scatter_chart(self)), ("tau", tau_chart(self))):
            for ending in ("png", "svg"):
                write_chart(chart, folder / f"{name}.{ending}")

    def summary(self) -> str:
        """Two lines on the accuracies and the ceiling."""
        truth, (whole, inside) = self.truth, self.ceiling
        seeds = self.accuracies[self.measure].shape[1]
        lines = [
            f"{len(truth)} structures, {seeds} seed{'s' * (seeds > 1)} each; {self.measure} accuracy: best "
            f"{truth.max():.1%}, mean {truth.mean():.1%}, worst {truth.min():.1%}"
        ]
        if seeds > 1:
            deviation = 100 * statistics.seed_deviation(self.accuracies[self.measure])
            lines.append(
                f"ceiling (tau between seeds): {whole:+.2f} over all, {inside:+.2f} in the top third; one retraining "
                f"varies by {deviation:.2f} points"
            )
        return "\n".join(lines)

    def table_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for a table: score, taus with intervals, regrets in points, seconds."""
        header = ["score", "tau, all", "tau, top third", "regret", "of fifth", "s"]
        rows = [
            [
                one.scorer,
                str(one.tau),
                str(one.tau_top),
                points(one.regret),
                points(one.regret_fifth),
                "-" if one.seconds is None else f"{one.seconds:.2g}",
            ]
            for one in self.verdicts
        ]
        return header, rows

    def markdown(self) -> str:
        """The table for a document, with Spearman and the share of resamples above each control."""
        header, rows = self.table_rows()
        header += ["Spearman", *(f"> {control}" for control in CONTROLS)]
        for row, one in zip(rows, self.verdicts, strict=True):
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
