"""`secateur report`: the page and the pictures of one run or several, from what the runs have stored."""

from __future__ import annotations

import argparse
from typing import Any

from backbones.errors import SecateurError
from search.commands.options import FOLDERS, add_path
from search.run.console import Console
from search.run.folder import find_run
from search.run.pages import joint_report, run_report

SUMMARY = "write the report of one run, or of several overlaid"
DESCRIPTION = """\
Writes report.html (one file, no network needed) again from what a run has
stored, beside it every plot as PNG and SVG (plots/, front.png, front.svg) and
every table as CSV and JSON (front.csv, front.json, tables/, report.json).
Several runs are drawn over each other in a folder of their own.

  secateur report runs/digits
  secateur report runs/small runs/large -o compared"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_path(parser, "runs", offers=FOLDERS, nargs="+", metavar="RUN", help="run folders, runs/<name>")
    add_path(parser, "--output", "-o", offers=FOLDERS, metavar="DIR", help="where to (the run folder itself)")


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Writes the report."""
    folders = [find_run(path)[0] for path in arguments.runs]
    if len(folders) > 1 and arguments.output is None:
        raise SecateurError(f"{len(folders)} runs in one report need a folder of their own; give one with --output DIR")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    output = arguments.output or folders[0].path
    page = run_report(folders[0], output) if len(folders) == 1 else joint_report(folders, output)
    console.result(f"wrote {page}")
    return {"report": str(page)}
