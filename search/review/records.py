"""Candidates as rows: a line in the table of results, a row of a spreadsheet, plain values for a JSON file and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.cost_table import Cost
from backbones.structure import Structure
from search.data.task import ACCURACY, MetricSpec
from search.formatting import amount
from search.review.candidate import Candidate, Refit, Retraining
from search.review.footprint import Footprint, footprint_cells


def flat_record(one: Candidate) -> dict[str, Any]:
    """What was measured of a candidate, a value a column; proposed parameters and widths are left to the caller."""
    cost = one.cost
    return {
        "macs": cost and cost.macs,
        "params": cost and cost.params,
        "latency": cost and cost.latency,
        "memory": cost and cost.memory,
        **footprint_record(one),
        "score": one.score,
        "confirmed": one.confirmed,
        "cut_accuracy": one.cut_accuracy,
        "refitted_accuracy": one.refitted_accuracy,
        "accuracy": one.accuracy,
        "test_accuracy": one.test_accuracy,
        **training_record(one),
        "seconds": one.seconds,
        "reason": one.reason,
        "artefact": str(one.artefact) if one.artefact else None,
        "removed": " ".join(one.structure.removed) if one.structure else None,
    }


def changes(dense: Candidate, one: Candidate) -> dict[str, float | None]:
    """What was gained or lost against the dense network on each split, as fractions; None where one is not known."""
    pairs = {"accuracy": (one.accuracy, dense.accuracy), "test_accuracy": (one.test_accuracy, dense.test_accuracy)}
    return {
        f"{name}_change": None if mine is None or theirs is None else mine - theirs
        for name, (mine, theirs) in pairs.items()
    }


def footprint_record(one: Candidate) -> dict[str, Any]:
    """What was measured of a network's speed and size, and what of it a latency budget allows."""
    found = one.footprint
    return {
        "batch_seconds": found and found.latency,
        "single_seconds": found and found.single,
        "latency_limit": found and found.limit,
        "over_latency": None if found is None or found.limit is None else found.over,
        "disk_bytes": found and found.disk,
    }


def training_record(one: Candidate) -> dict[str, Any]:
    """By which recipe a candidate was retrained, and how far; of several the one that it shows."""
    shown = one.retrainings[0] if one.retrainings else None
    return {
        "training": shown and shown.label,
        "epochs": shown and shown.epochs,
        "start": shown and shown.recipe.get("start"),
        "reached_epochs": shown and shown.reached,
        "accuracy_by_epochs": shown and " ".join(f"{epochs}:{accuracy:.6g}" for epochs, accuracy in shown.rungs),
    }


def candidate_record(one: Candidate, folder: Path) -> dict[str, Any]:
    """One candidate as plain values; `read_candidate` reads them back.

    Args:
        one: the candidate.
        folder: where the record will lie; the path of a network inside it is written relative to it.
    """
    return {
        "number": one.number,
        "label": one.label,
        "id": one.id,
        "structure": _structure_record(one.structure),
        "parameters": {key: _finite(value) for key, value in one.parameters.items()},
        "cost": asdict(one.cost) if one.cost else None,
        "score": _finite(one.score),
        "confirmed": _finite(one.confirmed),
        "rule": one.rule,
        "accuracy": _finite(one.accuracy),
        "test_accuracy": _finite(one.test_accuracy),
        "seconds": one.seconds,
        "reason": one.reason,
        "artefact": _relative(one.artefact, folder),
        "retrainings": [_retraining_record(training, folder) for training in one.retrainings],
        "refit": one.refit and {**asdict(one.refit), "artefact": _relative(one.refit.artefact, folder)},
        "footprint": asdict(one.footprint) if one.footprint else None,
    }


def read_candidate(record: Mapping[str, Any], graphs: Mapping[str, Sequence[str]], folder: Path) -> Candidate:
    """The candidate that a record describes.

    Args:
        record: what `candidate_record` made.
        graphs: id of a channel graph -> the names of its groups, in the order of the record's masks.
        folder: where the record lies.
    """
    return Candidate(
        number=int(record["number"]),
        structure=_structure(record["structure"], graphs),
        parameters=dict(record["parameters"]),
        cost=Cost(**record["cost"]) if record["cost"] else None,
        score=record["score"],
        accuracy=record["accuracy"],
        test_accuracy=record["test_accuracy"],
        seconds=float(record["seconds"]),
        reason=record["reason"],
        artefact=folder / record["artefact"] if record["artefact"] else None,
        retrainings=tuple(_retraining(one, graphs, folder) for one in record.get("retrainings", ())),
        refit=_refit(record.get("refit"), folder),
        footprint=Footprint(**record["footprint"]) if record["footprint"] else None,
        label=record["label"],
        rule=record.get("rule", ""),
        confirmed=record.get("confirmed"),
    )


def _retraining_record(one: Retraining, folder: Path) -> dict[str, Any]:
    return {
        "recipe": dict(one.recipe),
        "label": one.label,
        "rungs": [list(rung) for rung in one.rungs],
        "test_accuracy": one.test_accuracy,
        "artefact": _relative(one.artefact, folder),
        "structure": _structure_record(one.structure),
        "cost": asdict(one.cost) if one.cost else None,
    }


def _retraining(record: Mapping[str, Any], graphs: Mapping[str, Sequence[str]], folder: Path) -> Retraining:
    first, *others = ((int(epochs), float(value)) for epochs, value in record["rungs"])
    return Retraining(
        recipe={**record["recipe"], "epochs": int(record["recipe"]["epochs"])},
        label=str(record["label"]),
        rungs=(first, *others),
        test_accuracy=record["test_accuracy"],
        artefact=folder / record["artefact"] if record["artefact"] else None,
        structure=_structure(record["structure"], graphs),
        cost=Cost(**record["cost"]) if record["cost"] else None,
    )


def _structure_record(structure: Structure | None) -> dict[str, Any] | None:
    """Kept channels as hexadecimal masks, bit i for channel i: thousands of structures stay a few megabytes."""
    if structure is None:
        return None
    masks = [format(sum(1 << channel for channel in channels), "x") for _, channels in structure.kept]
    widths = [len(channels) for _, channels in structure.kept]
    return {"graph": structure.graph, "widths": widths, "kept": masks, "removed": list(structure.removed)}


def _structure(record: Mapping[str, Any] | None, graphs: Mapping[str, Sequence[str]]) -> Structure | None:
    if record is None:
        return None
    kept = []
    for name, text in zip(graphs[record["graph"]], record["kept"], strict=True):
        bits = bin(int(text, 16))[:1:-1]
        kept.append((name, tuple(channel for channel, bit in enumerate(bits) if bit == "1")))
    return Structure(record["graph"], tuple(kept), tuple(record["removed"]))


def _refit(record: Mapping[str, Any] | None, folder: Path) -> Refit | None:
    return None if record is None else Refit(**{**record, "artefact": folder / record["artefact"]})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _relative(path: Path | None, folder: Path) -> str | None:
    """Relative to the run folder when it lies inside, so that a run can be moved as a whole."""
    if path is None:
        return None
    inside = path.resolve().is_relative_to(folder.resolve())
    return path.resolve().relative_to(folder.resolve()).as_posix() if inside else str(path.resolve())


def by_metric(record: Mapping[str, Any], metric: MetricSpec) -> dict[str, Any]:
    """The record with the metric's name in the place of "accuracy" in its keys: `test_iou`."""
    return {key.replace("accuracy", metric.key): value for key, value in record.items()}


def headings(metric: MetricSpec) -> tuple[str, ...]:
    """The `HEADINGS`, with the name of a metric that is not accuracy."""
    if metric == ACCURACY:
        return HEADINGS
    return tuple(f"{name} {metric.heading}" if name in ("validation", "test") else name for name in HEADINGS)


HEADINGS = (
    "candidate",
    "MACs",
    "of dense",
    "parameters",
    "ms",
    "size",
    "score",
    "as cut",
    "refitted",
    "validation",
    "test",
    "against dense",
    "training",
    "structure",
)


def result_cells(dense: Candidate, one: Candidate, metric: MetricSpec = ACCURACY) -> tuple[str, ...]:
    """The text below each of the `headings`, with a dash where something was not measured.

    Args:
        dense: the network that the search started from, which shares and differences refer to.
        one: the candidate; may be `dense` itself.
        metric: what accuracies are.
    """
    macs, dense_macs, score = one.on("macs"), dense.on("macs"), one.value("score")
    return (
        one.name,
        long_dash(amount(macs)),
        f"{macs / dense_macs:.1%}" if macs is not None and dense_macs else "–",
        long_dash(amount(one.on("params"))),
        *map(long_dash, footprint_cells(one.footprint, " over budget")),
        "–" if score is None else f"{score:.5g}",
        metric_cell(one.cut_accuracy, metric),
        metric_cell(one.refitted_accuracy, metric),
        metric_cell(one.accuracy, metric),
        metric_cell(one.test_accuracy, metric),
        "" if one is dense else metric_change(dense, one, metric),
        training_text(one, metric),
        one.id or "–",
    )


def metric_change(dense: Candidate, one: Candidate, metric: MetricSpec) -> str:
    """What was gained or lost on the test split against the dense network; on the validation split without test.

    In percentage points, or in the metric's unit.
    """
    for mine, theirs, word in (
        (one.test_accuracy, dense.test_accuracy, "test"),
        (one.accuracy, dense.accuracy, "validation"),
    ):
        if mine is not None and theirs is not None:
            if metric.unit == "%":
                points = round(100 * (mine - theirs), 2)
                return f"{'+' if points > 0 else '−' if points < 0 else '±'}{abs(points):.2f} {word}"
            return f"{metric.change(mine, theirs).replace('-', '−', 1)} {word}"
    return "–"


def training_text(one: Candidate, metric: MetricSpec = ACCURACY) -> str:
    """How long the candidate was retrained, and how it was after each short training: `4 of 16 epochs: 71.20% ...`."""
    if not one.retrainings:
        return "–"
    shown = one.retrainings[0]
    text = shown.label if shown.accuracy is not None else f"{shown.reached} of {shown.label}"
    steps = [f"{metric_cell(value, metric)} after {epochs}" for epochs, value in shown.rungs if epochs < shown.epochs]
    return f"{text}: {', '.join(steps)}" if steps else text


def metric_cell(value: float | None, metric: MetricSpec) -> str:
    """A value of a metric: a percentage of two digits, 97.31%, or a number with its unit; a long dash for None."""
    return "–" if value is None else f"{value:.2%}" if metric.unit == "%" else metric.text(value)


def long_dash(text: str) -> str:
    """The text, with a long dash in the place of a short one that stands alone."""
    return "–" if text == "-" else text
