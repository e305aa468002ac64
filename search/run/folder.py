"""The folder of one run: what lies where, whose it is, and what is known about how it came about."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.version import VERSION
from search.checks import check_study_name
from search.run.sections import NO_REMOVAL
from search.run.study_file import StudyFile, differences, read_written_study, study_toml
from search.space.space import AUTO
from search.study.identity import LIBRARIES
from search.study.storage import DATABASE, RECORD, folder_storage, folder_url, redacted, shown_url

NOTED_LIBRARIES = (*LIBRARIES, "safetensors")
"""Libraries whose versions the record of a run names."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside `runs/<name>`.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def study_file(self) -> Path:
        """The study with every setting written out, and absolute paths."""
        return self.path / "study.toml"

    @property
    def storage(self) -> str:
        """URL where Optuna keeps the trials: the folder's own database, or the storage that its workers share.

        Raises:
            SecateurError: when that storage's password is needed (see `search.study.storage.folder_storage`).
        """
        return folder_storage(self.path)

    @property
    def dense(self) -> Path:
        """The network that the search starts from."""
        return self.path / "dense.safetensors"

    @property
    def best(self) -> Path:
        """The best retrained network."""
        return self.path / "best.safetensors"

    @property
    def refits(self) -> Path:
        """Holds the refitted networks of the best structures."""
        return self.path / "refitted"

    @property
    def refitted(self) -> Path:
        """The best of them."""
        return self.path / "refitted.safetensors"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def record_file(self) -> Path:
        """Command, versions, timings, measured accuracies."""
        return self.path / RECORD

    @property
    def shown(self) -> str:
        """The path as a person would type it from here."""
        here = Path.cwd()
        return str(self.path.relative_to(here)) if self.path.is_relative_to(here) else str(self.path)

    def record(self) -> dict[str, Any]:
        """What `run.json` holds, empty before the first note.

        Raises:
            SecateurError: when the file is not such a record.
        """
        try:
            found = json.loads(self.record_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SecateurError(f"{self.record_file} cannot be read: {error}; move it away to start it anew") from None
        if not isinstance(found, dict):
            raise SecateurError(f"{self.record_file} holds no record; move it away to start it anew")
        return found

    def note(self, **facts: Any) -> None:
        """Adds facts to `run.json`; several processes may do so at the same time."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_text(self.record_file, json.dumps(self.record() | facts, indent=2) + "\n")
        finally:
            os.close(handle)

    def study(self) -> StudyFile:
        """The study that the folder holds; files that were moved or copied along with it are found where they are now.

        Raises:
            SecateurError: when its study.toml cannot be read.
        """
        study = read_written_study(self.study_file)
        model, data, wanted = study.model, study.data, study.search
        return replace(
            study,
            model=replace(model, checkpoint=self._now(model.checkpoint), pretrained=self._now(model.pretrained)),
            data=replace(data, folder=self._now(data.folder)),
            search=replace(wanted, structure=self._now(wanted.structure)),
        )

    @property
    def source(self) -> Path:
        """The study file that the run was begun with, where it is now; the user's own modules lie beside it."""
        return self._now(Path(self.record().get("source", self.study_file))) or self.study_file

    def _now(self, path: Path | None) -> Path | None:
        """A file that stands in the folder's records as it lay when they were written, as it lies now."""
        place = self.record().get("place", self.path)
        if path is None or Path(place) == self.path:
            return path
        moved = Path(os.path.normpath(self.path / os.path.relpath(path, place)))
        return moved if moved.exists() else path

    def moved_here(self, study: StudyFile) -> None:
        """Writes the study with the paths that hold now, after the folder was moved or the study changed."""
        source = self.source
        write_text(self.study_file, study_toml(study))
        self.note(source=str(source), place=str(self.path))

    def belongs_to(self, url: str) -> None:
        """Notes which storage the folder's study is in, so that whatever goes on with the folder goes on there.

        Args:
            url: a storage; of a password and options nothing is kept but that they are needed.

        Raises:
            SecateurError: when the folder belongs to a study elsewhere.
        """
        if shown_url(url) == shown_url(folder_url(self.path)):
            return
        noted = self.record().get("storage")
        shown = shown_url(url)
        if noted is None and (self.path / DATABASE).is_file():
            noted = {"url": f"its own {DATABASE}"}
        if noted is not None and noted["url"] != shown:
            raise SecateurError(
                f"{self.shown} holds the results of the study in {noted['url']}, not of one in {shown}; "
                f"give this one another --runs folder, or another name"
            )
        self.note(storage={"url": shown, "whole": shown == url})


def open_run(runs: Path, study: StudyFile, source: Path) -> tuple[RunFolder, StudyFile]:
    """The run folder of a study, made when it is not there yet.

    More trials and another [retrain] section than last time are taken over, and add to what is there; a search that
    would find something else makes it another study.

    Args:
        runs: the folder that holds all run folders.
        study: what is to be run.
        source: the file it was read from, noted for the import of the user's own modules.

    Returns:
        the folder, and the study; where no criterion was chosen, no rate, or not which layers may go, with what the
        folder was begun with.

    Raises:
        SecateurError: when the folder holds another study (what differs is named), or something else than a run.
    """
    check_study_name(study.name)
    folder = RunFolder(runs.resolve() / study.name)
    if folder.study_file.exists():
        there = folder.study()
        criterion = study.space.space().as_noted(there.space.space().to_dict()).criterion
        kept = (study.space.removal, there.space.removal) == (AUTO, NO_REMOVAL)  # layers could not go by default
        removal = NO_REMOVAL if kept else study.space.removal
        study = replace(study, space=replace(study.space, criterion=criterion, removal=removal)).at_rates_of(there)
        different = differences(study, there)
        if different:
            more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
            raise SecateurError(
                f"{folder.shown} holds another study: {different[0]} there{more}; "
                f"give this one another name, or remove that folder"
            )
    elif folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise SecateurError(f"{folder.shown} exists and is no run folder; give the study another name")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.study_file, study_toml(study))
    except OSError as error:
        raise SecateurError(f"{folder.shown} cannot be written: {error.strerror or error}") from None
    folder.note(source=str(source.resolve()), place=str(folder.path))
    return folder, study


def find_run(path: Path) -> tuple[RunFolder, StudyFile]:
    """An existing run folder and its study.

    Raises:
        SecateurError: when there is none.
    """
    folder = RunFolder(path.resolve())
    if not folder.study_file.is_file():
        raise SecateurError(f"{path} is no run folder: it has no study.toml; `secateur run STUDY.toml` makes one")
    return folder, folder.study()


@contextmanager
def locked(folder: RunFolder, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the folder for this process.

    Args:
        folder: of the run.
        wait: told who holds the folder, before it is waited for; without it nobody is waited for.

    Raises:
        SecateurError: when another process holds it.
    """
    with (folder.path / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            if wait is None:
                raise SecateurError(f"{folder.shown} is in use by process {holder}; wait for it, or end it") from None
            wait(f"{folder.shown} is in use by process {holder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def timed(folder: RunFolder, stage: str) -> Iterator[None]:
    """Adds the block's seconds to the stage's in the record, also when it is interrupted."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = dict(folder.record().get("seconds", {}))
        seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)
        folder.note(seconds=seconds)


def environment() -> dict[str, Any]:
    """What the run ran on: command, versions, machine, time of day (UTC)."""
    return {
        "command": redacted(shlex.join([Path(sys.argv[0]).stem, *sys.argv[1:]])),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "secateur": VERSION,
        **{name: version(name) for name in NOTED_LIBRARIES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }
