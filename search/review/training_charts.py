"""Pictures of trainings: their curves, and what slimming did to the batch-norm scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backbones.errors import SecateurError
from search.data.task import ACCURACY, MetricSpec
from search.review.chart_style import Spec, legend_columns

BINS = 40


def curves_chart(histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str, metric: MetricSpec = ACCURACY) -> Spec:
    """A line for each training: the value `key` of its history rows, over their `epoch`.

    Args:
        histories: name of a training -> rows, as `asdict` makes of `History.epochs`.
        key: a column.
        metric: how the columns that are named after it read.
    """
    rows = [
        {"training": name, "epoch": row["epoch"], "value": row[key]}
        for name, history in histories.items()
        for row in history
        if key in row
    ]
    forms = metric.ticks if metric.key in key else (".3~g", ".4~g")
    return _lines(rows, "epoch", curve_title(key, metric), forms, "training")


def curve_title(key: str, metric: MetricSpec) -> str:
    """A column of a history in words: `validation_iou` is "validation IoU"."""
    return key.replace(metric.key, metric.heading).replace("_", " ")


def gamma_charts(stages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Spec]:
    """Histogram and cumulative share of |gamma| over all batch-norm layers, one colour a stage.

    Args:
        stages: name ("before", "after slimming") -> layer -> scales (C,), of `search.training.losses.gammas`.

    Raises:
        SecateurError: when there is no scale to show.
    """
    values = {name: _flat(layers) for name, layers in stages.items()}
    if not values or any(len(found) == 0 for found in values.values()):
        raise SecateurError("a gamma chart needs at least one batch-norm scale in every stage")
    edges = np.linspace(0.0, max(float(found[-1]) for found in values.values()) or 1.0, BINS + 1)
    bars, steps = [], []
    for name, found in values.items():
        heights, _ = np.histogram(found, edges)
        for low, high, height in zip(edges, edges[1:], heights, strict=False):
            bars.append({"stage": name, "low": float(low), "high": float(high), "channels": int(height)})
        shares = np.searchsorted(found, edges, side="right") / len(found)
        steps += [{"stage": name, "gamma": float(x), "value": float(y)} for x, y in zip(edges, shares, strict=True)]
    legend = {"title": None, "orient": "top", "columns": legend_columns(values)}
    colour = {"field": "stage", "type": "nominal", "sort": None, "legend": legend}
    whole = {"format": "d", "tickMinStep": 1}
    histogram: Spec = {
        "data": {"values": bars},
        "height": 260,
        "mark": {"type": "bar", "opacity": 0.55},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "title": "|gamma|", "bin": {"binned": True}},
            "x2": {"field": "high"},
            "y": {"field": "channels", "type": "quantitative", "title": "channels", "stack": None, "axis": whole},
            "color": colour,
            "tooltip": [{"field": "stage"}, {"field": "low", "format": ".3f"}, {"field": "channels"}],
        },
    }
    share = _lines(steps, "gamma", "share of channels below", (".0%", ".1%"), "stage")
    share["encoding"]["x"]["title"] = "|gamma|"
    return {"histogram": histogram, "cumulative": share}


def _flat(layers: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """(channels,) sorted |gamma| of all layers."""
    found = [gamma.detach().abs().cpu().double().numpy() for gamma in layers.values()]
    return np.sort(np.concatenate(found)) if found else np.empty(0)


def _lines(rows: list[dict[str, Any]], x: str, title: str, forms: tuple[str, str], series: str) -> Spec:
    """Lines of `value` over `x`, a colour a series; `forms` are the number formats of axis and tooltip."""
    whole = {"format": "d", "tickMinStep": 1} if x == "epoch" else {}
    y: Spec = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}}
    names = {row[series] for row in rows}
    legend = {"title": None, "orient": "top", "columns": legend_columns(names), "symbolType": "stroke"}
    tooltip = [
        {"field": series},
        {"field": x, "format": "" if whole else ".3f"},
        {"field": "value", "title": title, "format": forms[1]},
    ]
    return {
        "data": {"values": rows},
        "height": 260,
        "mark": {"type": "line", "strokeWidth": 1.8, "point": {"size": 24} if whole else {"size": 8}},
        "encoding": {
            "x": {"field": x, "type": "quantitative", "axis": {"tickCount": 8, **whole}},
            "y": {**y, "axis": {"format": forms[0], "tickCount": 6}},
            "color": {"field": series, "type": "nominal", "sort": None, "legend": legend},
            "tooltip": tooltip,
        },
    }
