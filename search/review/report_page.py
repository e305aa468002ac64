"""The report's page: text, tables and figures put into the template. Nothing on it comes from a network."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from search.review.chart_style import Spec, config, vega_bundle
from search.review.charts import (
    curves_chart,
    duration,
    history_chart,
    importances_chart,
    stages_chart,
    widths_chart,
)
from search.review.front import Candidate, Front
from search.review.front_chart import AXES, axes_measured, front_chart, state_field, trial_rows
from search.review.parameter_chart import parameters_chart
from search.review.report import Report, all_caps, common_scorer, measures
from search.review.training_charts import gamma_chart
from search.run.console import amount

HEADINGS = (
    "candidate",
    "MACs",
    "of dense",
    "parameters",
    "ms a batch",
    "size",
    "score",
    "validation",
    "test",
    "points lost or won",
    "structure",
)
MOST_POINTS = 60
MOST_WIDTHS = 12
MOST_LISTED_PARAMETERS = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture of the page.

    Attributes:
        name: unique, for ids and file names.
        title: above it.
        caption: below it, how to read it.
        views: label -> specification; buttons switch between them when there are several.
    """

    name: str
    title: str
    caption: str
    views: Mapping[str, Spec]


@dataclass(frozen=True, slots=True)
class PointRow:
    """One line of the table of points: text cells below `HEADINGS`, whether it is dense, a link to its network."""

    cells: tuple[str, ...]
    dense: bool
    link: str


def page(report: Report, folder: Path) -> str:
    """The whole page as text; links are made relative to `folder`, where it will lie."""
    rows = trial_rows(report.fronts)
    shown = figures(report, rows)
    data = {
        "trials": _table(report.fronts, rows),
        "figures": [{"name": one.name, "views": one.views} for one in shown],
        "light": config(),
        "dark": config(dark=True),
        "listed": _listed(report.fronts),
        "file": "-".join(front.name for front in report.fronts),
    }
    context = {
        "title": report.title or ", ".join(front.name for front in report.fronts),
        "cards": [card for front in report.fronts for card in _cards(front, several=len(report.fronts) > 1)],
        "figures": {one.name: one for one in shown},
        "headings": HEADINGS,
        "points": point_rows(report.fronts, folder),
        "reasons": Counter(one.reason for front in report.fronts for one in front.candidates if one.reason).most_common(
            10
        ),
        "links": {label: quote(path) for label, path in report.links.items()},
        "measured": _measured(report.fronts),
        "report": report,
        "total": duration(sum(report.stages.values())) if report.stages else "",
        "data": data,
        "bundle": Markup(vega_bundle()),
    }
    return _environment().get_template("report.html.jinja").render(context)


def figures(report: Report, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Every figure that the report has data for, in the order of the page."""
    fronts, scorer = report.fronts, common_scorer(report.fronts)
    found = []
    for measure, heading in measures(fronts):
        views = {
            AXES[axis][0].split(" for ")[0].split(",")[0]: front_chart(
                rows, measure, axis, scorer=scorer, caps=all_caps(fronts)
            )
            for axis in axes_measured(fronts)
        }
        ringed = " Circled: retrained." if measure == "score" and len(measures(fronts)) > 1 else ""
        caption = "The stairs join the candidates that no other beats on both axes." + ringed
        found.append(
            Figure(f"front-{measure}", heading, caption + " Shift and the wheel zoom, shift and dragging move.", views)
        )
    if widths := _width_views(fronts):
        found.append(Figure("widths", "Channels kept in each group", "Outlined: the dense network.", widths))
    found.append(
        Figure("history", "Score of each trial, and the best so far", "", {"": history_chart(rows, scorer=scorer)})
    )
    ranked = sorted(report.importances, key=lambda name: -report.importances[name])
    proposals = {front.name: parameters_chart(front.candidates, scorer=front.scorer, first=ranked) for front in fronts}
    if views := {name: spec for name, spec in proposals.items() if spec is not None}:
        caption = "Of more than 16 parameters the most important, of more than 300 trials the best by score."
        found.append(Figure("parameters", "What was proposed, and how it scored", caption, views))
    if report.importances:
        spec = importances_chart(report.importances)
        found.append(Figure("importances", "Which parameters decide the score", "Estimated by Optuna.", {"": spec}))
    if curves := _curve_views(report):
        found.append(Figure("curves", "Retraining", "", curves))
    if report.gammas:
        histogram, share = gamma_chart(report.gammas)["hconcat"]
        sizes = ("width", "height")
        views = {
            name: {key: value for key, value in spec.items() if key not in sizes}
            for name, spec in (("histogram", histogram), ("cumulative", share))
        }
        caption = "The scales of all batch-norm layers; slimming drives those of dispensable channels to zero."
        found.append(Figure("gammas", "What slimming did to the batch-norm scales", caption, views))
    if report.stages:
        found.append(Figure("stages", "Where the time went", "", {"": stages_chart(report.stages)}))
    return found


def point_rows(fronts: Sequence[Front], folder: Path) -> list[PointRow]:
    """The dense network, the front, the other retrained candidates and the baselines of each study, cheapest first."""
    rows = []
    for front in fronts:
        own = {one.number: one for one in front.candidates if one.value("accuracy") is not None and one.reason is None}
        own |= {one.number: one for one in front.points()[:MOST_POINTS]}
        ones = sorted([*own.values(), *front.baselines], key=lambda one: one.on("macs") or 0.0)
        prefix = f"{front.name}: " if len(fronts) > 1 else ""
        rows += [
            PointRow((prefix + one.name, *_cells(front, one)), one is front.dense, _link(one.artefact, folder))
            for one in (front.dense, *ones)
        ]
    return rows


def _measured(fronts: Sequence[Front]) -> str:
    """What the milliseconds of the table are of."""
    of = {(one.batch, one.threads) for front in fronts for one in [front.dense.footprint] if one is not None}
    return "".join(f", {batch} images a batch, {threads} threads" for batch, threads in sorted(of))


def _cells(front: Front, one: Candidate) -> tuple[str, ...]:
    macs, dense_macs = one.on("macs"), front.dense.on("macs")
    share = f"{macs / dense_macs:.1%}" if macs is not None and dense_macs else "–"
    score = one.value("score")
    return (
        _or_dash(amount(macs)),
        share,
        _or_dash(amount(one.on("params"))),
        f"{1e3 * one.footprint.latency:.1f}" if one.footprint else "–",
        f"{amount(one.footprint.disk)}B" if one.footprint else "–",
        "–" if score is None else f"{score:.5g}",
        _percent(one.accuracy),
        _percent(one.test_accuracy),
        "" if one is front.dense else _against(front.dense, one),
        one.id or "–",
    )


def _against(dense: Candidate, one: Candidate) -> str:
    """Percentage points of test accuracy gained or lost; of validation accuracy where test is not known."""
    for mine, theirs, word in (
        (one.test_accuracy, dense.test_accuracy, "test"),
        (one.accuracy, dense.accuracy, "validation"),
    ):
        if mine is not None and theirs is not None:
            points = round(100 * (mine - theirs), 2)
            return f"{'+' if points > 0 else '−' if points < 0 else '±'}{abs(points):.2f} {word}"
    return "–"


def _cards(front: Front, *, several: bool) -> list[tuple[str, str, str, str]]:
    """(heading, figure, what it is, size) of the boxes at the top of the page."""
    prefix = f"{front.name}: " if several else ""
    dense, statuses = front.dense, front.statuses(front.measure)
    macs = dense.on("macs")
    cards = [(f"{prefix}dense", *_quality(front, dense), f"{_or_dash(amount(macs))} MACs")]
    if "front" in statuses:
        best = front.best()
        size = f"{amount(best.on('macs'))} MACs"
        if macs:
            size += f", {(best.on('macs') or 0) / macs:.1%} of dense"
        cards.append((f"{prefix}best, {best.name}", *_quality(front, best), size))
    infeasible = statuses.count("infeasible")
    seconds = duration(sum(one.seconds for one in front.candidates))
    return [
        *cards,
        (f"{prefix}trials", f"{len(front.candidates):,}", f"{infeasible:,} infeasible", f"searched for {seconds}"),
    ]


def _quality(front: Front, one: Candidate) -> tuple[str, str]:
    """The figure of a box, and what it is."""
    if one.accuracy is None and one.test_accuracy is None:
        score = one.value("score")
        return ("–", "not measured") if score is None else (f"{score:.5g}", front.scorer)
    if one.test_accuracy is None:
        return _percent(one.accuracy), "validation accuracy"
    lost = ""
    if one is not front.dense and front.dense.test_accuracy is not None:
        lost = f" ({_against(front.dense, one).split()[0]} points)"
    return _percent(one.accuracy), f"validation accuracy; test {_percent(one.test_accuracy)}{lost}"


def _width_views(fronts: Sequence[Front]) -> dict[str, Spec]:
    views = {}
    for front in fronts:
        if front.dense.structure is None:
            continue
        chosen = [one for one in reversed(front.points()) if one.structure][:MOST_WIDTHS]
        for one in chosen:
            prefix = f"{front.name}: " if len(fronts) > 1 else ""
            label = f"{prefix}{one.name}, {amount(one.on('macs'))} MACs"
            views[label] = widths_chart(front.dense.structure.widths, one)
    return views


def _curve_views(report: Report) -> dict[str, Spec]:
    ones = [one for front in report.fronts for one in reversed(front.candidates) if one.id]
    names = {one.id: one.name for one in sorted(ones, key=lambda one: one.accuracy is not None)}
    histories = {
        names.get(key, key): [{"epoch": row.get("epoch", row.get("number")), **row} for row in rows]
        for key, rows in report.histories.items()
        if rows
    }
    keys = dict.fromkeys(key for rows in histories.values() for row in rows for key in row)
    wanted = [key for key in keys if key not in ("epoch", "number", "seconds")]
    wanted.sort(key=lambda key: ("accuracy" not in key, "validation" not in key, key != "loss"))
    return {key.replace("_", " "): curves_chart(histories, key) for key in wanted}


def _listed(fronts: Sequence[Front]) -> list[str]:
    """The proposed parameters that the table of trials has room for."""
    names = sorted({name for front in fronts for one in front.candidates for name in one.parameters})
    return names if len(names) <= MOST_LISTED_PARAMETERS else []


def _table(fronts: Sequence[Front], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The trials by column names and plain rows, numbers to six digits: thousands of trials stay below a megabyte."""
    columns = list(rows[0]) if rows else []
    listed = _listed(fronts)
    proposals = [one.parameters for front in fronts for one in (*front.candidates, front.dense, *front.baselines)]
    body = [
        [*(_short(row[name]) for name in columns), *(_short(found.get(name)) for name in listed)]
        for row, found in zip(rows, proposals, strict=True)
    ]
    return {
        "columns": [*columns, *(f"parameter {name}" for name in listed)],
        "rows": body,
        "state": state_field(measures(fronts)[-1][0], "macs"),
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.2%}"


def _or_dash(text: str) -> str:
    return "–" if text == "-" else text


def _link(artefact: Path | None, folder: Path) -> str:
    """A relative link, with every special character quoted, to a file that lies on the same machine."""
    return quote(Path(os.path.relpath(artefact, folder)).as_posix()) if artefact else ""


def _environment() -> Environment:
    folder = files("search.review") / "templates"
    sources = {one.name: one.read_text(encoding="utf-8") for one in folder.iterdir() if one.name.startswith("report.")}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment
