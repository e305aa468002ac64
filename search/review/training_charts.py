"""Pictures of one training: its curve, and what slimming did to the batch-norm scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backbones.errors import SecateurError
from search.review.chart_style import Spec
from search.training.history import History

BINS = 40


def curve_chart(history: History) -> Spec:
    """Loss, and accuracy on training and validation images, over the epochs."""
    losses = [{"epoch": row.epoch, "value": row.loss} for row in history.epochs]
    shares = [{"epoch": 0, "of": "validation", "value": history.start_accuracy}]
    for row in history.epochs:
        shares.append({"epoch": row.epoch, "of": "training (augmented)", "value": row.train_accuracy})
        shares.append({"epoch": row.epoch, "of": "validation", "value": row.validation_accuracy})
    left = _lines(losses, "epoch", "loss", ".3~g")
    right = _lines(shares, "epoch", "accuracy", ".0%", "of")
    return {"hconcat": [left, right]}


def gamma_chart(stages: Mapping[str, Mapping[str, Tensor]]) -> Spec:
    """Histogram and cumulative share of |gamma| over all batch-norm layers, one colour a stage.

    Args:
        stages: name ("before", "after slimming") -> layer -> scales (C,), of `search.training.slimming.gammas`.

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
    colour = {"field": "stage", "type": "nominal", "sort": None, "legend": {"title": None, "orient": "top"}}
    whole = {"format": "d", "tickMinStep": 1}
    histogram: Spec = {
        "data": {"values": bars},
        "height": 240,
        "width": 320,
        "mark": {"type": "bar", "opacity": 0.55},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "title": "|gamma|", "bin": {"binned": True}},
            "x2": {"field": "high"},
            "y": {"field": "channels", "type": "quantitative", "title": "channels", "stack": None, "axis": whole},
            "color": colour,
            "tooltip": [{"field": "stage"}, {"field": "low", "format": ".3f"}, {"field": "channels"}],
        },
    }
    share = _lines(steps, "gamma", "share of channels below", ".0%", "stage")
    share["encoding"]["x"]["title"] = "|gamma|"
    return {"hconcat": [histogram, share]}


def _flat(layers: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """(channels,) sorted |gamma| of all layers."""
    found = [gamma.detach().abs().cpu().double().numpy() for gamma in layers.values()]
    return np.sort(np.concatenate(found)) if found else np.empty(0)


def _lines(rows: list[dict[str, Any]], x: str, title: str, form: str, series: str | None = None) -> Spec:
    whole = {"format": "d", "tickMinStep": 1} if x == "epoch" else {}
    encoding: Spec = {
        "x": {"field": x, "type": "quantitative", "axis": {"tickCount": 6, **whole}},
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": title,
            "scale": {"zero": False},
            "axis": {"format": form, "tickCount": 6},
        },
        "tooltip": [{"field": x}, {"field": "value", "title": title, "format": ".4~g"}],
    }
    if series:
        legend = {"title": None, "orient": "top", "symbolType": "stroke"}
        encoding["color"] = {"field": series, "type": "nominal", "sort": None, "legend": legend}
    return {
        "data": {"values": rows},
        "height": 240,
        "width": 320,
        "mark": {"type": "line", "strokeWidth": 1.8, "point": {"size": 20} if x == "epoch" else False},
        "encoding": encoding,
    }
