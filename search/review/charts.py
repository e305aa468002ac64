"""The smaller pictures of a report: kept widths, history of the sampler, importances, time, and what was proposed."""

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


def latency_chart(ones: Sequence[Candidate]) -> Spec | None:
    """Milliseconds a batch as predicted for a budget and as measured, a point a structure; None without any."""
    rows = {
        one.id: {
            "name": one.name,
            "predicted": 1e3 * (one.on("latency") or 0.0),
            "measured": 1e3 * one.footprint.latency,
            "off": one.footprint.latency / (one.on("latency") or 1.0) - 1,
            "place": "dense" if one.footprint.limit is None else "over budget" if one.footprint.over else "held",
        }
        for one in ones
        if one.footprint is not None and one.on("latency")
    }
    if len(rows) < 2:  # the dense network alone
        return None
    ends = [row[key] for row in rows.values() for key in ("predicted", "measured")]
    tooltip = [
        {"field": "name", "title": "candidate"},
        {"field": "predicted", "title": "predicted, ms", "format": ".4~g"},
        {"field": "measured", "title": "measured, ms", "format": ".4~g"},
        {"field": "off", "title": "off by", "format": "+.1%"},
    ]
    colours = {"held": BLUE, "over budget": VERMILLION, "dense": GREY}
    colour: Spec = {"field": "place", "type": "nominal", "legend": {"title": None, "orient": "top"}}
    colour["scale"] = {"domain": list(colours), "range": list(colours.values())}

    def axis(field: str) -> Spec:
        return {"field": field, "type": "quantitative", "title": f"{field}, ms a batch", "scale": {"zero": False}}

    return {
        "data": {"values": list(rows.values())},
        "height": 320,
        "layer": [
            {
                "data": {"values": [{"predicted": end, "measured": end} for end in (min(ends), max(ends))]},
                "mark": {"type": "line", "color": GREY, "strokeDash": [5, 3], "strokeWidth": 1},
                "encoding": {"x": axis("predicted"), "y": axis("measured")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
                "encoding": {"x": axis("predicted"), "y": axis("measured"), "color": colour, "tooltip": tooltip},
            },
        ],
    }


# More lines than this no eye can follow; the best ones by score are drawn.
MOST_LINES = 300
MOST_PARAMETERS = 16


def parameters_chart(
    candidates: Sequence[Candidate], *, scorer: str = "score", first: Sequence[str] = ()
) -> Spec | None:
    """What was proposed and how it scored: a scatter of two parameters, parallel lines for more; None without any.

    Args:
        candidates: the trials.
        scorer: what the score is called.
        first: names in order of importance; of more than 16 parameters the most important ones are shown.
    """
    names = sorted({name for one in candidates for name in one.parameters})
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    scored = [one for one in candidates if one.value("score") is not None and one.reason is None]
    if not names or not scored:
        return None
    if len(names) <= 2:
        return _parameter_scatter(candidates, names, scorer)
    return _parallel_lines(scored, names[:MOST_PARAMETERS], scorer)


def _score_colour(scorer: str) -> Spec:
    legend = {"title": scorer, "orient": "top", "gradientLength": 160, "format": ".3~g", "tickCount": 5}
    # Without the ends of the scheme, which vanish on a dark and on a light page.
    scale = {"scheme": {"name": "viridis", "extent": [0.2, 0.9]}, "zero": False}
    return {"field": "score", "type": "quantitative", "scale": scale, "legend": legend}


def _parameter_scatter(candidates: Sequence[Candidate], names: Sequence[str], scorer: str) -> Spec:
    across, up = names[0], names[-1]
    rows = [
        {
            "x": one.parameters.get(across),
            "y": one.parameters.get(up) if len(names) == 2 else one.value("score"),
            "name": one.name,
            "score": one.value("score"),
            "macs": one.on("macs"),
            "reason": one.reason,
        }
        for one in candidates
    ]
    tooltip = [
        {"field": "name", "title": "candidate"},
        {"field": "x", "title": across, "format": ".4~g"},
        {"field": "y", "title": up if len(names) == 2 else scorer, "format": ".4~g"},
        {"field": "score", "title": scorer, "format": ".5~g"},
        {"field": "macs", "title": "MACs", "format": ".3s"},
    ]
    axes = {
        "x": {"field": "x", "type": "quantitative", "title": across, "scale": {"zero": False}},
        "y": {
            "field": "y",
            "type": "quantitative",
            "title": up if len(names) == 2 else scorer,
            "scale": {"zero": False},
        },
    }
    return {
        "data": {"values": rows},
        "height": 320,
        "encoding": axes,
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.reason)"}],
                "mark": {
                    "type": "point",
                    "shape": "cross",
                    "filled": True,
                    "color": VERMILLION,
                    "size": 34,
                    "opacity": 0.7,
                },
                "encoding": {"tooltip": [*tooltip[:3], {"field": "reason", "title": "infeasible"}]},
            },
            {
                "transform": [{"filter": "isValid(datum.score)"}],
                "mark": {"type": "point", "filled": True, "size": 44, "opacity": 0.9},
                "encoding": {"tooltip": tooltip, "color": _score_colour(scorer)},
            },
        ],
    }


def _parallel_lines(scored: Sequence[Candidate], names: Sequence[str], scorer: str) -> Spec:
    best = sorted(scored, key=lambda one: one.value("score") or 0.0)[-MOST_LINES:]
    ranges = {name: [one.parameters[name] for one in scored if name in one.parameters] for name in names}
    rows = []
    for rank, one in enumerate(best):
        for name in names:
            if name in one.parameters:
                low, high = min(ranges[name]), max(ranges[name])
                place = (one.parameters[name] - low) / (high - low) if high > low else 0.5
                row = {"parameter": name, "place": place, "value": one.parameters[name], "rank": rank}
                rows.append({**row, "name": one.name, "score": one.value("score")})
    tooltip = [
        {"field": "name", "title": "candidate"},
        {"field": "parameter"},
        {"field": "value", "format": ".4~g"},
        {"field": "score", "title": scorer, "format": ".5~g"},
    ]
    y: Spec = {"field": "place", "type": "quantitative", "title": "from smallest to largest proposed"}
    y["axis"] = {"values": [0, 0.5, 1], "format": ".0%"}
    x: Spec = {
        "field": "parameter",
        "type": "nominal",
        "sort": None,
        "title": None,
        "scale": {"type": "point", "padding": 0.3},
    }
    x["axis"] = {"labelExpr": SHORT_NAME, "labelLimit": 170, "grid": True, "labelAlign": "right"}
    x["axis"] |= {"labelAngle": {"expr": "width && width < 420 ? -90 : -40"}, "labelBaseline": "middle"}
    faint: Spec = {"field": "rank", "type": "quantitative", "legend": None}
    faint["scale"] = {"range": [0.1, 0.9], "zero": False}
    return {
        "data": {"values": rows},
        "height": 320,
        "mark": {"type": "line", "strokeWidth": 1.3, "point": {"size": 18}},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "rank"},
            "color": _score_colour(scorer),
            # Not the opacity of whole marks: each line would be blended by itself, which takes a PNG seconds.
            "strokeOpacity": faint,
            "fillOpacity": faint,
            "tooltip": tooltip,
        },
    }
