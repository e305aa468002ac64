"""What a command is, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import shtab

from search.run.console import Console
from search.run.folder import RunFolder, find_run, open_run
from search.run.study_file import StudyFile, read_study
from search.study.retraining_task import STARTS

STUDIES, FOLDERS = shtab.glob("*.toml"), shtab.DIRECTORY
"""What the Tab key of a shell offers for an argument (`secateur completion`)."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: the word behind `secateur`.
        summary: its line in `secateur --help`.
        description: what `--help` of the command says, within 80 columns.
        arguments: declare its arguments, one or a few each, in the order in which they are shown.
        execute: does the work; returns what `--json` prints.
    """

    name: str
    summary: str
    description: str
    arguments: Sequence[Callable[[argparse.ArgumentParser], None]]
    execute: Callable[[argparse.Namespace, Console], dict[str, Any]]


def add_path(parser: argparse.ArgumentParser, *names: str, offers: Any, **options: Any) -> None:
    """Declares an argument that names a file or folder.

    Args:
        parser: the command's parser.
        names: names of the argument, as `add_argument` takes them.
        offers: what the Tab key offers: `STUDIES` or `FOLDERS`.
        options: further options of `add_argument`.
    """
    action: Any = parser.add_argument(*names, **{"type": Path, **options})
    action.complete = offers


def add_study_file(parser: argparse.ArgumentParser) -> None:
    """Declares `STUDY.toml` and `--scale`."""
    add_path(parser, "study", offers=STUDIES, metavar="STUDY.toml", help="`secateur init` writes one")
    parser.add_argument("--scale", metavar="NAME", help="which of the study's [scales], such as small or full")


def add_study(parser: argparse.ArgumentParser) -> None:
    """Declares `STUDY.toml`, `--scale` and `--runs`."""
    add_study_file(parser)
    add_path(parser, "--runs", offers=FOLDERS, default=Path("runs"), metavar="DIR", help="holds all run folders (runs)")


def add_trials(parser: argparse.ArgumentParser) -> None:
    """Declares `--trials`: how many the search makes."""
    parser.add_argument("--trials", type=int, metavar="N", help="instead of [search] trials")


def add_top(parser: argparse.ArgumentParser) -> None:
    """Declares `--top`: how many structures are the best."""
    parser.add_argument("--top", type=int, metavar="K", help="instead of [retrain] top")


def add_retraining(parser: argparse.ArgumentParser) -> None:
    """Declares what is retrained and how: `--top`, `--finalists`, `--epochs`, `--start`."""
    add_top(parser)
    parser.add_argument("--finalists", type=int, metavar="N", help="instead of [retrain] finalists")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="instead of [retrain] epochs; its lr changes with the length"
    )
    parser.add_argument("--start", choices=STARTS, help="instead of [retrain] start")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declares `--device`: where networks are trained and scored."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, …; auto takes a GPU when there is one")


def add_jobs(parser: argparse.ArgumentParser, what: str = "structures scored") -> None:
    """Declares `--jobs`: how many of `what` are done at the same time."""
    _declare_jobs(parser, f"{what} at the same time (1)", 1)


def add_all_jobs(parser: argparse.ArgumentParser) -> None:
    """Declares `--jobs` of commands that score and retrain: left out, each is done as is best."""
    _declare_jobs(parser, "structures scored (1), then retrained (as many as pay), at the same time")


def add_training_jobs(parser: argparse.ArgumentParser) -> None:
    """Declares `--jobs` of a command that retrains: left out, as many are trained at the same time as pay."""
    _declare_jobs(parser, "structures retrained at the same time (as many as pay)")


def _declare_jobs(parser: argparse.ArgumentParser, what: str, default: int | None = None) -> None:
    parser.add_argument("--jobs", type=_count, default=default, metavar="N", help=what)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, but got {text!r}")
    return int(text)


def add_fork(parser: argparse.ArgumentParser) -> None:
    """Declares `--fork`: a run whose scores a new run begins with."""
    add_path(
        parser, "--fork", offers=FOLDERS, metavar="RUN", help="begin with the scores of another run of the same network"
    )


def forked(arguments: argparse.Namespace) -> RunFolder | None:
    """The run folder that `--fork` names, None where it is not given."""
    return None if arguments.fork is None else find_run(arguments.fork)[0]


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declares `RUN`: a folder that `secateur run` or `secateur search` made."""
    add_path(parser, "run", offers=FOLDERS, metavar="RUN", help="a run folder, runs/<name>")


def changed(study: StudyFile, arguments: argparse.Namespace) -> StudyFile:
    """The study with what the options ask for, checked as if it stood in the file."""
    if getattr(arguments, "trials", None) is not None:
        study = dataclasses.replace(study, search=dataclasses.replace(study.search, trials=arguments.trials))
    asked = {name: getattr(arguments, name, None) for name in ("top", "finalists", "start", "epochs")}
    given = {name: value for name, value in asked.items() if value is not None}
    if "epochs" in given:
        given["recipe"] = study.retrain.recipe.in_epochs(given.pop("epochs"))
    return dataclasses.replace(study, retrain=dataclasses.replace(study.retrain, **given))


def opened(arguments: argparse.Namespace) -> tuple[RunFolder, StudyFile]:
    """The study that the arguments name, and its run folder."""
    study = changed(read_study(arguments.study, arguments.scale), arguments)
    return open_run(arguments.runs, study, arguments.study)


def reopened(arguments: argparse.Namespace) -> tuple[RunFolder, StudyFile]:
    """The run folder that the arguments name, and its study; what they change is noted there for the next time."""
    folder, stored = find_run(arguments.run)
    study = changed(stored, arguments)
    folder.moved_here(study)
    return folder, study
