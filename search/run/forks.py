"""A run that begins with what another run of the same network found out: `--fork`."""

from __future__ import annotations

import shutil

from backbones.errors import SecateurError
from backbones.files import atomic_write
from search.run.folder import RunFolder
from search.run.gammas import GAMMAS
from search.run.study_file import read_study
from search.study.study import Study


def take_dense(folder: RunFolder, other: RunFolder) -> None:
    """Gives a new run the other one's dense network, without which no score would hold.

    Raises:
        SecateurError: when the other run has none, or is this run.
    """
    if folder.path == other.path:
        raise SecateurError(f"{folder.shown} cannot be forked from itself; give the new study another name")
    if not other.dense.is_file():
        raise SecateurError(f"{other.shown} has no dense network yet; search there first")
    if not folder.dense.is_file():
        with atomic_write(folder.dense) as part:
            shutil.copyfile(other.dense, part)


def take_twin(folder: RunFolder, other: RunFolder) -> None:
    """Gives a new run the dense network of a run with the same [model], [data] and [dense], and what is known of it."""
    if folder.dense.is_file() or not other.dense.is_file():
        return
    take_dense(folder, other)
    known = other.record().get("dense_accuracy")
    if known is not None:
        folder.note(dense_accuracy=known)
    if (other.path / GAMMAS).is_file():
        with atomic_write(folder.path / GAMMAS) as part:
            shutil.copyfile(other.path / GAMMAS, part)


def take_over(opened: Study, other: RunFolder) -> str:
    """Takes over trials and scores, unless this run has trials already; says what was done."""
    if opened.store.total:
        return f"the run has trials of its own already; nothing more is taken from {other.shown}"
    forked = opened.fork(read_study(other.study_file).name, other.storage)
    return f"taken from {other.shown}: {forked.scores} scores, {forked.trials} trials that lie inside this budget"
