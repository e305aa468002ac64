"""Which figures a report has: each drawn once, for the page and as a picture of its own (`plots/NAME.png`, `.svg`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.files import write_text
from search.formatting import amount, counted
from search.review.candidate import Axis
from search.review.chart_style import Row, Spec, quieter, reads_trials, still, with_data, write_both
from search.review.charts import (
    history_chart,
    importances_chart,
    latency_chart,
    parameters_chart,
    proposals_chart,
    stages_chart,
    widths_chart,
)
from search.review.front import Front
from search.review.front_chart import front_chart
from search.review.report import Report, all_caps, common_metric, common_scorer, measures
from search.review.training_charts import curve_title, curves_chart, gamma_charts
from search.review.trial_table import COST_AXES, axes_measured

MOST_WIDTHS = 4
MOST_LISTED = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture of the report, or several of which one is shown at a time.

    Attributes:
        name: unique, for ids and file names.
        title: the heading above the picture.
        caption: the line below the picture, on how to read it.
        views: label -> chart specification; buttons switch between them when there are several.
    """

    name: str
    title: str
    caption: str
    views: Mapping[str, Spec]


def figures(report: Report, rows: Sequence[Row]) -> list[Figure]:
    """Every figure that the report has data for, in the order of the page.

    Args:
        report: the studies and what is known of them.
        rows: `trial_rows(report.fronts, listed(report))`.
    """
    fronts = [*_front_figures(report.fronts, rows), _latency_figure(report.fronts)]
    found = [*fronts, *_search_figures(report, rows), *_training_figures(report)]
    return [one for one in found if one.views]


def listed(report: Report) -> list[str]:
    """The proposed parameters that have a column in the table of trials: the four that matter most."""
    names = sorted({name for front in report.fronts for one in front.candidates for name in one.parameters})
    worth = {name: max(facts.importances.get(name, 0.0) for facts in report.all_facts) for name in names}
    return sorted(names, key=lambda name: -worth[name])[:MOST_LISTED]


def _front_figures(fronts: Sequence[Front], rows: Sequence[Row]) -> list[Figure]:
    found = []
    scorer, metric = common_scorer(fronts), common_metric(fronts)
    sizes = [one.footprint for front in fronts for one in front.candidates if one.footprint is not None]
    limits = sorted({round(1e3 * size.limit, 4) for size in sizes if size.limit is not None})
    caps: dict[Axis, Sequence[float]] = {"macs": all_caps(fronts), "batch_seconds": limits}
    for measure, heading in measures(fronts):
        views = {}
        for axis in axes_measured(fronts, measure):
            own, how = caps.get(axis, ()), _measured_by(fronts, axis)
            chart = front_chart(rows, measure, axis, scorer=scorer, caps=own, metric=metric, how=how)
            views[COST_AXES[axis].name] = chart
        ringed = " Circled: retrained." if measure == "score" and len(measures(fronts)) > 1 else ""
        caption = f"The stairs join the candidates that no other beats on both axes.{ringed} Shift and the wheel zoom, "
        found.append(Figure(f"front-{measure}", heading, caption + "shift and dragging move.", views))
    return found


def _measured_by(fronts: Sequence[Front], axis: Axis) -> str:
    """What ran the networks whose time stands on an axis; empty for other axes and where the studies differ."""
    sizes = [front.dense.footprint for front in fronts if front.dense.footprint is not None]
    if axis not in ("latency", "batch_seconds", "single_seconds"):
        return ""
    batch = axis != "single_seconds"
    found = {size.how if batch else f"{size.engine}, {counted(size.threads, 'thread')}" for size in sizes}
    return found.pop() if len(found) == 1 else ""


def _latency_figure(fronts: Sequence[Front]) -> Figure:
    """What budgets of latency predicted, and what the clock says."""
    views = {}
    for front in fronts:
        if (spec := latency_chart([front.dense, *front.candidates])) is not None:
            views[front.name] = spec
    stated = {one.footprint.error for front in fronts for one in front.candidates if one.footprint is not None}
    errors = [error for error in stated if error is not None]
    words = f" By the calibration predictions are off by up to {max(errors):.1%}." if errors else ""
    by = _measured_by(fronts, "batch_seconds")
    caption = f"The line: predicted as measured.{words}" + (f" Measured by {by}." if by else "")
    return Figure("latency", "Latency, predicted and measured", caption, views)


def _search_figures(report: Report, rows: Sequence[Row]) -> list[Figure]:
    fronts, scorer = report.fronts, common_scorer(report.fronts)
    history = {scorer: history_chart(rows, scorer=scorer)}
    history["MACs"] = proposals_chart(rows, "macs", "MACs for one sample", form="~s", scorer=scorer)
    for i, name in enumerate(listed(report)):
        history[name] = proposals_chart(rows, f"p{i}", name, scorer=scorer)
    proposals, decisive = {}, {}
    for front in fronts:
        shares = report.facts_of(front).importances
        first = sorted(shares, key=lambda name: -shares[name])
        if (spec := parameters_chart(front.candidates, scorer=front.scorer, first=first)) is not None:
            proposals[front.name] = spec
        if shares:
            decisive[front.name] = importances_chart(shares)
    most = max((len(one.parameters) for front in fronts for one in front.candidates), default=0)
    caption = "Of more than 16 parameters the most important, of more than 300 trials the best by score."
    caption = caption if most > 2 else "Crosses: infeasible." if most == 2 else ""
    return [
        Figure("widths", "Channels kept in each group", "Outlined: the dense network.", _width_views(fronts)),
        Figure("history", "The search, trial by trial", "The line is the best score so far.", history),
        Figure("parameters", "What was proposed, and how it scored", caption, proposals),
        Figure("importances", "Which parameters decide the score", "Estimated by Optuna (fANOVA).", decisive),
    ]


def _training_figures(report: Report) -> list[Figure]:
    gammas: dict[str, Spec] = {}
    for front in report.fronts:
        if stages := report.facts_of(front).gammas:
            gammas |= {_of(front, name, report): spec for name, spec in gamma_charts(stages).items()}
    seconds = {
        _of(front, stage, report): spent
        for front in report.fronts
        for stage, spent in report.facts_of(front).stages.items()
    }
    caption = "The scales of all batch-norm layers; slimming drives those of dispensable channels to zero."
    return [
        Figure("curves", "Training curves", "Every retrained network, and the dense one.", _curve_views(report)),
        Figure("gammas", "What slimming did to the batch-norm scales", caption, gammas),
        Figure("stages", "Where the time went", "", {"": stages_chart(seconds)} if seconds else {}),
    ]


def training_rows(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Name of a candidate -> the rows of its training, all with an `epoch`."""
    found = {}
    for front in report.fronts:
        # The first trial of a structure shows its result; the name of the retrained one counts.
        ranked = sorted(front.candidates, key=lambda one: (one.accuracy is not None, -one.number))
        names = {one.id: one.name for one in ranked if one.id}
        for key, rows in report.facts_of(front).histories.items():
            if rows:
                structure, comma, recipe = key.partition(", ")
                name = _of(front, names.get(structure, structure) + comma + recipe, report)
                found[name] = [{"epoch": row.get("epoch", row.get("number")), **row} for row in rows]
    return found


def _curve_views(report: Report) -> dict[str, Spec]:
    histories, metric = training_rows(report), common_metric(report.fronts)
    keys = dict.fromkeys(key for rows in histories.values() for row in rows for key in row)
    wanted = [key for key in keys if key not in ("epoch", "number", "seconds")]
    wanted.sort(key=lambda key: (metric.key not in key, "validation" not in key, key != "loss"))
    return {curve_title(key, metric): curves_chart(histories, key, metric) for key in wanted}


def _width_views(fronts: Sequence[Front]) -> dict[str, Spec]:
    """The largest of the front, as pictures: the page itself shows any trial."""
    views = {}
    for front in fronts:
        if front.dense.structure is None:
            continue
        for one in [one for one in reversed(front.points()) if one.structure][:MOST_WIDTHS]:
            prefix = f"{front.name}: " if len(fronts) > 1 else ""
            spec = widths_chart(front.dense.structure.widths, one)
            views[f"{prefix}{one.name}, {amount(one.on('macs'))} MACs"] = spec
    return views


def _of(front: Front, text: str, report: Report) -> str:
    """The text, with the study's name before it where there are several."""
    return f"{front.name}: {text}" if len(report.fronts) > 1 else text


PLOTS_FOLDER, INDEX = "plots", "plots.json"
PICTURE_WIDTH = 480
LONGEST_NAME = 80


def write_plots(shown: Iterable[Figure], rows: Sequence[Row], folder: Path) -> list[dict[str, str]]:
    """Writes every picture and `plots.json`, a list of them; pictures of an earlier list that are gone are removed.

    Args:
        shown: the figures of the report, from `search.review.figures.figures`.
        rows: the table `trials`, which some of the figures read, from `trial_rows`.
        folder: an existing folder; the pictures are written into `plots` inside it.

    Returns:
        a record for each picture that could be drawn: `name`, `title`, `view`, and the paths `png` and `svg` relative
        to `folder`.
    """
    place = folder / PLOTS_FOLDER
    place.mkdir(exist_ok=True)
    names: dict[str, tuple[Figure, str]] = {}
    for figure in shown:
        for view in figure.views:
            names[_unused(_name(figure, view), names)] = (figure, view)
    written: dict[str, tuple[Figure, str]] = {}
    for name, (figure, view) in names.items():
        spec = quieter({**still(figure.views[view], PICTURE_WIDTH), "padding": 12}, len(rows))
        if write_both(with_data(spec, trials=rows if reads_trials(spec) else ()), place / name):
            written[name] = (figure, view)
    for name in _listed(place) - names.keys():
        for ending in ("svg", "png"):
            (place / f"{name}.{ending}").unlink(missing_ok=True)
    index = [
        {
            "name": name,
            "title": figure.title,
            "view": view,
            **{ending: f"{PLOTS_FOLDER}/{name}.{ending}" for ending in ("png", "svg")},
        }
        for name, (figure, view) in written.items()
    ]
    write_text(place / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def _name(figure: Figure, view: str) -> str:
    """A file name of small letters, digits and dashes, whatever the network's layers are called."""
    text = figure.name if len(figure.views) == 1 else f"{figure.name}-{view}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_NAME].strip("-")


def _unused(name: str, taken: Iterable[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _listed(place: Path) -> set[str]:
    """The names that the last list has; only those that could be ours."""
    try:
        record: Any = json.loads((place / INDEX).read_text(encoding="utf-8"))
        names = {str(one["name"]) for one in record}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
    return {name for name in names if re.fullmatch(r"[a-z0-9-]+", name)}
