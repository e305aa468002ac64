"""The end of a run: what came out, as a table for people and as plain values for scripts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from search.data.task import ACCURACY, MetricSpec
from search.formatting import WIDTH, amount, byte_size, counted, milliseconds, percent, significant, text_table
from search.review.candidate import Candidate, ranked
from search.review.footprint import footprint_cells
from search.review.front import Front
from search.review.records import by_metric, footprint_record, training_record

RESULT_HEADER = ("structure", "trial", "MACs", "share", "params", "ms", "size", "test", "change")
SCORED = ("structure", "trial", "MACs", "share", "params", "share", "score", "on fresh images")
VALIDATED = ("structure", "trial", "MACs", "share", "dense", "as cut", "refitted", "retrained")


def result_tables(front: Front) -> str:
    """What came out, for people: of retrainings where there are any, else the best scores."""
    final = final_table(front) if retrained(front) else score_table(front)
    tables = (final, validation_table(front), finalists_table(front), latency_table(front))
    return "\n\n".join(table for table in tables if table)


def retrained(front: Front) -> list[Candidate]:
    """What was retrained, best validation accuracy first and of equals the cheapest; each structure once a recipe."""
    found: dict[tuple[str, str], Candidate] = {}
    for one in _by_retraining(front):
        if one.accuracy is not None:
            found.setdefault((one.id, _label(one)), one)
    return ranked(found.values(), "accuracy", front.metric)


def _by_retraining(front: Front) -> list[Candidate]:
    return [row for one in front.candidates for row in one.by_retraining()]


def _label(one: Candidate) -> str:
    """The name of the retraining that a candidate shows; empty before one."""
    return one.retrainings[0].label if one.retrainings else ""


def refitted(front: Front) -> list[Candidate]:
    """What was refitted: best validation accuracy before any training first, of equals the cheapest; each once."""
    found: dict[str, tuple[float, float, Candidate]] = {}
    for one in front.candidates:
        if one.refit is not None:
            found.setdefault(one.id, (-front.metric.worth(one.refit.accuracy), one.on("macs") or 0.0, one))
    return [one for *_, one in sorted(found.values(), key=lambda row: row[:2])]


def validation_table(front: Front) -> str:
    """The metric on the validation split on the way: dense, as cut, refitted and, where there is any, retrained.

    The best stands first. The name of a metric that is not accuracy stands above, and of several recipes each has a
    table of its own below its name.
    """
    trained = retrained(front)
    known = {one.id for one in trained}
    rest = [one for one in refitted(front) if one.id not in known]
    groups = _groups(trained)
    if rest:  # beside the only recipe, if there is one
        label = "not retrained" if len(groups) > 1 else next(iter(groups), "")
        groups[label] = [*groups.get(label, []), *rest]
    count = len(VALIDATED) if trained else len(VALIDATED) - 1
    dense = front.dense
    tables = {}
    for label, ones in groups.items():
        rows = [
            (
                *_named(one),
                *_costs(one, dense)[:2],
                *map(front.metric.text, (dense.accuracy, one.cut_accuracy, one.refitted_accuracy, one.accuracy)),
            )
            for one in ones
        ]
        tables[label] = text_table(VALIDATED[:count], [row[:count] for row in rows])
    lost = lost_in_training(front)
    below = f"\n\n{textwrap.fill(f'Note: {lost}.', WIDTH)}" if lost else ""
    return titled("validation", front.metric) + _below_names(tables) + below


def lost_in_training(front: Front) -> str:
    """In words, which networks were better as refitted than after their best retraining; empty where none was."""
    best: dict[str, Candidate] = {}
    for one in retrained(front):
        best.setdefault(one.id, one)
    text, worth, lost = front.metric.text, front.metric.worth, []
    for one in best.values():
        before, after = one.refitted_accuracy, one.accuracy
        if before is not None and after is not None and worth(after) < worth(before) and text(after) != text(before):
            lost.append(f"{one.name} ({text(before)} before, {text(after)} after)")
    if not lost:
        return ""
    kept = "the refitted networks are kept; more epochs, a lower rate or another start may do better"
    return f"by validation {front.metric.name} worse as retrained than as refitted: {', '.join(lost)}; {kept}"


def final_table(front: Front) -> str:
    """Dense against retrained, by the metric on the test split; selection and order are by the validation split.

    Of several recipes each has a table of its own below its name.
    """
    dense, text = front.dense, front.metric.text
    whole = ("dense", "", amount(dense.on("macs")), "", amount(dense.on("params")), *footprint_cells(dense.footprint))
    tables = {}
    for label, ones in _groups(retrained(front)).items():
        rows = [(*whole, text(dense.test_accuracy), "")]
        for one in ones:
            known = one.test_accuracy is not None and dense.test_accuracy is not None
            change = front.metric.change(one.test_accuracy or 0.0, dense.test_accuracy or 0.0) if known else "-"
            costs = _costs(one, dense)[:3]
            rows.append((*_named(one), *costs, *footprint_cells(one.footprint), text(one.test_accuracy), change))
        tables[label] = text_table(RESULT_HEADER, rows)
    return titled("test", front.metric) + _below_names(tables)


def gain(front: Front) -> str:
    """A table of what the best retrained network costs and reaches beside the dense one; empty without one."""
    best, dense = next(iter(retrained(front)), None), front.dense
    if best is None:
        return ""
    macs, macs_share, params, params_share = _costs(best, dense)
    rows = [
        ("MACs", amount(dense.on("macs")), macs, macs_share),
        ("parameters", amount(dense.on("params")), params, params_share),
    ]
    before, now = dense.footprint, best.footprint
    if before is not None and now is not None:
        if now.limit is not None:
            share = percent(now.latency / before.latency) + "!" * now.over
            rows.append((f"ms, batch of {now.batch}", milliseconds(before.latency), milliseconds(now.latency), share))
        if before.single and now.single is not None:
            many = "one sample" if now.engine == "eager" else f"1 sample, {now.engine}"
            one = f"ms, {many}, {counted(now.threads, 'thread')}"
            rows.append(
                (one, milliseconds(before.single), milliseconds(now.single), percent(now.single / before.single))
            )
        rows.append(("size on disk", byte_size(before.disk), byte_size(now.disk), percent(now.disk / before.disk)))
    if dense.test_accuracy is not None and best.test_accuracy is not None:
        text, change = front.metric.text, front.metric.change(best.test_accuracy, dense.test_accuracy)
        rows.append((f"test {front.metric.heading}", text(dense.test_accuracy), text(best.test_accuracy), change))
    return text_table(("what you gain", "dense", best.title, ""), rows)


def latency_table(front: Front) -> str:
    """Where a budget bounds latency: what it allows, what was predicted and what was measured, of all that were.

    Above it stands how it was measured, and how far predictions may be off by their calibration; what takes longer than
    it may is marked. Empty without such a budget.
    """
    found = {one.id: one for one in (*retrained(front), *_finalists(front), *refitted(front))}
    ones = [one for one in found.values() if one.footprint is not None and one.footprint.limit is not None]
    if not ones:
        return ""
    rows = []
    for one in (front.dense, *ones):
        size, asked = one.footprint, one.on("latency")
        assert size is not None
        off = "-" if asked is None else f"{100 * (size.latency / asked - 1):+.1f} %"
        held = "" if size.limit is None else "over" if size.over else "held"
        cells = (milliseconds(size.limit), milliseconds(asked), milliseconds(size.latency), off, held)
        rows.append((*(_named(one) if one is not front.dense else (one.name, "")), *cells))
    first = ones[0].footprint
    assert first is not None
    stated = "" if first.error is None else f"; predictions are off by up to {percent(first.error)}"
    header = ("latency, ms", "trial", "at most", "predicted", "measured", "off", "budget")
    return f"{first.how}{stated}\n" + text_table(header, rows)


def finalists_table(front: Front) -> str:
    """What competed in short trainings: the rung that each reached, and how it was on the validation split after each.

    Empty without finalists; of several recipes each has a table of its own below its name.
    """
    tables = {}
    for label, ones in _groups(_finalists(front)).items():
        lengths = sorted({epochs for one in ones for epochs, _ in one.retrainings[0].rungs})
        rows = []
        for one in ones:
            found = dict(one.retrainings[0].rungs)
            cells = [front.metric.text(found.get(epochs)) for epochs in lengths]
            rows.append((*_named(one), *_costs(one, front.dense)[:2], f"{len(found)} of {len(lengths)}", *cells))
        header = ("finalist", "trial", "MACs", "share", "rung", *(counted(epochs, "epoch") for epochs in lengths))
        tables[label] = text_table(header, rows)
    return (titled("validation", front.metric) if tables else "") + _below_names(tables)


def _finalists(front: Front) -> list[Candidate]:
    """Those that came farthest first."""
    found = [one for one in _by_retraining(front) if one.retrainings and one.retrainings[0].short]
    return sorted(found, key=lambda one: one.retrainings[0].place(front.metric))


def _groups(ones: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """The candidates by their recipes, in order."""
    found: dict[str, list[Candidate]] = {}
    for one in ones:
        found.setdefault(_label(one), []).append(one)
    return found


def _below_names(tables: Mapping[str, str]) -> str:
    """Tables below each other; the names are left out where there is one table."""
    if len(tables) < 2:
        return "".join(tables.values())
    return "\n\n".join(f"{name}:\n{table}" for name, table in tables.items())


def titled(split: str, metric: MetricSpec) -> str:
    """The line above a table that says what its figures are; empty for accuracy."""
    return "" if metric == ACCURACY else f"{split} {metric.heading} ({metric.direction} is better)\n"


def score_table(front: Front, most: int = 10) -> str:
    """The non-dominated structures of a search by score, the best `most` of them, best first.

    Rules say so; where some were looked at again, beside it stands the score on images that no trial saw.
    """
    best = ranked(front.points("score"), "score")[:most]
    rows = [
        (
            one.id,
            f"{one.number} {one.rule}".strip(),
            *_costs(one, front.dense),
            significant(one.score),
            "-" if one.confirmed is None else significant(one.confirmed),
        )
        for one in best
    ]
    count = len(SCORED) if any(one.confirmed is not None for one in best) else len(SCORED) - 1
    return text_table(SCORED[:count], [row[:count] for row in rows])


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
        "finalists": [_values(one, front.metric) for one in _finalists(front)],
        **paths,
    }


def _named(one: Candidate) -> tuple[str, str]:
    """The structure's id and the number of its trial."""
    return one.id, str(one.number)


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
        "latency": one.on("latency"),
        **footprint_record(one),
        "score": one.value("score"),
        "cut_accuracy": one.cut_accuracy,
        "refitted_accuracy": one.refitted_accuracy,
        "validation_accuracy": one.value("accuracy"),
        "test_accuracy": one.test_accuracy,
        **training_record(one),
    }
    return by_metric(values, metric)
