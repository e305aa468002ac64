"""The smaller pictures of a report: kept widths, history of the sampler, importances, time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from search.formatting import duration
from search.review.candidate import Candidate
from search.review.chart_style import BLUE, GREY, VERMILLION, Row, Spec, legend_columns
from search.review.trial_table import state_field

MOST_BARS = 25

# The end of a long layer name tells more than its start.
SHORT_NAME = "length(datum.label) > 24 ? '…' + slice(datum.label, -23) : datum.label"


def widths_chart(dense: Mapping[str, int], candidate: Candidate) -> Spec:
    """Kept channels in each group as bars, before outlines of the dense widths, in the order of the forward pass.

    Args:
        dense: group -> number of channels.
        candidate: with a structure; its groups that are not in `dense` are left out.
    """
    kept = candidate.structure.widths if candidate.structure else {}
    rows = [
        {"group": name, "kept": kept[name], "dense": size, "share": kept[name] / size}
        for name, size in dense.items()
        if name in kept
    ]
    y: Spec = {"field": "group", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelExpr": SHORT_NAME, "labelLimit": 170, "ticks": False, "domain": False}
    x = {"type": "quantitative", "title": "channels kept", "axis": {"format": "d", "tickMinStep": 1, "tickCount": 6}}
    tooltip = [
        {"field": "group"},
        {"field": "kept", "title": "channels kept"},
        {"field": "dense", "title": "of"},
        {"field": "share", "format": ".0%"},
    ]
    outline = {
        "type": "bar",
        "fillOpacity": 0.08,
        "fill": GREY,
        "stroke": GREY,
        "strokeWidth": 1,
        "height": {"band": 0.78},
    }
    return {
        "data": {"values": rows},
        "height": max(1, len(rows)) * (18 if len(rows) <= 60 else 12),
        "encoding": {"y": y, "tooltip": tooltip},
        "layer": [
            {"mark": outline, "encoding": {"x": {**x, "field": "dense"}}},
            {
                "mark": {"type": "bar", "color": BLUE, "height": {"band": 0.78}},
                "encoding": {"x": {**x, "field": "kept"}},
            },
        ],
    }


def history_chart(rows: Sequence[Row], *, scorer: str = "score") -> Spec:
    """The score of each trial in the order in which they ran, with the best so far; reads the table `trials`."""
    studies = {row["study"] for row in rows}
    points = _over_trials("score", f"{scorer} (higher is better)", ".6~g", scorer, studies)
    best = {
        "window": [{"op": "max", "field": "score", "as": "best"}],
        "sort": [{"field": "trial"}],
        "groupby": ["study"],
    }
    line: Spec = {
        "transform": [best],
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        "encoding": {"x": points["encoding"]["x"], "y": {**points["encoding"]["y"], "field": "best"}},
    }
    line["encoding"]["color"] = points["encoding"]["color"] if len(studies) > 1 else {"value": BLUE}
    layers = [{"mark": points["mark"], "encoding": points["encoding"]}, line]
    return {"data": points["data"], "height": points["height"], "transform": points["transform"], "layer": layers}


def proposals_chart(rows: Sequence[Row], field: str, title: str, *, form: str = ".3~g", scorer: str = "score") -> Spec:
    """One column of the table `trials` in the order in which the trials ran: what the sampler turned to.

    Args:
        rows: what `trial_rows` made.
        field: the column.
        title: the words beside the axis.
        form: number format of the axis.
        scorer: what the score is called.
    """
    return _over_trials(field, title, form, scorer, {row["study"] for row in rows})


def _over_trials(field: str, title: str, form: str, scorer: str, studies: Collection[str]) -> Spec:
    """A point for each trial; those that were not feasible are vermillion where colours do not tell studies apart."""
    state = state_field("score", "macs")
    x = {
        "field": "trial",
        "type": "quantitative",
        "title": "trial",
        "axis": {"format": "d", "tickMinStep": 1, "tickCount": 8},
    }
    y: Spec = {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 8}}
    y["axis"] = {"format": form, "tickCount": 6}
    bad = {"test": f"datum.{state} == 'infeasible'", "value": VERMILLION}
    colour: Spec = {"condition": bad, "value": GREY}
    if len(studies) > 1:
        legend = {"title": None, "orient": "top", "columns": legend_columns(studies)}
        colour = {"field": "study", "type": "nominal", "sort": None, "legend": legend}
    tooltip = [
        {"field": "study"},
        {"field": "name", "title": "candidate"},
        {"field": "score", "title": scorer, "format": ".5~g"},
        {"field": "macs", "title": "MACs", "format": ".3s"},
        {"field": state, "title": "place"},
    ]
    if field not in ("score", "macs"):
        tooltip.insert(2, {"field": field, "title": title, "format": ".4~g"})
    return {
        "data": {"name": "trials"},
        "height": 240,
        "transform": [{"filter": f"isValid(datum.trial) && isValid(datum.{field})"}],
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.5},
        "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
    }


def importances_chart(importances: Mapping[str, float]) -> Spec:
    """How much of the variation of the score each parameter explains, largest first."""
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:MOST_BARS]
    rows = [{"name": name, "value": value, "text": f"{value:.{0 if value > 0.095 else 1}%}"} for name, value in ranked]
    return _bars(rows, "share of importance", "%")


def stages_chart(seconds: Mapping[str, float]) -> Spec:
    """Wall-clock seconds of each stage, in the order in which they ran."""
    return _bars([{"name": k, "value": v, "text": duration(v)} for k, v in seconds.items()], "seconds", "~s")


def _bars(rows: list[dict[str, Any]], title: str, form: str) -> Spec:
    y: Spec = {"field": "name", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelExpr": SHORT_NAME, "labelLimit": 170, "ticks": False, "domain": False}
    # The longest bar leaves room for the number behind it, on a phone too.
    most = max((row["value"] for row in rows), default=0.0)
    x: Spec = {"field": "value", "type": "quantitative", "title": title, "axis": {"format": form, "tickCount": 5}}
    if form == "%":
        x["axis"]["labelExpr"] = "datum.value > 1 ? '' : datum.label"
    x["scale"] = {"domainMin": 0, "domainMax": {"expr": f"{most or 1.0} * (width < 300 ? 1.7 : 1.2)"}, "nice": False}
    text = {"type": "text", "align": "left", "dx": 5}
    return {
        "data": {"values": rows},
        "height": max(1, len(rows)) * 26,
        "encoding": {"y": y, "x": x, "tooltip": [{"field": "name", "title": " "}, {"field": "text", "title": title}]},
        "layer": [
            {"mark": {"type": "bar", "color": BLUE, "height": {"band": 0.7}}},
            {"mark": text, "encoding": {"text": {"field": "text"}}},
        ],
    }
