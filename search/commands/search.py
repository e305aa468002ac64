"""`secateur search`: up to the front of scores and refitted networks, nothing retrained."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import add_device, add_fork, add_jobs, add_study, add_trials, forked, opened
from search.run.console import Console
from search.run.stages import run_study

SUMMARY = "only the search; retrain later"
DESCRIPTION = """\
Searches for structures within the budget, by score, without retraining any,
and refits the best, so that there is a network that works before any training.
Seconds to minutes; repeat with more --trials to go on.

  secateur search study.toml --trials 1000
  secateur retrain runs/<name>"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_study(parser)
    add_trials(parser)
    add_device(parser)
    add_jobs(parser)
    add_fork(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Runs the search, the refitting and their report."""
    folder, study = opened(arguments)
    how: dict[str, Any] = {"jobs": arguments.jobs, "fork": forked(arguments)}
    return run_study(study, folder, console, stages=("search", "refit", "report"), device=arguments.device, **how)
