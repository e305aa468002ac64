"""What a report shows, as tables for scripts: `tables/NAME.csv`, and all of them in `report.json`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from backbones.files import write_text
from search.formatting import csv_table
from search.review.candidate import Candidate
from search.review.figures import training_rows
from search.review.report import Report

TABLES_FOLDER = "tables"
Table = list[dict[str, Any]]


def write_tables(report: Report, folder: Path) -> list[str]:
    """Writes the tables that have rows, and report.json, into an existing folder; tables without any are removed.

    Trials with all their parameters and widths are in front.csv and front.json.

    Returns:
        the paths of the CSV files relative to `folder`.
    """
    place = folder / TABLES_FOLDER
    place.mkdir(exist_ok=True)
    tables = {
        "compared": _compared(report),
        "curves": [{"network": name, **row} for name, rows in training_rows(report).items() for row in rows],
        "importances": _pairs(report, "importances", "parameter", "share"),
        "stages": _pairs(report, "stages", "stage", "seconds"),
        "gammas": _gammas(report),
        "environment": _environment(report),
    }
    written = []
    for name, rows in tables.items():
        path = place / f"{name}.csv"
        if rows:
            write_text(path, csv_table(rows))
            written.append(f"{TABLES_FOLDER}/{name}.csv")
        else:
            path.unlink(missing_ok=True)
    plain = {
        name: [{key: _plain(value) for key, value in row.items()} for row in rows] for name, rows in tables.items()
    }
    studies = [front.name for front in report.fronts]
    write_text(folder / "report.json", json.dumps({"studies": studies, **plain}, allow_nan=False) + "\n")
    return written


def _compared(report: Report) -> Table:
    """The dense network, the baselines and everything refitted or retrained: what a result table needs."""
    table = []
    for front in report.fronts:
        made = [one for one in front.candidates if one.accuracy is not None or one.refit is not None]
        table += [
            {"study": front.name, "network": one.name, "structure": one.id, **_measured(one)}
            for one in (front.dense, *front.baselines, *made)
        ]
    return table


def _measured(one: Candidate) -> dict[str, Any]:
    return {
        "macs": one.on("macs"),
        "params": one.on("params"),
        "latency": one.on("latency"),
        "memory": one.on("memory"),
        "batch_seconds": one.on("batch_seconds"),
        "disk_bytes": one.footprint and one.footprint.disk,
        "score": one.value("score"),
        "cut_accuracy": one.cut_accuracy,
        "refitted_accuracy": one.refitted_accuracy,
        "accuracy": one.value("accuracy"),
        "test_accuracy": one.test_accuracy,
        "reason": one.reason,
    }


def _pairs(report: Report, of: str, key: str, value: str) -> Table:
    return [
        {"study": front.name, key: name, value: number}
        for front in report.fronts
        for name, number in getattr(report.facts_of(front), of).items()
    ]


def _gammas(report: Report) -> Table:
    return [
        {"study": front.name, "stage": stage, "layer": layer, "channel": channel, "gamma": value}
        for front in report.fronts
        for stage, layers in report.facts_of(front).gammas.items()
        for layer, scales in layers.items()
        for channel, value in enumerate(scales.tolist())
    ]


def _environment(report: Report) -> Table:
    table = []
    for front in report.fronts:
        facts = report.facts_of(front)
        table += [{"study": front.name, "item": "command", "value": command} for command in facts.commands]
        table += [
            {"study": front.name, "item": item, "value": value}
            for item, value in {**facts.versions, **facts.environment}.items()
        ]
    return table


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
