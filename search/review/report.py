"""The report of one or several studies: one page that opens anywhere, pictures for papers, tables for scripts."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.errors import SecateurError
from backbones.files import atomic_write, write_text
from search.review.chart_style import Spec, quieter, render, still, svg_to_png, to_svg, with_data
from search.review.front import Front, Measure
from search.review.front_chart import describe, front_chart, trial_rows
from search.review.front_files import save_fronts


@dataclass(frozen=True)
class Facts:
    """What is known of one study beside its front; what is empty is left out of the page.

    Attributes:
        histories: structure id (or `dense`) -> one row per epoch with `epoch` (or `number`) and measured values.
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
        title: of the page; the names of the studies when empty.
        facts: name of a study -> what else is known of it.
    """

    fronts: tuple[Front, ...]
    title: str = ""
    facts: Mapping[str, Facts] = field(default_factory=dict)

    def facts_of(self, front: Front) -> Facts:
        """Of one study; empty when nothing is known."""
        return self.facts.get(front.name, Facts())

    @property
    def all_facts(self) -> tuple[Facts, ...]:
        """One a front, in their order."""
        return tuple(self.facts_of(front) for front in self.fronts)


def write_report(report: Report, folder: str | os.PathLike[str]) -> Path:
    """Writes a report into an existing folder, each file in one step.

    These are report.html, front.png and front.svg, every figure in `plots/`, front.csv and front.json with all trials,
    the other tables in `tables/` and report.json.

    Returns:
        The path of report.html.

    Raises:
        SecateurError: when the report has no front, two fronts of one name, or the folder does not exist.
    """
    from search.review.figures import figures, listed
    from search.review.plots import write_plots
    from search.review.report_page import page
    from search.review.tables import write_tables

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


def plot_fronts(fronts: Sequence[Front], path: str | os.PathLike[str]) -> Path:
    """Draws fronts to a PNG, an SVG or an HTML page, by the ending of `path`.

    Raises:
        SecateurError: for another ending, or a folder that does not exist.
    """
    from search.review.figures import figures, listed
    from search.review.report_page import page

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
    return render(front_picture(fronts), target)


def front_picture(fronts: Sequence[Front]) -> Spec:
    """The still picture: accuracy of the retrained (where there are any) beside the score of all trials, over MACs."""
    rows = trial_rows(fronts)
    scorer, caps = common_scorer(fronts), all_caps(fronts)
    panels = []
    for measure, heading in measures(fronts):
        subtitle = describe(fronts[0], measure) if len(fronts) == 1 else f"{len(fronts)} studies"
        title = {"text": heading, "subtitle": subtitle}
        panels.append({**still(front_chart(rows, measure, scorer=scorer, caps=caps), 480), "title": title})
    name = ", ".join(front.name for front in fronts)
    scales = dict.fromkeys(("x", "y", "color", "shape", "size", "opacity"), "independent")
    picture: Spec = {"hconcat": panels, "spacing": 40, "padding": 16, "resolve": {"scale": scales}}
    picture["title"] = {"text": name, "fontSize": 18, "anchor": "start", "offset": 16}
    return with_data(quieter(picture, len(rows)), trials=rows)


def measures(fronts: Sequence[Front]) -> list[tuple[Measure, str]]:
    """What there is to draw, with a heading: accuracy when something was retrained, the score when there is one."""
    found: list[tuple[Measure, str]] = []
    candidates = [one for front in fronts for one in front.candidates]
    if any(one.value("accuracy") is not None for one in candidates):
        found.append(("accuracy", "Accuracy after retraining, against MACs"))
    if any(one.value("score") is not None for one in candidates) or not found:
        found.append(("score", f"{common_scorer(fronts)} without training, against MACs"))
    return found


def common_scorer(fronts: Sequence[Front]) -> str:
    """The scorer's name when all fronts share it, else `score`."""
    names = {front.scorer for front in fronts}
    return names.pop() if len(names) == 1 else "score"


def all_caps(fronts: Sequence[Front]) -> tuple[int, ...]:
    """Every MACs budget of the fronts, once."""
    return tuple(sorted({cap for front in fronts for cap in front.caps}))


def notebook_html(front: Front) -> str:
    """What a notebook shows for a front: the picture and its points as a table."""
    from search.review.report_page import HEADINGS, point_rows

    rows = point_rows((front,), Path())
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div>{to_svg(front_picture((front,)))}{table}</div>"


def _existing(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise SecateurError(f"cannot write a report to {str(path)!r}: the folder does not exist")
    return path
