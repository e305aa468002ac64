"""Commands that do the stages of a run, all or some of them: run, search, prune, resume, retrain, work."""

from __future__ import annotations

import argparse
import os
from typing import Any

from search.commands.options import (
    Command,
    add_all_jobs,
    add_device,
    add_fork,
    add_jobs,
    add_retraining,
    add_run,
    add_study,
    add_top,
    add_training_jobs,
    add_trials,
    forked,
    opened,
    reopened,
)
from search.run.console import Console
from search.run.dense import check_trained
from search.run.stages import ALL, Stage, join_study, run_study


def _begun(
    arguments: argparse.Namespace, console: Console, stages: tuple[Stage, ...], *, untrained: bool = False
) -> dict[str, Any]:
    """Does stages of the study that the arguments name; where nothing may be trained, its dense network must be."""
    folder, study = opened(arguments)
    if untrained:
        check_trained(study, folder, "`secateur prune` trains nothing, so it needs a dense network that is trained")
    how: dict[str, Any] = {"jobs": arguments.jobs, "fork": forked(arguments)}
    return run_study(study, folder, console, stages=stages, device=arguments.device, **how)


def _run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    return _begun(arguments, console, ALL)


RUN = Command(
    "run",
    "train or load, search, retrain, report; again: go on",
    """\
Runs a study from beginning to end in runs/<name>: trains the dense network
(or loads its checkpoint), searches for structures within the budget, refits the
best in closed form (runs/<name>/refitted.safetensors, usable at once), retrains
and tests them, writes the report. What an earlier run of the same study has
done is not done again.

  secateur run study.toml
  secateur run study.toml --trials 1000     a longer search, going on""",
    (add_study, add_trials, add_retraining, add_device, add_all_jobs, add_fork),
    _run,
)


def _search(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    return _begun(arguments, console, ("search", "refit", "report"))


SEARCH = Command(
    "search",
    "only the search; retrain later",
    """\
Searches for structures within the budget, by score, without retraining any,
and refits the best, so that there is a network that works before any training.
Seconds to minutes; repeat with more --trials to go on.

  secateur search study.toml --trials 1000
  secateur retrain runs/<name>""",
    (add_study, add_trials, add_device, add_jobs, add_fork),
    _search,
)


def _prune(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    return _begun(arguments, console, ("search", "refit"), untrained=True)


PRUNE = Command(
    "prune",
    "search and refit: a smaller network at once, no training",
    """\
Searches for structures within the budget and refits the best of them in closed
form to what the dense network computes, so that they work as they are. Nothing
is trained; labels are looked at only to say how accurate the networks are and
which is the best, on the validation images. The dense network must be there: a
[model] checkpoint, or the dense.safetensors of a run.

  secateur prune study.toml
  secateur retrain runs/<name>      if that is not accurate enough

The network is runs/<name>/refitted.safetensors.""",
    (add_study, add_trials, add_top, add_device, add_jobs, add_fork),
    _prune,
)


def _resume(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folder, study = reopened(arguments)
    return run_study(study, folder, console, stages=ALL, device=arguments.device, jobs=arguments.jobs)


RESUME = Command(
    "resume",
    "go on with a run that was stopped",
    """\
Does what is still to do in a run folder: trials, refitting, retraining, report.
A search that was killed gives the same finished trials as one that never was.

  secateur resume runs/digits
  secateur resume runs/digits --trials 1000""",
    (add_run, add_trials, add_retraining, add_device, add_all_jobs),
    _resume,
)


def _retrain(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folder, study = reopened(arguments)
    stages: tuple[Stage, ...] = ("refit", "retrain", "report")
    return run_study(study, folder, console, stages=stages, device=arguments.device, jobs=arguments.jobs)


RETRAIN = Command(
    "retrain",
    "retrain the best structures of a run",
    """\
Retrains the best structures found so far, tests them and renews the report.
Each epoch is kept: a retraining that was killed loses at most one. Another
recipe adds its results to the study; tables and report show them side by side.

  secateur retrain runs/digits --top 5
  secateur retrain runs/digits --epochs 80
  secateur retrain runs/digits --top 1 --finalists 8""",
    (add_run, add_retraining, add_device, add_training_jobs),
    _retrain,
)


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage", metavar="URL", help="shared by all workers ($SECATEUR_STORAGE, else the run folder's study.db)"
    )


def _work(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folder, study = opened(arguments)
    storage = arguments.storage or os.environ.get("SECATEUR_STORAGE")
    return join_study(study, folder, console, storage=storage, device=arguments.device)


WORK = Command(
    "work",
    "search and retrain together with other processes and machines",
    """\
One of any number of workers that share a search and then its retraining. Each
scores other structures; the trial of a worker that dies is done by another.
Start as many as there are GPUs or machines; all need the same study file and
the same dense network (a checkpoint, or the run folder of a search).

  secateur work study.toml --storage postgresql+psycopg://user@host/studies
  secateur work study.toml                  several on one machine, SQLite

A storage is sqlite:///FILE, journal:///FILE (both relative; four slashes for
an absolute path) or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE. Keep a
password out of the command line: export SECATEUR_STORAGE instead.""",
    (add_study, add_trials, add_retraining, add_device, _add_storage),
    _work,
)
