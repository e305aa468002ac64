"""The front as a picture: accuracy or score against cost, with every trial in its place."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from search.data.task import ACCURACY, MetricSpec
from search.formatting import amount
from search.review.candidate import Axis, Measure
from search.review.chart_style import BLUE, GREEN, GREY, OCHRE, PURPLE, VERMILLION, Row, Spec, legend_columns
from search.review.trial_table import COST_AXES, state_field

# state -> (colour, shape, area, opacity)
LOOKS = {
    "on the front": (BLUE, "circle", 75, 1.0),
    "dominated": (GREY, "circle", 26, 0.45),
    "infeasible": (VERMILLION, "cross", 44, 0.7),
    "dense": (PURPLE, "diamond", 150, 1.0),
    "baseline": (GREEN, "triangle-up", 110, 1.0),
}
# Only a few are ever retrained, and infeasible ones never are.
RETRAINED_LOOKS = {word: LOOKS[word] for word in LOOKS if word != "infeasible"} | {
    "dominated": (GREY, "circle", 60, 0.9)
}
LabelBox = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels."""
HEIGHT = 340
LETTERS = 44
"""Of a line of the title beside an axis of this height."""
LINE = 13
"""Pixels between two labels that stand above each other."""
LETTER, BESIDE, MARK, NARROW = 6.5, 9, 6, 360
"""Pixels of a label's letter, from a point to its label, from a point to its edge, and of the narrowest picture in
which labels keep apart: in wider ones points and labels only move away from each other."""
# Legends wrap on a phone; pictures side by side (width 0) are wide enough.
LEGEND_COLUMNS = {"expr": "width && width < 380 ? 2 : 5"}


def front_chart(
    rows: Sequence[Row],
    measure: Measure,
    axis: Axis = "macs",
    *,
    scorer: str = "score",
    caps: Iterable[float] = (),
    metric: MetricSpec = ACCURACY,
    how: str = "",
) -> Spec:
    """Quality against cost; reads the table `trials`.

    Infeasible trials have no quality: they are crosses on the floor of the picture. The stairs show the best quality
    that the front has for at most that cost. Colours tell states apart, or studies where there are several.

    Args:
        rows: what `trial_rows` made (the scales are chosen from it; the rows themselves are not put in).
        measure: `accuracy` (the metric) of retrained candidates or training-free `score`.
        axis: the cost.
        scorer: what the score is called.
        caps: the budgets on this axis, in its unit, drawn as upright lines.
        metric: what accuracies are.
        how: a second line below the axis: by what it was measured.
    """
    state = state_field(measure, axis)
    several = len({row["study"] for row in rows}) > 1
    caps = tuple(caps)
    x = _scale(rows, axis, state, measure, caps)
    x |= {
        "title": [COST_AXES[axis].title, how] if how else COST_AXES[axis].title,
        "axis": {"format": COST_AXES[axis].ticks, "tickCount": 6},
    }
    y = _scale(rows, measure, state, measure)
    title = _title(measure, scorer, metric)
    lines = textwrap.wrap(title, LETTERS)
    y |= {
        "title": title,
        "axis": {**_ticks(measure, metric), "tickCount": 6, "title": lines if len(lines) > 1 else title},
    }
    looks = _looks([row for row in rows if _inside(row[axis], x)], measure, state, several)
    tooltip = _tooltip(axis, state, scorer, several, metric)
    points: Spec = {
        "transform": [
            {"filter": f"isValid(datum.{measure}) && isValid(datum.{axis}) && datum.{state} != 'infeasible'"}
        ],
        "mark": {"type": "point", "filled": True, "clip": True, "strokeWidth": 1},
        "params": [_zoom()],
        "encoding": {"x": x, "y": y, **looks, "tooltip": tooltip, "order": {"field": "rank"}},
    }
    floor: Spec = {
        "transform": [{"filter": f"datum.{state} == 'infeasible' && isValid(datum.{axis})"}],
        "mark": {"type": "point", "filled": True, "clip": True, "yOffset": -6},
        "encoding": {"x": x, "y": {"value": "height"}, **looks, "tooltip": _infeasible_tooltip(axis, several)},
    }
    colour = {"color": looks["color"]} if several else {"color": {"value": BLUE}}
    stairs: Spec = {
        "transform": [{"filter": f"datum.{state} == 'on the front'"}],
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "opacity": 0.7, "clip": True},
        "encoding": {"x": x, "y": y, "detail": {"field": "study"}, **colour},
    }
    layers = [stairs, floor, points] if measure == "score" else [stairs, points]
    if any(row[state] == "dense" and _inside(row[measure], y) for row in rows):
        layers.insert(0, _dense_level(y, measure, state, several, metric))
    if shown := [cap for cap in caps if _inside(cap, x)]:
        layers.insert(0, _caps(x, {cap: amount(cap) if axis == "macs" else f"{cap:.4g} ms" for cap in shown}))
    if measure == "score" and any(row["accuracy"] is not None for row in rows if row["trial"] is not None):
        layers.append(_rings(x, y, GREY if several else VERMILLION))
    if not several and (named := _baseline_names(rows, x, y, state)):
        layers.append(named)
    return {"data": {"name": "trials"}, "height": HEIGHT, "layer": layers}


def _scale(rows: Sequence[Row], field: str, state: str, measure: Measure, caps: Sequence[float] = ()) -> Spec:
    """One position channel, over all candidates; with what belongs beside them, unless that would squeeze them.

    Beside accuracies the dense network is always shown: the loss against it is what the picture is about.
    """
    shown = ("on the front", "dominated", "infeasible") if measure == "score" else ("on the front", "dominated")
    own = [row[field] for row in rows if row[field] is not None and row[state] in shown]
    near = [*own, *caps]
    for beside in ("baseline", "dense"):
        both = near + [row[field] for row in rows if row[field] is not None and row[state] == beside]
        squeezed = own and measure == "score" and max(near) - min(near) < 0.25 * (max(both) - min(both))
        near = near if squeezed else both
    low, high = min(near, default=0.0), max(near, default=1.0)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    scale = {"domain": [low - margin, high + margin], "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "scale": scale}


def _looks(rows: Sequence[Row], measure: Measure, state: str, several: bool) -> Spec:
    looks_of = LOOKS if measure == "score" else RETRAINED_LOOKS
    drawn = [row for row in rows if row[measure] is not None or row[state] == "infeasible"]
    shown = [word for word in looks_of if any(row[state] == word for row in drawn)]
    shown = shown or ["on the front"]
    column = {
        name: [looks_of[word][i] for word in shown] for i, name in enumerate(("color", "shape", "size", "opacity"))
    }
    legend = {"title": None, "orient": "top", "columns": LEGEND_COLUMNS}
    looks: Spec = {
        name: {
            "field": state,
            "type": "nominal",
            "sort": shown,
            "scale": {"type": "ordinal", "domain": shown, "range": values},
            "legend": legend,
        }
        for name, values in column.items()
    }
    if several:
        # Neither black, which a dark page swallows, nor the colour of a study.
        for channel in looks.values():
            channel["legend"] = {**legend, "symbolFillColor": GREY}
        wide = {**legend, "columns": legend_columns(row["study"] for row in rows), "symbolType": "square"}
        looks["color"] = {"field": "study", "type": "nominal", "sort": None, "legend": wide}
    return looks


def _inside(value: float | None, channel: Spec) -> bool:
    low, high = channel["scale"]["domain"]
    return value is not None and low <= value <= high


def _rings(x: Spec, y: Spec, colour: str) -> Spec:
    return {
        "transform": [{"filter": "isValid(datum.accuracy) && isValid(datum.score) && datum.trial != null"}],
        "mark": {
            "type": "point",
            "filled": False,
            "shape": "circle",
            "size": 190,
            "strokeWidth": 1.6,
            "color": colour,
            "clip": True,
        },
        "encoding": {"x": x, "y": y},
    }


def _baseline_names(rows: Sequence[Row], x: Spec, y: Spec, state: str) -> Spec | None:
    """The baselines' names beside their points, or as near as they lie on no other name or point and within the axes.

    A name that finds no place is left to the tooltip.
    """
    (left, right), (low, high) = x["scale"]["domain"], y["scale"]["domain"]
    shown = [row for row in rows if row[state] == "baseline" and _inside(row[x["field"]], x)]
    shown = sorted((row for row in shown if _inside(row[y["field"]], y)), key=lambda row: -row[y["field"]])
    points = [
        (NARROW * (row[x["field"]] - left) / (right - left), HEIGHT * (high - row[y["field"]]) / (high - low))
        for row in shown
    ]
    taken = [(across - MARK, down - MARK, across + MARK, down + MARK) for across, down in points]
    labels: list[Spec] = []
    for row, point in zip(shown, points, strict=True):
        found = _free_place(point, LETTER * len(row["name"]), taken)
        if found is not None:
            side, shift, box = found
            taken.append(box)
            place = {x["field"]: row[x["field"]], y["field"]: row[y["field"]]}
            labels.append({**place, "text": row["name"], "side": side, "shift": shift})
    if not labels:
        return None
    aside = {"align": {"expr": "datum.side < 0 ? 'right' : 'left'"}, "dx": {"expr": f"{BESIDE} * datum.side"}}
    mark = {"type": "text", "baseline": "middle", "dy": {"expr": "datum.shift"}, "clip": True}
    return {
        "data": {"values": labels},
        "mark": {**mark, **aside},
        "encoding": {"x": x, "y": y, "text": {"field": "text"}},
    }


def _free_place(
    point: tuple[float, float], length: float, taken: Sequence[LabelBox]
) -> tuple[int, int, LabelBox] | None:
    """Side (-1 left, 1 right), shift downwards and box of a label: as near to its point as there is room, or None."""
    across, down = point
    inner = -1 if 2 * across > NARROW else 1
    for shift in sorted(range(-HEIGHT, HEIGHT + 1), key=abs):
        top = down + shift - LINE / 2
        if not 0 <= top <= HEIGHT - LINE:
            continue
        for side in (inner, -inner):
            start = across + BESIDE if side > 0 else across - BESIDE - length
            box = (start, top, start + length, top + LINE)
            if (side == inner or (start >= 0 and box[2] <= NARROW)) and not any(_meet(box, one) for one in taken):
                return side, shift, box
    return None


def _meet(one: LabelBox, other: LabelBox) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _caps(x: Spec, caps: Mapping[float, str]) -> Spec:
    low, high = x["scale"]["domain"]
    rows = [
        {"cap": cap, "text": f"budget {text}", "side": -1 if 2 * cap > low + high else 1} for cap, text in caps.items()
    ]
    along = {"angle": 270, "align": "left", "baseline": {"expr": "datum.side < 0 ? 'bottom' : 'top'"}, "dx": 16}
    return {
        "data": {"values": rows},
        "encoding": {"x": {**x, "field": "cap"}},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [6, 3], "color": OCHRE, "strokeWidth": 1.2}},
            {
                "mark": {"type": "text", "color": OCHRE, "dy": {"expr": "3 * datum.side"}, **along},
                "encoding": {"y": {"value": "height"}, "text": {"field": "text"}},
            },
        ],
    }


def _dense_level(y: Spec, measure: Measure, state: str, several: bool, metric: MetricSpec) -> Spec:
    label: Spec = {
        "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 6, "dy": -4},
        "encoding": {"x": {"value": 0}, "text": {"field": "level"}},
    }
    form = _ticks(measure, metric)["format"]
    return {
        "transform": [
            {"filter": f"datum.{state} == 'dense' && isValid(datum.{measure})"},
            {"calculate": f"'dense ' + format(datum.{measure}, '{form}')", "as": "level"},
        ],
        "encoding": {"y": y},
        "layer": [{"mark": {"type": "rule", "strokeDash": [2, 4]}}] + ([] if several else [label]),
    }


def _zoom() -> Spec:
    """Shift and the wheel zoom, shift and dragging moves: plain scrolling and touch stay the page's own."""
    return {
        "name": "zoom",
        "select": {
            "type": "interval",
            "zoom": "wheel![event.shiftKey]",
            "translate": "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!",
        },
        "bind": "scales",
    }


def _title(measure: Measure, scorer: str, metric: MetricSpec) -> str:
    if measure == "score":
        return f"{scorer} (higher is better)"
    better = "" if metric == ACCURACY else f" ({metric.direction} is better)"
    return f"validation {metric.heading} after retraining{better}"


def _ticks(measure: Measure, metric: MetricSpec) -> Spec:
    """Tick labels, never two alike: percentages a hair apart get no finer steps than the label shows."""
    if measure == "score":
        return {"format": ".6~g"}
    return {"format": metric.ticks[0], **({"tickMinStep": 0.001} if metric.unit == "%" else {})}


def _tooltip(axis: Axis, state: str, scorer: str, several: bool, metric: MetricSpec) -> list[Spec]:
    tips: list[Spec] = [{"field": "study"}] if several else []
    tips += [
        {"field": "name", "title": "candidate"},
        {"field": state, "title": "place"},
        {"field": "macs", "title": "MACs", "format": ".3s"},
        {"field": "share", "title": "of the dense MACs", "format": ".1%"},
        {"field": "params", "title": "parameters", "format": ".3s"},
        {"field": "score", "title": scorer, "format": ".5~g"},
        {"field": "accuracy", "title": f"validation {metric.heading}", "format": metric.ticks[1]},
        {"field": "test", "title": f"test {metric.heading}", "format": metric.ticks[1]},
        {"field": "training"},
        {"field": "structure"},
    ]
    if axis not in ("macs", "params"):
        tips.insert(-1, {"field": axis, "title": COST_AXES[axis].title, "format": COST_AXES[axis].exact})
    return tips


def _infeasible_tooltip(axis: Axis, several: bool) -> list[Spec]:
    tips: list[Spec] = [{"field": "study"}] if several else []
    return [
        *tips,
        {"field": "name", "title": "candidate"},
        {"field": "reason", "title": "infeasible"},
        {"field": axis, "title": COST_AXES[axis].title, "format": COST_AXES[axis].exact},
    ]
