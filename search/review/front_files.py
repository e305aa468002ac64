"""Fronts on disk: front.json holds everything and is read back, front.csv is for spreadsheets."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.structure import Structure
from search.formatting import csv_table
from search.review.footprint import Footprint
from search.review.front import Candidate, Front

FORMAT = 1


def rows(front: Front) -> list[dict[str, Any]]:
    """One flat record per candidate, all with the same keys.

    `status` is the place by `front.measure`; `parameter …` was proposed, `width …` is the channels kept in a group.
    """
    parameters = sorted({key for one in front.candidates for key in one.parameters})
    groups = list(dict.fromkeys(name for one in front.candidates if one.structure for name in one.structure.widths))
    table = []
    for one, status in zip(front.candidates, front.statuses(), strict=True):
        cost = one.cost
        row: dict[str, Any] = {
            "study": front.name,
            "trial": one.number,
            "structure": one.id,
            "status": status,
            "macs": cost and cost.macs,
            "params": cost and cost.params,
            "latency": cost and cost.latency,
            "memory": cost and cost.memory,
            "batch_seconds": one.footprint and one.footprint.latency,
            "disk_bytes": one.footprint and one.footprint.disk,
            "score": one.score,
            "accuracy": one.accuracy,
            "test_accuracy": one.test_accuracy,
            "seconds": one.seconds,
            "reason": one.reason,
            "artefact": str(one.artefact) if one.artefact else None,
            "removed": " ".join(one.structure.removed) if one.structure else None,
        }
        row.update({f"parameter {key}": one.parameters.get(key) for key in parameters})
        widths = one.structure.widths if one.structure else {}
        row.update({f"width {name}": widths.get(name) for name in groups})
        table.append(row)
    return table


def save_fronts(fronts: Sequence[Front], folder: str | os.PathLike[str]) -> None:
    """Writes front.json and front.csv of one or several fronts into an existing folder.

    Raises:
        SecateurError: when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SecateurError(f"cannot save a front to {str(folder)!r}: the folder does not exist")
    record = {"format": FORMAT, "fronts": [_front_record(front, folder) for front in fronts]}
    write_text(folder / "front.json", json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
    write_text(folder / "front.csv", csv_table([row for front in fronts for row in front.rows()], ("study", "trial")))


def load_fronts(folder: str | os.PathLike[str]) -> tuple[Front, ...]:
    """Reads the fronts that `save_fronts` wrote; paths of artefacts are taken relative to `folder`.

    Raises:
        SecateurError: when front.json is missing, of another format, or not a front.
    """
    path = Path(folder) / "front.json"
    if not path.is_file():
        raise SecateurError(f"no front in {str(folder)!r}: {path.name} is missing; Front.save writes it")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise SecateurError(f"{str(path)!r} has format {record['format']}; this version reads format {FORMAT}")
        return tuple(_front(one, Path(folder)) for one in record["fronts"])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if isinstance(error, SecateurError):
            raise
        raise SecateurError(f"{str(path)!r} is not a front: {error!r}; Front.save writes one") from None


def _front_record(front: Front, folder: Path) -> dict[str, Any]:
    graphs = {one.structure.graph: [name for name, _ in one.structure.kept] for one in _all(front) if one.structure}
    return {
        "name": front.name,
        "scorer": front.scorer,
        "caps": list(front.caps),
        "graphs": graphs,
        "dense": _candidate_record(front.dense, folder),
        "candidates": [_candidate_record(one, folder) for one in front.candidates],
        "baselines": [_candidate_record(one, folder) for one in front.baselines],
    }


def _front(record: Mapping[str, Any], folder: Path) -> Front:
    graphs = record["graphs"]
    return Front(
        name=record["name"],
        dense=_candidate(record["dense"], graphs, folder),
        candidates=tuple(_candidate(one, graphs, folder) for one in record["candidates"]),
        scorer=record["scorer"],
        caps=tuple(int(cap) for cap in record["caps"]),
        baselines=tuple(_candidate(one, graphs, folder) for one in record["baselines"]),
    )


def _candidate_record(one: Candidate, folder: Path) -> dict[str, Any]:
    return {
        "number": one.number,
        "label": one.label,
        "id": one.id,
        "structure": _structure_record(one.structure),
        "parameters": {key: _finite(value) for key, value in one.parameters.items()},
        "cost": asdict(one.cost) if one.cost else None,
        "score": _finite(one.score),
        "accuracy": _finite(one.accuracy),
        "test_accuracy": _finite(one.test_accuracy),
        "seconds": one.seconds,
        "reason": one.reason,
        "artefact": _relative(one.artefact, folder),
        "footprint": asdict(one.footprint) if one.footprint else None,
    }


def _candidate(record: Mapping[str, Any], graphs: Mapping[str, Sequence[str]], folder: Path) -> Candidate:
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
        footprint=Footprint(**record["footprint"]) if record["footprint"] else None,
        label=record["label"],
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


def _all(front: Front) -> tuple[Candidate, ...]:
    return (front.dense, *front.candidates, *front.baselines)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _relative(path: Path | None, folder: Path) -> str | None:
    """Relative to the run folder when it lies inside, so that a run can be moved as a whole."""
    if path is None:
        return None
    inside = path.resolve().is_relative_to(folder.resolve())
    return path.resolve().relative_to(folder.resolve()).as_posix() if inside else str(path.resolve())
