"""What an evaluation leaves in its folder: the figures, a table, and pictures of scores and taus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from backbones.files import write_text
from search.evaluate.evidence import Evidence
from search.review.chart_style import Spec, write_chart

PANEL = 150
PANELS_A_ROW = 4


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Writes evidence.json, evidence.md, scatter.png, scatter.svg, tau.png and tau.svg, each file in one step."""
    write_text(folder / "evidence.json", json.dumps(evidence.to_dict(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "evidence.md", evidence.markdown())
    for name, chart in (("scatter", scatter_chart(evidence)), ("tau", tau_chart(evidence))):
        for ending in ("png", "svg"):
            write_chart(chart, folder / f"{name}.{ending}")


def scatter_chart(evidence: Evidence) -> Spec:
    """One small panel a scorer, the best first: score against accuracy after retraining, coloured by family."""
    truth = evidence.truth
    title = {one.scorer: f"{one.scorer}  {one.tau.value:+.2f}" for one in evidence.results}
    rows = [
        {"score": title[result.scorer], "value": float(value), "accuracy": float(truth[i]), "family": one.family}
        for result in evidence.results
        for i, (one, value) in enumerate(zip(evidence.structures, evidence.scores[result.scorer], strict=True))
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
        "columns": PANELS_A_ROW,
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
        for result in evidence.results:
            interval = getattr(result, attribute)
            if np.isfinite([interval.value, interval.low, interval.high]).all():
                rows.append(
                    {
                        "scorer": result.scorer,
                        "part": part,
                        "tau": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    order = [result.scorer for result in evidence.results]
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
