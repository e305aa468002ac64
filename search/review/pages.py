"""The report of a run folder: what the folder has stored, gathered into page and pictures (`search.review.report`)."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from search.review.front import Front
from search.review.report import Report, write_report
from search.run.folder import LIBRARIES, RunFolder
from search.study.ledger import quiet
from search.training.gammas import read_gammas

ENOUGH, MOST = 20, 1000
SHOWN = {
    "best network": "best.safetensors",
    "dense network": "dense.safetensors",
    "study file": "study.toml",
    "trials": "study.db",
    "record": "run.json",
    "table": "front.csv",
}


def run_report(folder: RunFolder, output: Path | None = None) -> Path:
    """Writes the report of one run.

    Args:
        folder: the run.
        output: an existing folder; the run's own when not given.

    Returns:
        the path of the page.

    Raises:
        SecateurError: when the run has no front yet, or its files cannot be read.
    """
    front = Front.load(folder.path)
    record = folder.record()
    versions, environment = _environment(record)
    place = folder.path if output is None else output.resolve()
    links = {label: _relative(folder.path / name, place) for label, name in SHOWN.items()}
    report = Report(
        fronts=(front,),
        histories=histories(folder),
        stages=record.get("seconds", {}),
        gammas=read_gammas(folder),
        importances=record.get("importances", {}),
        command=environment.pop("command", ""),
        versions=versions,
        environment=environment,
        links={label: path for label, path in links.items() if (place / path).is_file()},
    )
    return write_report(report, place)


def joint_report(folders: Sequence[RunFolder], output: Path) -> Path:
    """Writes one report over several runs, drawn over each other, into an existing folder.

    Raises:
        SecateurError: as `run_report`.
    """
    return write_report(Report(fronts=tuple(Front.load(folder.path) for folder in folders)), output)


def histories(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """Structure id, or `dense`, -> one row per epoch of its training (of an iterative flow's last step), as numbers."""
    found = {}
    for path in [folder.path / "dense" / "history.csv", *sorted((folder.path / "retrain").glob("*/*/history.csv"))]:
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
            name = path.parent.name if path.parent.name == "dense" else path.parent.parent.name.partition("-")[0]
            found[name] = rows
    return found


def importances(study: optuna.Study) -> dict[str, float]:
    """Parameter -> share of the score's variation that it explains (fANOVA); empty with too few trials to tell."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < ENOUGH or len({trial.values[0] for trial in done}) < 2 or len(done[0].params) < 2:
        return {}
    with quiet():
        sample = optuna.create_study(directions=list(study.directions))
        sample.add_trials(done[-MOST:])
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(sample, evaluator=evaluator, target=lambda trial: trial.values[0])


def _environment(record: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Library versions, and the rest of what `search.run.folder.environment` noted."""
    facts = {key: str(value) for key, value in record.get("environment", {}).items()}
    names = ("secateur", "python", *LIBRARIES)
    return {key: facts[key] for key in names if key in facts}, {k: v for k, v in facts.items() if k not in names}


def _relative(path: Path, start: Path) -> str:
    """From one place to another, upwards too, as a link on a page is written."""
    return Path(os.path.relpath(path, start)).as_posix()
