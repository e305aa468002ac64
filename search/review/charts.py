"""The smaller pictures of a report: kept widths, history, importances, retraining curves, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.review.chart_style import BLUE, GREY, Row, Spec
from search.review.front import Candidate
from search.review.front_chart import COLUMNS, state_field

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
    several = len({row["study"] for row in rows}) > 1
    state = state_field("score", "macs")
    x = {
        "field": "trial",
        "type": "quantitative",
        "title": "trial",
        "axis": {"format": "d", "tickMinStep": 1, "tickCount": 8},
    }
    y: Spec = {"type": "quantitative", "title": f"{scorer} (higher is better)", "scale": {"zero": False, "padding": 8}}
    y["axis"] = {"format": ".4~g", "tickCount": 6}
    colour: Spec = {"value": BLUE}
    if several:
        colour = {"field": "study", "type": "nominal", "legend": {"title": None, "orient": "top", "columns": COLUMNS}}
    tooltip = [
        {"field": "study"},
        {"field": "name", "title": "candidate"},
        {"field": "score", "title": scorer, "format": ".5~g"},
        {"field": "macs", "title": "MACs", "format": ".3s"},
        {"field": state, "title": "place"},
    ]
    best = {
        "window": [{"op": "max", "field": "score", "as": "best"}],
        "sort": [{"field": "trial"}],
        "groupby": ["study"],
    }
    return {
        "data": {"name": "trials"},
        "height": 240,
        "transform": [{"filter": "isValid(datum.trial) && isValid(datum.score)"}],
        "encoding": {"x": x, "color": colour},
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.5},
                "encoding": {
                    "y": {**y, "field": "score"},
                    "tooltip": tooltip,
                    **({} if several else {"color": {"value": GREY}}),
                },
            },
            {
                "transform": [best],
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
                "encoding": {"y": {**y, "field": "best"}},
            },
        ],
    }


def importances_chart(importances: Mapping[str, float]) -> Spec:
    """How much of the variation of the score each parameter explains, largest first."""
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:MOST_BARS]
    return _bars(
        [{"name": name, "value": value, "text": f"{value:.0%}"} for name, value in ranked], "share of importance", "%"
    )


def stages_chart(seconds: Mapping[str, float]) -> Spec:
    """Wall-clock seconds of each stage, in the order in which they ran."""
    return _bars([{"name": k, "value": v, "text": duration(v)} for k, v in seconds.items()], "seconds", "~s")


def curves_chart(histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> Spec:
    """One line a retrained candidate: the value `key` of each of its history rows, over their `epoch`."""
    rows = [
        {"candidate": name, "epoch": row["epoch"], "value": row[key]}
        for name, history in histories.items()
        for row in history
        if key in row
    ]
    share = "accuracy" in key
    y: Spec = {"field": "value", "type": "quantitative", "title": key.replace("_", " "), "scale": {"zero": False}}
    y["axis"] = {"format": ".1%" if share else ".3~g", "tickCount": 6}
    legend = {"title": None, "orient": "top", "columns": COLUMNS, "symbolType": "stroke"}
    tooltip = [
        {"field": "candidate"},
        {"field": "epoch"},
        {"field": "value", "title": key.replace("_", " "), "format": ".2%" if share else ".4~g"},
    ]
    return {
        "data": {"values": rows},
        "height": 260,
        "mark": {"type": "line", "strokeWidth": 1.8, "point": {"size": 24}},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "axis": {"format": "d", "tickMinStep": 1, "tickCount": 8}},
            "y": y,
            "color": {"field": "candidate", "type": "nominal", "sort": None, "legend": legend},
            "tooltip": tooltip,
        },
    }


def duration(seconds: float) -> str:
    """Seconds for people: 0.35 s, 12.1 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _bars(rows: list[dict[str, Any]], title: str, form: str) -> Spec:
    y: Spec = {"field": "name", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelExpr": SHORT_NAME, "labelLimit": 170, "ticks": False, "domain": False}
    # The longest bar leaves room for the number behind it, on a phone too.
    most = max((row["value"] for row in rows), default=0.0)
    x = {"field": "value", "type": "quantitative", "title": title, "axis": {"format": form, "tickCount": 5}}
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
