"""What the report's page carries as data: the trials by column, and what each trial proposed and keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.review.candidate import Candidate
from search.review.chart_style import Row
from search.review.front import Front

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
