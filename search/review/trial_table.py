"""The table behind charts and page: a row for each trial, the rows by column, what each trial proposed and keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.review.candidate import Axis, Candidate, Measure
from search.review.chart_style import Row
from search.review.front import Front
from search.review.records import training_text


@dataclass(frozen=True, slots=True)
class CostAxis:
    """How one cost is shown.

    Attributes:
        name: one or two words, for a button and a tooltip.
        title: the words beside the axis, with the unit.
        ticks: number format of the axis, as d3-format writes it.
        exact: number format of a tooltip.
        factor: what the cost is multiplied with to be in the unit of the title.
    """

    name: str
    title: str
    ticks: str = "~s"
    exact: str = ".3s"
    factor: float = 1


COST_AXES: dict[Axis, CostAxis] = {
    "macs": CostAxis("MACs", "MACs for one sample"),
    "params": CostAxis("parameters", "parameters"),
    "latency": CostAxis("latency", "latency by the budget's table, ms a batch", ".6~g", ".4~g", 1e3),
    "memory": CostAxis("memory", "peak memory, bytes"),
    "batch_seconds": CostAxis("measured latency", "measured latency, ms a batch", ".6~g", ".4~g", 1e3),
    "single_seconds": CostAxis("ms, one sample", "measured latency, ms for one sample", ".6~g", ".4~g", 1e3),
}
WORDS = {"front": "on the front", "dominated": "dominated", "infeasible": "infeasible", "unmeasured": "not measured"}
MEASURES: tuple[Measure, ...] = ("accuracy", "score")


def state_field(measure: Measure, axis: Axis) -> str:
    """The column of `trial_rows` that says where a candidate stands by this measure and cost."""
    return f"{measure}_by_{axis}"


def axes_measured(fronts: Sequence[Front], measure: Measure | None = None) -> tuple[Axis, ...]:
    """The costs that at least one candidate knows: always MACs, then the others.

    Args:
        fronts: whose candidates are looked at.
        measure: only candidates that have this measure count; by default all.
    """
    ones = [one for front in fronts for one in front.candidates if measure is None or one.value(measure) is not None]
    return tuple(
        dict.fromkeys(["macs", *(axis for axis in COST_AXES if any(one.on(axis) is not None for one in ones))])
    )


def trial_rows(fronts: Sequence[Front], parameters: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One flat row for each candidate, further retraining, dense network and baseline of all fronts.

    Args:
        fronts: the studies.
        parameters: proposed parameters that have a column: `p0` for the first name, `p1` for the second, …
    """
    table = []
    fronts = [front.with_all_retrainings() for front in fronts]
    fields = [(measure, axis) for measure in MEASURES for axis in axes_measured(fronts)]
    for front in fronts:
        states = {state_field(m, axis): front.statuses(m, axis) for m, axis in fields}
        for i, one in enumerate(front.candidates):
            table.append(_row(front, one, {field: WORDS[states[field][i]] for field in states}))
        for word, ones in (("dense", (front.dense,)), ("baseline", front.baselines)):
            table.extend(_row(front, one, dict.fromkeys(states, word)) for one in ones)
    every = [one for front in fronts for one in (*front.candidates, front.dense, *front.baselines)]
    for i, name in enumerate(parameters):
        for row, one in zip(table, every, strict=True):
            row[f"p{i}"] = one.parameters.get(name)
    return table


def _row(front: Front, one: Candidate, states: dict[str, str]) -> dict[str, Any]:
    macs, dense = one.on("macs"), front.dense.on("macs")
    return {
        "study": front.name,
        "trial": one.number if one.number >= 0 else None,
        "name": one.name,
        "structure": one.id,
        **{axis: _times(one.on(axis), scale.factor) for axis, scale in COST_AXES.items()},
        "share": macs / dense if macs is not None and dense else None,
        "score": one.value("score"),
        "confirmed": one.confirmed,
        "rule": one.rule or None,
        "accuracy": one.value("accuracy"),
        "test": one.test_accuracy,
        "training": training_text(one, front.metric) if one.retrainings else None,
        "seconds": one.seconds,
        "reason": one.reason,
        # Drawn last, so on top: what matters most.
        "rank": 0 if states[state_field("score", "macs")] == "dominated" else 1,
        **states,
    }


def _times(cost: float | None, factor: float) -> float | None:
    return cost if cost is None or factor == 1 else cost * factor


MOST_WORDS = 200


def columns(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows by column: one value where all are the same, numbers of words where these repeat, else the values.

    Numbers have six digits: thousands of trials stay below a megabyte.
    """
    found = []
    for name in rows[0] if rows else ():
        values = [_short(row[name]) for row in rows]
        words = list(dict.fromkeys(values))
        if len(words) == 1:
            found.append({"name": name, "same": words[0]})
        elif len(words) <= MOST_WORDS and all(word is None or isinstance(word, str) for word in words):
            place = {word: i for i, word in enumerate(words)}
            found.append({"name": name, "words": words, "at": [place[value] for value in values]})
        else:
            found.append({"name": name, "values": values})
    return found


def details(fronts: Sequence[Front], room: int) -> dict[str, Any]:
    """What was proposed and kept, for the panel that shows one trial.

    Args:
        fronts: the studies, in the order in which `trial_rows` was given them.
        room: characters that the result may take as JSON; what does not fit is left out, the front and the best
            scores last.

    Returns:
        `studies`: name -> names of parameters and groups, dense widths; `of`: for each row of the table of trials
        [parameters, widths, removed layers], or None.
    """
    fronts = [front.with_all_retrainings() for front in fronts]
    ones = [one for front in fronts for one in (*front.candidates, front.dense, *front.baselines)]
    homes = [front for front in fronts for _ in (*front.candidates, front.dense, *front.baselines)]
    studies = {front.name: _names(front) for front in fronts}
    important = {id(one) for front in fronts for one in (front.dense, *front.baselines, *front.points())}
    important |= {id(one) for one in ones if one.accuracy is not None}
    order = sorted(range(len(ones)), key=lambda i: (id(ones[i]) not in important, -_worth(ones[i])))
    of: list[Any] = [None] * len(ones)
    for i in order:
        record = _detail(ones[i], studies[homes[i].name])
        room -= len(json.dumps(record, separators=(",", ":"))) + 1
        if room < 0:
            break
        of[i] = record
    return {"studies": studies, "of": of}


def _names(front: Front) -> dict[str, list[Any]]:
    structure = front.dense.structure
    widths = structure.widths if structure else {}
    # Those of every trial first, in the order proposed; a baseline may have one of its own.
    ones = (*front.candidates, *front.baselines)
    return {
        "parameters": list(dict.fromkeys(name for one in ones for name in one.parameters)),
        "groups": list(widths),
        "dense": list(widths.values()),
    }


def _detail(one: Candidate, names: Mapping[str, list[Any]]) -> list[Any]:
    values = [one.parameters.get(name) for name in names["parameters"]]
    proposed = [None if value is None or not math.isfinite(value) else float(f"{value:.3g}") for value in values]
    kept = one.structure.widths if one.structure else {}
    return [proposed, [kept.get(name) for name in names["groups"]] if kept else [], list(_removed(one))]


def _removed(one: Candidate) -> tuple[str, ...]:
    return one.structure.removed if one.structure else ()


def _worth(one: Candidate) -> float:
    score = one.value("score")
    return -math.inf if score is None else score


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
