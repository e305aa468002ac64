"""`secateur init`: a commented study file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError
from backbones.files import write_text
from search.commands.options import STUDIES, add_path
from search.run.console import Console
from search.run.template import EXAMPLE_FILES, example_file, template

SUMMARY = "write a commented study file to start from"
DESCRIPTION = (
    "Writes a study file that runs as it is (on digits), with every key explained.\n"
    "With --task it has a Python file beside it, with network, data, loss and metric,\nto put your own into."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_path(parser, "path", offers=STUDIES, nargs="?", default=Path("study.toml"), help="the file (study.toml)")
    tasks = ", ".join(EXAMPLE_FILES)
    parser.add_argument("--task", choices=EXAMPLE_FILES, metavar="TASK", help=f"an example of your own task: {tasks}")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Writes the file, or both."""
    path: Path = arguments.path
    texts = {path: template(arguments.task)}
    if arguments.task is not None:
        texts[path.parent / EXAMPLE_FILES[arguments.task]] = example_file(arguments.task)
    for one in texts:
        if one.exists() and not arguments.force:
            raise SecateurError(f"{one} exists; choose another name, or --force to replace it")
    if not path.parent.is_dir():
        raise SecateurError(f"{path} cannot be written: the folder {path.parent} does not exist")
    for one, text in texts.items():
        write_text(one, text)
    console.result(f"wrote {' and '.join(map(str, texts))}; to run it: secateur run {path}")
    return {"study": str(path), "files": [str(one) for one in texts]}
