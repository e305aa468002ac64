"""A report as files: one page that opens anywhere, pictures for papers, tables for scripts; a front as a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.files import write_text
from search.formatting import csv_table
from search.review.candidate import Candidate, Measure
from search.review.chart_style import Spec, quieter, still, to_svg, with_data, write_both, write_chart
from search.review.drawing import one_drawing_process
from search.review.figures import figures, listed, training_rows, write_plots
from search.review.front import Front, save_fronts
from search.review.front_chart import front_chart
from search.review.records import by_metric, footprint_record, training_record
from search.review.report import Report, all_caps, common_metric, common_scorer, measures
from search.review.report_page import page
from search.review.trial_table import trial_rows

TABLES_FOLDER = "tables"
Table = list[dict[str, Any]]


def write_tables(report: Report, folder: Path) -> list[str]:
    """Writes the tables that have rows, and report.json, into an existing folder; tables without any are removed.

    Trials with all their parameters and widths are in front.csv and front.json.

    Returns:
        the paths of the CSV files relative to `folder`.
    """
    place = folder / TABLES_FOLDER
    place.mkdir(exist_ok=True)
    tables = {
        "compared": _compared(report),
        "curves": [{"network": name, **row} for name, rows in training_rows(report).items() for row in rows],
        "importances": _pairs(report, "importances", "parameter", "share"),
        "stages": _pairs(report, "stages", "stage", "seconds"),
        "gammas": _gammas(report),
        "environment": _environment(report),
    }
    written = []
    for name, rows in tables.items():
        path = place / f"{name}.csv"
        if rows:
            write_text(path, csv_table(rows))
            written.append(f"{TABLES_FOLDER}/{name}.csv")
        else:
            path.unlink(missing_ok=True)
    plain = {
        name: [{key: _plain(value) for key, value in row.items()} for row in rows] for name, rows in tables.items()
    }
    studies = [front.name for front in report.fronts]
    write_text(folder / "report.json", json.dumps({"studies": studies, **plain}, allow_nan=False) + "\n")
    return written


def _compared(report: Report) -> Table:
    """The dense network, the baselines and everything refitted or retrained: what a result table needs."""
    table = []
    for front in report.fronts:
        ones = [one for one in front.candidates if one.accuracy is not None or one.refit or one.retrainings]
        made = [row for one in ones for row in one.by_retraining()]
        table += [
            {"study": front.name, "network": one.name, "structure": one.id, **by_metric(_measured(one), front.metric)}
            for one in (front.dense, *front.baselines, *made)
        ]
    return table


def _measured(one: Candidate) -> dict[str, Any]:
    return {
        "macs": one.on("macs"),
        "params": one.on("params"),
        "latency": one.on("latency"),
        "memory": one.on("memory"),
        **footprint_record(one),
        "score": one.value("score"),
        "cut_accuracy": one.cut_accuracy,
        "refitted_accuracy": one.refitted_accuracy,
        "accuracy": one.value("accuracy"),
        "test_accuracy": one.test_accuracy,
        **training_record(one),
        "reason": one.reason,
    }


def _pairs(report: Report, of: str, key: str, value: str) -> Table:
    return [
        {"study": front.name, key: name, value: number}
        for front in report.fronts
        for name, number in getattr(report.facts_of(front), of).items()
    ]


def _gammas(report: Report) -> Table:
    return [
        {"study": front.name, "stage": stage, "layer": layer, "channel": channel, "gamma": value}
        for front in report.fronts
        for stage, layers in report.facts_of(front).gammas.items()
        for layer, scales in layers.items()
        for channel, value in enumerate(scales.tolist())
    ]


def _environment(report: Report) -> Table:
    table = []
    for front in report.fronts:
        facts = report.facts_of(front)
        table += [{"study": front.name, "item": "command", "value": command} for command in facts.commands]
        table += [
            {"study": front.name, "item": item, "value": value}
            for item, value in {**facts.versions, **facts.environment}.items()
        ]
    return table


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(report: Report, folder: str | os.PathLike[str]) -> Path:
    """Writes a report into an existing folder, each file in one step.

    These are report.html, front.png and front.svg, every figure in `plots/`, front.csv and front.json with all trials,
    the other tables in `tables/` and report.json.

    Returns:
        the path of report.html.

    Warns:
        UserWarning: when pictures are missing because they could not be drawn; everything else is there.

    Raises:
        SecateurError: when the report has no front, two fronts have the same name, or the folder does not exist.
    """
    folder = _existing(folder)
    if not report.fronts:
        raise SecateurError("a report needs at least one front, but got none; run a search first")
    names = [front.name for front in report.fronts]
    if len(set(names)) < len(names):
        raise SecateurError(f"the studies of a report need different names, but got {', '.join(map(repr, names))}")
    save_fronts(report.fronts, folder)
    rows = trial_rows(report.fronts, listed(report))
    shown = figures(report, rows)
    tables = write_tables(report, folder)
    with one_drawing_process():
        write_both(front_picture(report.fronts), folder / "front")
        pictures = write_plots(shown, rows, folder)
        write_text(folder / "report.html", page(report, folder, rows, shown, pictures=pictures, tables=tables))
    return folder / "report.html"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a notebook shows.

    Attributes:
        svg: the picture as SVG text.
    """

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


@overload
def plot_front(front: Front, path: None = None) -> Picture: ...
@overload
def plot_front(front: Front, path: str | os.PathLike[str]) -> Path: ...
@explained
def plot_front(front: Front, path: str | os.PathLike[str] | None = None) -> Path | Picture:
    """Draws a front: accuracy of the retrained structures, and the score of all trials, against MACs.

    Args:
        front: what `Study.front`, `Study.retrain` or `Front.load` gave.
        path: the file to write: a picture (.png, .svg) or an interactive page (.html).

    Returns:
        the path of the file; without `path` a picture that a notebook shows.

    Raises:
        SecateurError: for another ending, or a folder that does not exist.
    """
    return Picture(to_svg(front_picture((front,)))) if path is None else plot_fronts((front,), path)


def plot_fronts(fronts: Sequence[Front], path: str | os.PathLike[str]) -> Path:
    """Draws fronts to a PNG, an SVG or an HTML page, by the ending of `path`.

    Raises:
        SecateurError: for another ending, or a folder that does not exist.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (".png", ".svg", ".html"):
        raise SecateurError(f"a plot ends with .png, .svg or .html, but got {target.name!r}")
    folder = _existing(target.parent)
    if ending == ".html":
        report = Report(tuple(fronts))
        rows = trial_rows(fronts, listed(report))
        write_text(target, page(report, folder, rows, figures(report, rows)))
        return target
    return write_chart(front_picture(fronts), target)


def front_picture(fronts: Sequence[Front]) -> Spec:
    """The still picture: accuracy of the retrained (where there are any) beside the score of all trials, over MACs."""
    rows = trial_rows(fronts)
    scorer, caps, metric = common_scorer(fronts), all_caps(fronts), common_metric(fronts)
    panels = []
    for measure, heading in measures(fronts):
        subtitle = _counts(fronts[0], measure) if len(fronts) == 1 else f"{len(fronts)} studies"
        title = {"text": heading, "subtitle": subtitle}
        chart = front_chart(rows, measure, scorer=scorer, caps=caps, metric=metric)
        panels.append({**still(chart, 480), "title": title})
    name = ", ".join(front.name for front in fronts)
    scales = dict.fromkeys(("x", "y", "color", "shape", "size", "opacity"), "independent")
    picture: Spec = {"hconcat": panels, "spacing": 40, "padding": 16, "resolve": {"scale": scales}}
    picture["title"] = {"text": name, "fontSize": 18, "anchor": "start", "offset": 16}
    return with_data(quieter(picture, len(rows)), trials=rows)


def _counts(front: Front, measure: Measure) -> str:
    """One line below a title: how many trials there are, and how they stand."""
    statuses = front.statuses(measure)
    on_front, infeasible = statuses.count("front"), statuses.count("infeasible")
    measured = on_front + statuses.count("dominated")
    if measure == "accuracy":
        return f"{measured:,} retrained, {on_front:,} on the front"
    text = f"{measured:,} trials scored, {on_front:,} on the front"
    return f"{text}, {infeasible:,} infeasible" if infeasible else text


def _existing(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise SecateurError(f"cannot write a report to {str(path)!r}: the folder does not exist")
    return path
