"""The end of a run: what came out, as a table for people and as plain values for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from search.data.task import ACCURACY, MetricSpec
from search.formatting import amount, percent, significant, text_table
from search.review.candidate import Candidate, ranked
from search.review.footprint import footprint_cells
from search.review.front import Front
from search.review.records import by_metric

RESULT_HEADER = ("structure", "MACs", "share", "params", "share", "ms", "size", "test", "change")
SCORED = ("structure", "trial", "MACs", "share", "params", "share", "score")
VALIDATED = ("structure", "MACs", "share", "dense", "as cut", "refitted", "retrained")


def retrained(front: Front) -> list[Candidate]:
    """What was retrained, best validation accuracy first and of equals the cheapest; each structure once."""
    found: dict[str, Candidate] = {}
    for one in front.candidates:
        if one.accuracy is not None:
            found.setdefault(one.id, one)
    return ranked(found.values(), "accuracy", front.metric)


def refitted(front: Front) -> list[Candidate]:
    """What was refitted: best validation accuracy before any training first, of equals the cheapest; each once."""
    found: dict[str, tuple[float, float, Candidate]] = {}
    for one in front.candidates:
        if one.refit is not None:
            found.setdefault(one.id, (-front.metric.worth(one.refit.accuracy), one.on("macs") or 0.0, one))
    return [one for *_, one in sorted(found.values(), key=lambda row: row[:2])]


def validation_table(front: Front) -> str:
    """The metric on the validation split on the way: dense, as cut, refitted and, where there is any, retrained.

    The best stands first. The name of a metric that is not accuracy stands above.
    """
    text = front.metric.text
    ones = list({one.id: one for one in (*retrained(front), *refitted(front))}.values())
    rows = [
        (
            one.id,
            *_costs(one, front.dense)[:2],
            text(front.dense.accuracy),
            text(one.cut_accuracy),
            text(one.refitted_accuracy),
            text(one.accuracy),
        )
        for one in ones
    ]
    count = len(VALIDATED) if retrained(front) else len(VALIDATED) - 1
    return titled("validation", front.metric) + text_table(VALIDATED[:count], [row[:count] for row in rows])


def final_table(front: Front) -> str:
    """Dense against retrained, by the metric on the test split; selection and order are by the validation split."""
    dense, text = front.dense, front.metric.text
    whole = ("dense", amount(dense.on("macs")), "", amount(dense.on("params")), "", *footprint_cells(dense.footprint))
    rows = [(*whole, text(dense.test_accuracy), "")]
    for one in retrained(front):
        known = one.test_accuracy is not None and dense.test_accuracy is not None
        change = front.metric.change(one.test_accuracy or 0.0, dense.test_accuracy or 0.0) if known else "-"
        rows.append((one.id, *_costs(one, dense), *footprint_cells(one.footprint), text(one.test_accuracy), change))
    return titled("test", front.metric) + text_table(RESULT_HEADER, rows)


def titled(split: str, metric: MetricSpec) -> str:
    """The line above a table that says what its figures are; empty for accuracy."""
    return "" if metric == ACCURACY else f"{split} {metric.heading} ({metric.direction} is better)\n"


def score_table(front: Front, most: int = 10) -> str:
    """The non-dominated structures of a search by score, the best `most` of them, best first."""
    best = ranked(front.points("score"), "score")[:most]
    rows = [(one.id, str(one.number), *_costs(one, front.dense), significant(one.score)) for one in best]
    return text_table(SCORED, rows)


def result_values(front: Front, paths: Mapping[str, str]) -> dict[str, Any]:
    """Plain values for JSON: trials, dense network, front, retrained networks, and where the files are."""
    statuses = front.statuses("score")
    return {
        "name": front.name,
        "scorer": front.scorer,
        "trials": len(front.candidates),
        "infeasible": statuses.count("infeasible"),
        "metric": asdict(front.metric),
        "dense": _values(front.dense, front.metric),
        "front": [_values(one, front.metric) for one in front.points("score")],
        "refitted": [_values(one, front.metric) for one in refitted(front)],
        "retrained": [_values(one, front.metric) for one in retrained(front)],
        **paths,
    }


def _costs(one: Candidate, dense: Candidate) -> tuple[str, str, str, str]:
    cells = []
    for axis in ("macs", "params"):
        own, whole = one.on(axis), dense.on(axis)
        cells += [amount(own), percent(own / whole) if own is not None and whole else "-"]
    return cells[0], cells[1], cells[2], cells[3]


def _values(one: Candidate, metric: MetricSpec) -> dict[str, Any]:
    values = {
        "structure": one.id,
        "trial": one.number,
        "macs": one.on("macs"),
        "params": one.on("params"),
        "score": one.value("score"),
        "cut_accuracy": one.cut_accuracy,
        "refitted_accuracy": one.refitted_accuracy,
        "validation_accuracy": one.value("accuracy"),
        "test_accuracy": one.test_accuracy,
    }
    return by_metric(values, metric)
