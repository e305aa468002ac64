"""`secateur work`: one of many workers on a study."""

from __future__ import annotations

import argparse
import os
from typing import Any

from search.commands.options import add_device, add_retraining, add_study, add_trials, opened
from search.run.console import Console
from search.run.stages import join_study

SUMMARY = "search and retrain together with other processes and machines"
DESCRIPTION = """\
One of any number of workers that share a search and then its retraining. Each
scores other structures; the trial of a worker that dies is done by another.
Start as many as there are GPUs or machines; all need the same study file and
the same dense network (a checkpoint, or the run folder of a search).

  secateur work study.toml --storage postgresql+psycopg://user@host/studies
  secateur work study.toml                  several on one machine, SQLite

A storage is sqlite:///FILE, journal:///FILE (both relative; four slashes for
an absolute path) or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE. Keep a
password out of the command line: export SECATEUR_STORAGE instead."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_study(parser)
    add_trials(parser)
    add_retraining(parser)
    add_device(parser)
    parser.add_argument(
        "--storage", metavar="URL", help="shared by all workers ($SECATEUR_STORAGE, else the run folder's study.db)"
    )


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Works until the study is done."""
    folder, study = opened(arguments)
    storage = arguments.storage or os.environ.get("SECATEUR_STORAGE")
    return join_study(study, folder, console, storage=storage, device=arguments.device)
