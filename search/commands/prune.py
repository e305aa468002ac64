"""`secateur prune`: a smaller network at once, without any training."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import add_device, add_fork, add_jobs, add_study, add_top, add_trials, forked, opened
from search.run.console import Console
from search.run.dense import check_trained
from search.run.stages import run_study

SUMMARY = "search and refit: a smaller network at once, no training"
DESCRIPTION = """\
Searches for structures within the budget and refits the best of them in closed
form to what the dense network computes, so that they work as they are. Nothing
is trained; labels are looked at only to say how accurate the networks are and
which is the best, on the validation images. The dense network must be there: a
[model] checkpoint, or the dense.safetensors of a run.

  secateur prune study.toml
  secateur retrain runs/<name>      if that is not accurate enough

The network is runs/<name>/refitted.safetensors."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_study(parser)
    add_trials(parser)
    add_top(parser)
    add_device(parser)
    add_jobs(parser)
    add_fork(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Runs the search and the refitting."""
    folder, study = opened(arguments)
    check_trained(study, folder, "`secateur prune` trains nothing, so it needs a dense network that is trained")
    how: dict[str, Any] = {"jobs": arguments.jobs, "fork": forked(arguments)}
    return run_study(study, folder, console, stages=("search", "refit"), device=arguments.device, **how)
