"""The report of a run folder: what the folder has stored, gathered into page and pictures (`search.review.report`)."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.version import VERSION
from search.formatting import counted
from search.review.candidate import Candidate
from search.review.front import Front
from search.review.records import training_record
from search.review.report import Facts, Report
from search.review.report_files import write_report
from search.run.dense import read_gammas
from search.run.folder import NOTED_LIBRARIES, RunFolder
from search.study.storage import quiet
from search.study.stored import status

ENOUGH, MOST = 20, 1000
COUNTED = ("scored", "infeasible")
SHOWN = {
    "best network": "best.safetensors",
    "best network before any training": "refitted.safetensors",
    "where the best network comes from and what it does": "best.json",
    "dense network": "dense.safetensors",
    "trials with parameters and widths (CSV)": "front.csv",
    "everything (JSON)": "front.json",
    "study file": "study.toml",
    "trials (Optuna)": "study.db",
    "record": "run.json",
    "batch-norm scales": "gammas.json",
}


def run_report(folder: RunFolder, output: Path | None = None, *, anew: bool = True) -> Path:
    """Writes the report of one run.

    Args:
        folder: the run.
        output: an existing folder; the run's own when not given.
        anew: also where nothing of what it shows has changed since, but for commands and how long stages took.

    Returns:
        the path of the page.

    Raises:
        SecateurError: when the run has no front yet, or its files cannot be read.
    """
    front = _front(folder)
    place = folder.path if output is None else output.resolve()
    facts = _facts(folder, front, place)
    shown = (
        VERSION,
        front.dense,
        front.baselines,
        front.rows(),
        facts.histories,
        facts.importances,
        facts.links,
        sorted(facts.gammas),
    )
    key = hashlib.sha256(repr(shown).encode()).hexdigest()
    there = [
        folder.report,
        *(folder.path / name for name in ("front.png", "front.svg", "report.json", "plots/plots.json")),
    ]
    if not anew and folder.record().get("reported") == key and all(path.is_file() for path in there):
        return folder.report
    page = write_report(Report((front,), facts={front.name: facts}), place)
    if output is None:
        folder.note(reported=key)
    return page


def joint_report(folders: Sequence[RunFolder], output: Path) -> Path:
    """Writes one report over several runs, drawn over each other, into an existing folder.

    Runs of the same name are told apart by the folder that they lie in.

    Raises:
        SecateurError: as `run_report`.
    """
    fronts = [_front(folder) for folder in folders]
    counts = Counter(front.name for front in fronts)
    named, facts = [], {}
    for folder, front in zip(folders, fronts, strict=True):
        name = front.name if counts[front.name] == 1 else folder.shown
        named.append(replace(front, name=name))
        facts[name] = _facts(folder, front, output.resolve())
    return write_report(Report(tuple(named), facts=facts), output)


def _front(folder: RunFolder) -> Front:
    """The front that a run has written.

    Raises:
        SecateurError: when it has none yet; how far the run is, is told.
    """
    if (folder.path / "front.json").is_file():
        return Front.load(folder.path)
    study = folder.study()
    try:
        found = status(folder.storage, study.name)
        trials = sum(count for state, count in found.trials.items() if state in COUNTED)
        far = f"its search has {trials} of {study.search.trials} trials"
        if found.retrained:
            done, now = (found.retrained.get(state, 0) for state in ("scored", "running"))
            far += f", {counted(done, 'retraining')} done and {now} running"
    except SecateurError:
        far = "its search has not begun" + ("" if folder.dense.is_file() else ", its dense network is not trained")
    raise SecateurError(
        f"{folder.shown} has no front to report yet: {far}; a run writes it after its search, `secateur resume "
        f"{folder.shown}` goes on with one that was stopped"
    )


def _facts(folder: RunFolder, front: Front, place: Path) -> Facts:
    """What the run's folder knows beside its front; links are relative to `place`."""
    record = folder.record()
    versions, environment = _environment(record)
    last = environment.pop("command", "")
    paths = {label: folder.path / name for label, name in SHOWN.items()}
    for one in front.with_all_retrainings().candidates:
        if one.artefact is not None:
            paths[f"network of {one.name}{_recipe_of(one, front)}"] = one.artefact
    return Facts(
        histories=histories(folder, front),
        gammas=read_gammas(folder),
        stages=record.get("seconds", {}),
        importances=record.get("importances", {}),
        commands=record.get("commands", [last] if last else []),
        versions=versions,
        environment=environment,
        links={label: _relative(path, place) for label, path in paths.items() if path.is_file()},
    )


def histories(folder: RunFolder, front: Front) -> dict[str, list[dict[str, Any]]]:
    """Structure id, or `dense`, -> one row per epoch of its training (of an iterative flow's last step), as numbers.

    Of a structure that was retrained by several recipes, the id is followed by the recipe. Short trainings that decided
    between finalists are left out.
    """
    paths = {"dense": folder.path / "dense" / "history.csv"}
    for one in front.with_all_retrainings().candidates:
        if one.artefact is not None:
            for path in sorted((folder.path / "retrain" / one.artefact.parent.name).glob("*/history.csv")):
                paths[f"{one.id}{_recipe_of(one, front)}"] = path
    found = {}
    for name, path in paths.items():
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                found[name] = [
                    {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)
                ]
    return found


def _recipe_of(one: Candidate, front: Front) -> str:
    """What tells a retraining from others: its recipe, where there are several."""
    return f", {one.retrainings[0].label}" if one.retrainings and len(front.recipes) > 1 else ""


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
    names = ("secateur", "python", *NOTED_LIBRARIES)
    return {key: facts[key] for key in names if key in facts}, {k: v for k, v in facts.items() if k not in names}


def _relative(path: Path, start: Path) -> str:
    """The path from one folder to a file as a link on a page is written, upwards too."""
    return Path(os.path.relpath(path, start)).as_posix()


def write_card(front: Front, one: Candidate, folder: RunFolder) -> Path:
    """Writes the model card `best.json` beside the best network: where it comes from and what it does, as plain values.

    Data, budget, recipe and seeds are those of the study file; the metric is that of the task.

    Args:
        front: holds the dense network to compare with.
        one: the best candidate.
        folder: of the run.
    """
    record, pair = folder.record(), {"dense": front.dense, "network": one}
    card = {
        "network": folder.best.name,
        "structure": one.id,
        "trial": one.number,
        "metric": asdict(front.metric),
        "cost": {name: each.cost and asdict(each.cost) for name, each in pair.items()},
        "footprint": {name: each.footprint and asdict(each.footprint) for name, each in pair.items()},
        "validation": {
            "dense": front.dense.accuracy,
            "as_cut": one.cut_accuracy,
            "refitted": one.refitted_accuracy,
            "retrained": one.accuracy,
        },
        "test": {"dense": front.dense.test_accuracy, "retrained": one.test_accuracy},
        "training": training_record(one),
        "study": tomllib.loads(folder.study_file.read_text(encoding="utf-8")),
        "environment": record.get("environment"),
        "commands": record.get("commands"),
    }
    path = folder.best.with_suffix(".json")
    write_text(path, json.dumps(card, indent=2, default=str) + "\n")
    return path
