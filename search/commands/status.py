"""`secateur status`: what a study is at, from its storage alone."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.commands.options import FOLDERS, add_path
from search.run.console import Console
from search.run.folder import find_run
from search.study.stored import status

SUMMARY = "what a study is at, also while others work on it"
DESCRIPTION = """\
Prints trials, best score, workers and retrainings of a study, read from its
storage alone; nothing is loaded, changed or waited for.

  secateur status runs/digits
  secateur status postgresql+psycopg://user@host/studies --name digits"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_path(parser, "place", offers=FOLDERS, type=str, metavar="RUN|URL", help="a run folder, or the URL of a storage")
    parser.add_argument("--name", metavar="NAME", help="of the study, where a storage has several")


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prints the state."""
    place: str = arguments.place
    url = place if "://" in place else find_run(Path(place))[0].storage
    found = status(url, arguments.name)
    console.result(str(found))
    return asdict(found)
