"""`secateur retrain`: trains the best structures of a finished search."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import add_device, add_retraining, add_run, reopened
from search.run.console import Console
from search.run.stages import run_study

SUMMARY = "retrain the best structures of a run"
DESCRIPTION = """\
Retrains the best structures found so far, tests them and renews the report.
Each epoch is kept: a retraining that was killed loses at most one. Another
recipe adds its results to the study; tables and report show them side by side.

  secateur retrain runs/digits --top 5
  secateur retrain runs/digits --epochs 80
  secateur retrain runs/digits --top 1 --finalists 8"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_run(parser)
    add_retraining(parser)
    add_device(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Runs the retraining and the report."""
    folder, study = reopened(arguments)
    return run_study(study, folder, console, stages=("refit", "retrain", "report"), device=arguments.device)
