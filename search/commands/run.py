"""`secateur run`: everything, from the study file to the report."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import (
    add_device,
    add_fork,
    add_jobs,
    add_retraining,
    add_study,
    add_trials,
    forked,
    opened,
)
from search.run.console import Console
from search.run.stages import ALL, run_study

SUMMARY = "train or load, search, retrain, report; again: go on"
DESCRIPTION = """\
Runs a study from beginning to end in runs/<name>: trains the dense network
(or loads its checkpoint), searches for structures within the budget, refits the
best in closed form (runs/<name>/refitted.safetensors, usable at once), retrains
and tests them, writes the report. What an earlier run of the same study has
done is not done again.

  secateur run study.toml
  secateur run study.toml --trials 1000     a longer search, going on"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_study(parser)
    add_trials(parser)
    add_retraining(parser)
    add_device(parser)
    add_jobs(parser)
    add_fork(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Runs every stage."""
    folder, study = opened(arguments)
    how: dict[str, Any] = {"jobs": arguments.jobs, "fork": forked(arguments)}
    return run_study(study, folder, console, stages=ALL, device=arguments.device, **how)
