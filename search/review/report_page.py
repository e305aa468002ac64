"""The report's page: text, tables and figures put into the template. Nothing on it comes from a network."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from backbones.errors import SecateurError
from search.formatting import amount, counted, duration
from search.review.candidate import Candidate
from search.review.chart_style import Row, Spec, config, vega_bundle
from search.review.charts import widths_chart
from search.review.figures import Figure, listed
from search.review.front import Front
from search.review.records import headings, long_dash, metric_cell, metric_change, result_cells
from search.review.report import Facts, Report, common_metric, measures
from search.review.summary import lost_in_training
from search.review.trial_table import columns, details, state_field

LARGEST = 4_800_000
"""Characters that a page has at most; details of trials that do not fit are left out."""


def page(
    report: Report,
    folder: Path,
    rows: Sequence[Row],
    shown: Sequence[Figure],
    *,
    pictures: Sequence[Mapping[str, str]] = (),
    tables: Sequence[str] = (),
) -> str:
    """The whole page as text.

    Args:
        report: the studies and what is known of them.
        folder: where the page will lie; links are made relative to this folder.
        rows: the table of trials, from `trial_rows`, with a column for each parameter that is `listed`.
        shown: the figures, from `search.review.figures.figures`.
        pictures: the files of the figures, from `search.review.figures.write_plots`.
        tables: paths of further tables, relative to `folder`.
    """
    fronts, metric = report.fronts, common_metric(report.fronts)
    data: dict[str, Any] = {
        "metric": {"name": metric.heading, "percent": metric.unit == "%", "lower": metric.direction == "lower"},
        "trials": {"columns": columns(rows), "state": state_field(measures(fronts)[-1][0], "macs")},
        "figures": [{"name": one.name, "views": one.views} for one in shown],
        "light": config(),
        "dark": config(dark=True),
        "listed": listed(report),
        "widths": _widths_template(fronts),
        "file": "-".join(front.name for front in fronts),
    }
    bundle = _bundle()
    data["details"] = details(fronts, LARGEST - len(bundle) - len(json.dumps(data, separators=(",", ":"))))
    reasons = Counter(one.reason for front in fronts for one in front.candidates if one.reason)
    context = {
        "title": report.title or ", ".join(front.name for front in fronts),
        "cards": [card for front in fronts for card in _cards(front, report.facts_of(front), several=len(fronts) > 1)],
        "figures": {one.name: one for one in shown},
        "headings": headings(metric),
        "metric": metric,
        "points": _result_rows(fronts, folder),
        "remarks": [f"{one.name}: the best is {level}" for one in fronts if (level := one.ties())]
        + [f"{one.name}: {lost}" for one in fronts if (lost := lost_in_training(one))],
        "missed": [(one.name, one.reason) for front in fronts for one in front.baselines if one.reason],
        "reasons": reasons.most_common(10),
        "measured": _measured(fronts),
        "making": _making(report),
        "pictures": [{**one, "png": quote(one["png"]), "svg": quote(one["svg"])} for one in pictures],
        "tables": [quote(path) for path in tables],
        "data": data,
        "bundle": Markup(bundle),
    }
    return _environment().get_template("report.html.jinja").render(context)


def _bundle() -> str:
    """What draws on the page; nothing, with a warning, where the process that puts it together died."""
    try:
        return vega_bundle()
    except SecateurError as error:
        warnings.warn(f"the page shows tables and no charts: {error}", UserWarning, stacklevel=2)
        return ""


def _making(report: Report) -> list[dict[str, Any]]:
    """How each study was made, those left out of which nothing is known."""
    found = []
    for front, facts in zip(report.fronts, report.all_facts, strict=True):
        if facts.commands or facts.versions or facts.environment or facts.links:
            found.append(
                {
                    "name": front.name if len(report.fronts) > 1 else "",
                    "facts": facts,
                    "links": {label: quote(path) for label, path in facts.links.items()},
                    "total": duration(sum(facts.stages.values())) if facts.stages else "",
                }
            )
    return found


def _widths_template(fronts: Sequence[Front]) -> Spec | None:
    """The bars of one network without its rows: the page puts in those of the trial that is looked at."""
    dense = next((front.dense for front in fronts if front.dense.structure is not None), None)
    return None if dense is None or dense.structure is None else widths_chart({}, dense)


def _result_rows(fronts: Sequence[Front], folder: Path) -> list[dict[str, Any]]:
    """The highlights of each study: cells below the headings, whether it is the dense network, a link to its file."""
    several = len(fronts) > 1
    rows = []
    for front in fronts:
        for one in front.highlights():
            name, *cells = result_cells(front.dense, one, front.metric)
            name = f"{front.name}: {name}" if several else name
            file = one.artefact or (None if one.refit is None else one.refit.artefact)
            rows.append({"cells": (name, *cells), "dense": one is front.dense, "link": _link(file, folder)})
    return rows


def _measured(fronts: Sequence[Front]) -> str:
    """What the milliseconds of the table are of."""
    of = {
        (one.batch, one.threads, "" if one.engine == "eager" else f", {one.engine}")
        for front in fronts
        for one in [front.dense.footprint]
        if one is not None
    }
    return "".join(f", {batch} samples a batch, {counted(threads, 'thread')}{by}" for batch, threads, by in sorted(of))


def _cards(front: Front, facts: Facts, *, several: bool) -> list[tuple[str, str, str, str]]:
    """(heading, figure, what it is, size) of the boxes at the top of the page."""
    prefix = f"{front.name}: " if several else ""
    dense, statuses = front.dense, front.statuses(front.measure)
    macs = dense.on("macs")
    cards = [(f"{prefix}dense", *_quality(front, dense), f"{long_dash(amount(macs))} MACs")]
    if "front" in statuses:
        best = front.best()
        size = f"{amount(best.on('macs'))} MACs"
        if macs:
            size += f", {(best.on('macs') or 0) / macs:.1%} of dense"
        cards.append((f"{prefix}best, {best.title}", *_quality(front, best), size))
    infeasible = statuses.count("infeasible")
    whole = facts.stages.get("search")
    spent = f"searched for {duration(whole)}" if whole is not None else ""
    if not spent:
        spent = f"scored in {duration(sum(one.seconds for one in front.candidates))}"
    return [*cards, (f"{prefix}trials", f"{len(front.candidates):,}", f"{infeasible:,} infeasible", spent)]


def _quality(front: Front, one: Candidate) -> tuple[str, str]:
    """The figure of a box, and what it is."""
    metric = front.metric
    if one.accuracy is None and one.test_accuracy is None:
        score = one.value("score")
        return ("–", "not measured") if score is None else (f"{score:.5g}", front.scorer)
    if one.test_accuracy is None:
        return metric_cell(one.accuracy, metric), f"validation {metric.name}"
    lost = ""
    if one is not front.dense and front.dense.test_accuracy is not None:
        points = " points" if metric.unit == "%" else ""
        lost = f" ({metric_change(front.dense, one, metric).split()[0]}{points})"
    tested = metric_cell(one.test_accuracy, metric)
    return metric_cell(one.accuracy, metric), f"validation {metric.name}; test {tested}{lost}"


def _link(artefact: Path | None, folder: Path) -> str:
    """A relative link, with every special character quoted, to a file that lies on the same machine."""
    return quote(Path(os.path.relpath(artefact, folder)).as_posix()) if artefact else ""


@cache
def _environment() -> Environment:
    folder = files("search.review") / "templates"
    sources = {one.name: one.read_text(encoding="utf-8") for one in folder.iterdir() if one.name.startswith("report.")}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment
