"""`secateur resume`: goes on with a run, from its folder alone."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import add_device, add_jobs, add_retraining, add_run, add_trials, reopened
from search.run.console import Console
from search.run.stages import ALL, run_study

SUMMARY = "go on with a run that was stopped"
DESCRIPTION = """\
Does what is still to do in a run folder: trials, refitting, retraining, report.
A search that was killed gives the same finished trials as one that never was.

  secateur resume runs/digits
  secateur resume runs/digits --trials 1000"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_run(parser)
    add_trials(parser)
    add_retraining(parser)
    add_device(parser)
    add_jobs(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Runs every stage that is not finished."""
    folder, study = reopened(arguments)
    return run_study(study, folder, console, stages=ALL, device=arguments.device, jobs=arguments.jobs)
