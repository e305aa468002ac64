"""The dense network of a run: trained once, measured once, kept in the run's folder, or taken from another run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backbones.artefact import save
from backbones.errors import SecateurError
from backbones.files import atomic_write, write_text
from backbones.inputs import as_arguments
from backbones.onnx_network import on_engine
from backbones.structure import Structure
from backbones.surgery import prune
from search.data.data import SplitName
from search.review.candidate import Candidate
from search.run.console import Console
from search.run.folder import RunFolder
from search.run.inputs import RunInputs
from search.run.study_file import StudyFile
from search.study.storage import shown_url
from search.study.stored import open_study
from search.training.engine import train
from search.training.losses import gammas
from search.training.metrics import measure

GAMMAS = "gammas.json"
"""Name of the file in a run folder with the batch-norm scales before and after sparse training."""


def ensure_dense(inputs: RunInputs, study: StudyFile, folder: RunFolder, console: Console) -> None:
    """Trains the dense network, unless the run has one already or the study names a checkpoint.

    It is kept in `dense.safetensors`, so that a resumed run starts from the same weights. A training that was killed
    goes on after its last whole epoch.

    Raises:
        SecateurError: for a network or engine of the budget that do not go together, before anything is trained.
    """
    if folder.dense.is_file():
        return
    if study.model.checkpoint is None:
        on_engine(inputs.model, study.budget.engine, as_arguments(inputs.data.example))  # refused before hours of it
        console.head(f"dense network: {study.dense.epochs} epochs")
        work = folder.path / "dense"
        with recorded(inputs.model, folder, slimmed=study.dense.slim > 0):
            train(inputs.model, inputs.data, study.dense, folder=work, device=inputs.device, progress=console.progress)
    inputs.model.eval()
    # As an artefact with everything kept, any network can be read back, tied parameters and all.
    save(prune(inputs.model, inputs.graph, Structure.full(inputs.graph), check=False), folder.dense)


def check_trained(study: StudyFile, folder: RunFolder, need: str) -> None:
    """Raises SecateurError, beginning with what needs it, where the dense network would have to be trained first."""
    if study.model.checkpoint is None and not folder.dense.is_file():
        raise SecateurError(
            f"{need}: a [model] checkpoint, or {folder.shown}/dense.safetensors, which `secateur search` makes"
        )


def check_dense_is_here(study: StudyFile, folder: RunFolder, url: str) -> None:
    """Raises SecateurError where this folder would train a dense network while others search on theirs."""
    if study.model.checkpoint is not None or folder.dense.is_file():
        return
    try:
        open_study(url, study.name)
    except SecateurError:  # nobody has begun it yet
        return
    raise SecateurError(
        f"study {study.name!r} in {shown_url(url)} has begun with a dense network that is not here: copy "
        f"dense.safetensors from the run folder of the worker that trained it to {folder.shown}/dense.safetensors"
    )


def dense_accuracy(
    inputs: RunInputs,
    folder: RunFolder,
    splits: Sequence[SplitName] = ("validation", "test"),
    measured: Candidate | None = None,
) -> dict[str, float]:
    """The metric of the dense network (accuracy, with classes), measured once a run and then read from its record.

    Args:
        inputs: the dense network and its data.
        folder: of the run.
        splits: on which it is wanted.
        measured: the dense network with what its study has measured of it.

    Returns:
        split -> the metric, a percentage as a fraction; also of other splits that were measured before.
    """
    known: dict[str, float] = folder.record().get("dense_accuracy", {})
    missing = [split for split in splits if split not in known]
    if missing:
        told = {} if measured is None else {"validation": measured.accuracy, "test": measured.test_accuracy}
        for split in missing:
            value = told.get(split)
            known[split] = measure(inputs.model, inputs.data, split, device=inputs.device) if value is None else value
        folder.note(dense_accuracy=known)
    return known


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
    """Gives a run without a dense network that of a run with the same [model], [data] and [dense] sections.

    Its measured accuracy and its batch-norm scales come along. Nothing happens when either run lacks what it takes.
    """
    if folder.dense.is_file() or not other.dense.is_file():
        return
    take_dense(folder, other)
    known = other.record().get("dense_accuracy")
    if known is not None:
        folder.note(dense_accuracy=known)
    if (other.path / GAMMAS).is_file():
        with atomic_write(folder.path / GAMMAS) as part:
            shutil.copyfile(other.path / GAMMAS, part)


@contextmanager
def recorded(model: nn.Module, folder: RunFolder, *, slimmed: bool) -> Iterator[None]:
    """Notes the scales before and after the block in `gammas.json`; does nothing unless `slimmed`."""
    before = _plain(model) if slimmed else {}
    yield
    if slimmed:
        write_text(folder.path / GAMMAS, json.dumps({"before": before, "after": _plain(model)}))


def read_gammas(folder: RunFolder) -> dict[str, dict[str, Tensor]]:
    """Stage -> layer -> scales (C,); empty when the run did no slimming.

    Raises:
        SecateurError: when the file is not what `recorded` wrote.
    """
    path = folder.path / GAMMAS
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            stage: {layer: torch.tensor(values, dtype=torch.float32) for layer, values in layers.items()}
            for stage, layers in record.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SecateurError(f"{path} cannot be read: {error}; remove it to leave the picture out") from None


def _plain(model: nn.Module) -> dict[str, list[float]]:
    return {name: gamma.detach().cpu().tolist() for name, gamma in gammas(model).items()}
