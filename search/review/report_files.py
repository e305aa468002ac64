"""A report as files: one page that opens anywhere, pictures for papers, tables for scripts; a front as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from backbones.errors import SecateurError
from backbones.files import atomic_write, write_text
from search.review.candidate import Measure
from search.review.chart_style import Spec, quieter, still, svg_to_png, to_svg, with_data, write_chart
from search.review.figures import figures, listed
from search.review.front import Front, save_fronts
from search.review.front_chart import front_chart
from search.review.plots import write_plots
from search.review.report import Report, all_caps, common_scorer, measures
from search.review.report_page import page
from search.review.tables import write_tables
from search.review.trial_table import trial_rows


def write_report(report: Report, folder: str | os.PathLike[str]) -> Path:
    """Writes a report into an existing folder, each file in one step.

    These are report.html, front.png and front.svg, every figure in `plots/`, front.csv and front.json with all trials,
    the other tables in `tables/` and report.json.

    Returns:
        the path of report.html.

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
    picture = to_svg(front_picture(report.fronts))
    write_text(folder / "front.svg", picture)
    with atomic_write(folder / "front.png") as part:
        part.write_bytes(svg_to_png(picture))
    rows = trial_rows(report.fronts, listed(report))
    shown = figures(report, rows)
    pictures = write_plots(shown, rows, folder)
    tables = write_tables(report, folder)
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
    scorer, caps = common_scorer(fronts), all_caps(fronts)
    panels = []
    for measure, heading in measures(fronts):
        subtitle = _counts(fronts[0], measure) if len(fronts) == 1 else f"{len(fronts)} studies"
        title = {"text": heading, "subtitle": subtitle}
        panels.append({**still(front_chart(rows, measure, scorer=scorer, caps=caps), 480), "title": title})
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
