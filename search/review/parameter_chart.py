"""What was proposed and how it scored: a picture for two thresholds, another for dozens of ratios."""

from __future__ import annotations

from collections.abc import Sequence

from search.review.candidate import Candidate
from search.review.chart_style import VERMILLION, Spec
from search.review.charts import SHORT_NAME

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
