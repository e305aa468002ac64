"""`secateur completion`: what makes the Tab key of a shell know the commands, options and files."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from search.run.console import Console

SHELLS = ("bash", "zsh", "fish")
SUMMARY = "print what makes Tab complete in bash, zsh or fish"
DESCRIPTION = """\
Prints a script for one shell, to be read when a shell starts: the line for
bash goes into ~/.bashrc, that for zsh into ~/.zshrc (after compinit), that for
fish into ~/.config/fish/config.fish.

  eval "$(secateur completion bash)"
  eval "$(secateur completion zsh)"
  secateur completion fish | source"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prints the script."""
    script = shtab.complete(arguments.brief_parser(), arguments.shell)
    console.result(script)
    return {"shell": arguments.shell, "script": script}
