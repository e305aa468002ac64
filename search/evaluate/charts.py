"""Pictures of an evaluation: every score against accuracy, and every tau with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search.review.chart_style import Spec

if TYPE_CHECKING:
    from search.evaluate.evidence import Evidence

PANEL = 150
COLUMNS = 4


def scatter_chart(evidence: Evidence) -> Spec:
    """One small panel a scorer, the best first: score against accuracy after retraining, coloured by family."""
    truth = evidence.truth
    title = {v.scorer: f"{v.scorer}  {v.tau.value:+.2f}" for v in evidence.verdicts}
    rows = [
        {"score": title[verdict.scorer], "value": float(value), "accuracy": float(truth[i]), "family": one.family}
        for verdict in evidence.verdicts
        for i, (one, value) in enumerate(zip(evidence.drawn, evidence.scores[verdict.scorer], strict=True))
        if np.isfinite(value)
    ]
    number = {"type": "quantitative", "scale": {"zero": False}}
    return {
        "data": {"values": rows},
        "title": {"text": f"{evidence.name}: scores before retraining, accuracy after", "subtitle": "number: tau"},
        "facet": {
            "field": "score",
            "type": "nominal",
            "sort": list(title.values()),
            "header": {"title": None, "labelFontSize": 12},
        },
        "columns": COLUMNS,
        "spec": {
            "width": PANEL,
            "height": PANEL,
            "mark": {"type": "point", "filled": True, "size": 28, "opacity": 0.8},
            "encoding": {
                "x": {"field": "value", "title": None, "axis": {"tickCount": 3, "format": ".3~g"}, **number},
                "y": {
                    "field": "accuracy",
                    "title": f"{evidence.measure} accuracy",
                    "axis": {"tickCount": 4, "format": ".0%"},
                    **number,
                },
                "color": {"field": "family", "type": "nominal", "legend": {"title": None, "orient": "top"}},
            },
        },
        "resolve": {"scale": {"x": "independent"}},
    }


def tau_chart(evidence: Evidence) -> Spec:
    """Tau over all structures and inside the top third, with 95 % intervals and the ceiling."""
    whole, inside = evidence.ceiling
    parts = (("all structures", whole, "tau"), ("top third", inside, "tau_top"))
    rows, limits = [], []
    for part, ceiling, attribute in parts:
        if not np.isnan(ceiling):
            limits.append({"part": part, "ceiling": ceiling})
        for verdict in evidence.verdicts:
            interval = getattr(verdict, attribute)
            if np.isfinite([interval.value, interval.low, interval.high]).all():
                rows.append(
                    {
                        "scorer": verdict.scorer,
                        "part": part,
                        "tau": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    order = [verdict.scorer for verdict in evidence.verdicts]
    scorer = {"field": "scorer", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 220}}
    tau = {"type": "quantitative", "scale": {"domain": [-1, 1]}}

    def panel(part: str, labels: bool) -> Spec:
        mine = {"filter": {"field": "part", "equal": part}}
        y = scorer if labels else {**scorer, "axis": None}
        interval = {"x": {"field": "low", "title": "tau", **tau}, "x2": {"field": "high"}, "y": y}
        return {
            "title": part,
            "width": 260,
            "height": {"step": 20},
            "layer": [
                {"data": {"values": [{"x": 0}]}, "mark": "rule", "encoding": {"x": {"field": "x", **tau}}},
                {
                    "data": {"values": [row for row in limits if row["part"] == part]},
                    "mark": {"type": "rule", "strokeDash": [5, 3]},
                    "encoding": {"x": {"field": "ceiling", **tau}},
                },
                {"transform": [mine], "mark": {"type": "rule", "strokeWidth": 2}, "encoding": interval},
                {
                    "transform": [mine],
                    "mark": {"type": "point", "filled": True, "size": 60},
                    "encoding": {"x": {"field": "tau", **tau}, "y": y},
                },
            ],
        }

    subtitle = "95 % intervals" + (", dashed: tau between retraining seeds" if limits else "")
    return {
        "data": {"values": rows},
        "title": {"text": f"{evidence.name}: rank agreement with accuracy after retraining", "subtitle": subtitle},
        "hconcat": [panel("all structures", True), panel("top third", False)],
    }
