"""`secateur init`: a commented study file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError
from backbones.files import write_text
from search.commands.options import STUDIES, add_path
from search.run.console import Console
from search.run.template import template

SUMMARY = "write a commented study file to start from"
DESCRIPTION = "Writes a study file that runs as it is (on digits), with every key explained."


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_path(parser, "path", offers=STUDIES, nargs="?", default=Path("study.toml"), help="the file (study.toml)")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Writes the file."""
    path: Path = arguments.path
    if path.exists() and not arguments.force:
        raise SecateurError(f"{path} exists; choose another name, or --force to replace it")
    if not path.parent.is_dir():
        raise SecateurError(f"{path} cannot be written: the folder {path.parent} does not exist")
    write_text(path, template())
    console.result(f"wrote {path}; to run it: secateur run {path}")
    return {"study": str(path)}
