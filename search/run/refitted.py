"""The refitted networks of a run: the best structures, usable before any training, measured once and kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from backbones.artefact import read_artefact, save
from backbones.errors import SecateurError
from backbones.files import atomic_write
from search.review.candidate import Candidate, Refit
from search.review.front import Front
from search.review.summary import refitted
from search.run.folder import RunFolder
from search.study.candidates import given_structure
from search.study.study import Study
from search.training.metrics import measure


def refit_best(
    study: Study, chosen: Sequence[Candidate], folder: RunFolder, device: str, *, progress: bool = True
) -> Candidate:
    """Refits the structures that a retraining would begin with, as far as the folder does not have their networks.

    Each is kept in `refitted/<structure>.safetensors`, with its accuracy, and the best of these structures in
    `refitted.safetensors`.

    Args:
        study: with a search behind it.
        chosen: the structures, of `Study.finalists`.
        folder: of the run.
        device: where accuracy is measured.
        progress: show a bar when standard error is a terminal.

    Returns:
        the best of these structures, by validation accuracy.

    Raises:
        SecateurError: when nothing feasible was found; as `Study.reconstruct`.
    """
    folder.refits.mkdir(exist_ok=True)
    for one in tqdm(chosen, desc="refitted", unit="structure", disable=None if progress else True):
        if _read(_place(folder, one)) is None:
            _refit(study, one, _place(folder, one), device)
    front = with_refits(study.front(retrained=False), folder)
    wanted = {one.id for one in chosen}
    best = next(one for one in refitted(front) if one.id in wanted)
    with atomic_write(folder.refitted) as part:
        shutil.copyfile(_place(folder, best), part)
    return best


def with_refits(front: Front, folder: RunFolder) -> Front:
    """The front with what the refitted networks in the folder reach.

    A candidate that a flow has changed shows none: the refitted network is that of the structure it began with.
    A file that is damaged, or no refitted network, counts as none.
    """
    paths = {path.stem: path for path in folder.refits.glob("*.safetensors")}
    found = {name: refit for name, path in paths.items() if (refit := _read(path)) is not None}
    return replace(front, candidates=tuple(_with(one, found) for one in front.candidates))


def _refit(study: Study, one: Candidate, path: Path, device: str) -> None:
    structure = given_structure(one)
    before = measure(study.refitter.as_cut(structure), study.data, "validation", device=device)
    model = study.reconstruct(structure)
    facts = {
        "structure": one.id,
        "trial": one.number,
        "refitted_on": study.refitter.count,
        "left_as_cut": model.secateur_as_cut,
        "cut_accuracy": before,
        "refitted_accuracy": measure(model, study.data, "validation", device=device),
    }
    save(model, path, cost=one.cost, provenance=facts)


def _read(path: Path) -> tuple[int, Refit] | None:
    """The trial's number, and what its network reaches; None where the file is not there or not whole."""
    try:
        facts = read_artefact(path)[0].get("provenance", {})
        refit = Refit(path, float(facts["refitted_accuracy"]), float(facts["cut_accuracy"]))
        return (int(facts["trial"]), refit) if facts["structure"] == path.stem else None
    except (SecateurError, KeyError, TypeError, ValueError):
        return None


def _with(one: Candidate, found: Mapping[str, tuple[int, Refit]]) -> Candidate:
    trial, refit = found.get(one.id, (None, None))
    return replace(one, refit=refit) if trial == one.number else one


def _place(folder: RunFolder, one: Candidate) -> Path:
    return folder.refits / f"{one.id}.safetensors"
