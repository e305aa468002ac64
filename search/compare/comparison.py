"""All variants of a study, what they share shared, and the files that come of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from backbones.modes import device_of
from search.checks import check_range
from search.compare.origins import label, start_of
from search.compare.outcome import Outcome, Whole
from search.compare.results import Comparison
from search.compare.turns import Work, follow_in_turn, follow_together
from search.review.footprint import Footprint, footprints
from search.run.console import Console
from search.run.dense import dense_accuracy
from search.run.folder import RunFolder, environment, locked, open_run
from search.run.front_context import FOOTPRINT_BATCH
from search.run.inputs import RunInputs, choose_device
from search.run.study_file import StudyFile, read_study, read_variants
from search.training.parallel import fitting_threads

COMPARE_FOLDER = "compare"


def compare(
    path: str | os.PathLike[str],
    *,
    scale: str | None = None,
    variants: Sequence[str] | None = None,
    seeds: int | None = None,
    runs: str | os.PathLike[str] = "runs",
    device: str = "auto",
    jobs: int = 1,
    progress: bool = True,
) -> Comparison:
    """Searches and retrains every variant of a study file, and writes `compare.json`, `.md` and `.csv`.

    Each variant has a run folder of its own, `<runs>/<name>/compare/<variant>`, with everything that `secateur status`,
    `report` and `resume` want to know. Variants with the same [model], [data] and [dense] share one dense network. What
    an earlier call has done is not done again; more seeds or variants add to it.

    Args:
        path: of the study file.
        scale: which of its [scales] holds; by default the one that its key `scale` names.
        variants: those that are wanted; all by default.
        seeds: retrainings of each structure, instead of [compare] seeds.
        runs: holds all run folders.
        device: for training, `auto` for a GPU when there is one.
        jobs: variants at the same time, each in a process of its own, the cores divided among them; above 1 a script
            needs the usual `if __name__ == "__main__":`.
        progress: say on standard output what is being done.

    Raises:
        SecateurError: for a study without variants, unknown names, seeds or jobs below 1, and as the stages of a run;
            KeyboardInterrupt passes through with a note on how to go on.
    """
    path, console = Path(path), Console(quiet=not progress)
    known, study = read_variants(path, scale), read_study(path, scale)
    wanted = _wanted(known, variants)
    count = study.compare.seeds if seeds is None else seeds
    check_range("seeds", count, 1)
    check_range("jobs", jobs, 1)
    folder = open_run(Path(runs), study, path)
    place = folder.path / COMPARE_FOLDER
    with locked(folder):
        try:
            place.mkdir(exist_ok=True)
            opened = {name: open_run(place, known[name], path) for name in wanted}
            work = Work(known, place, device, count)
            if jobs > 1 and len(wanted) > 1:
                found = follow_together(work, wanted, min(jobs, len(wanted)), console)
                starts: dict[str, RunInputs] = {}
                for name in wanted:
                    start_of(known, name, place, starts, device)
            else:
                found, starts = follow_in_turn(work, wanted, console)
            outcomes = [replace(found[name], whole=label(known, name)) for name in wanted]
            wholes = _wholes(known, wanted, opened, starts)
            measured = _measured(outcomes, wholes, known, starts)
        except KeyboardInterrupt as stop:
            stop.add_note("to go on: the same command; what is done is not done again")
            raise
        facts = {**environment(), "device": choose_device(device), "threads": torch.get_num_threads()}
        result = Comparison(study.name, count, facts, *measured)
        result.save(place)
    return result


def _wanted(variants: Mapping[str, StudyFile], names: Sequence[str] | None) -> list[str]:
    if not variants:
        raise SecateurError("the study has no variants to compare; a table [variants.NAME.SECTION] makes one")
    for name in names or ():
        if name not in variants:
            raise SecateurError(f"unknown variant {name!r}; known are {', '.join(variants)}")
    return list(variants) if names is None else [name for name in variants if name in names]


def _wholes(
    variants: Mapping[str, StudyFile],
    wanted: Sequence[str],
    runs: Mapping[str, RunFolder],
    starts: Mapping[str, RunInputs],
) -> dict[str, Whole]:
    """Label -> dense network."""
    found: dict[str, Whole] = {}
    for name in wanted:
        called, dense = label(variants, name), starts[name].graph.costs.dense
        known = dense_accuracy(starts[name], runs[name])
        found.setdefault(called, Whole(called, dense.macs, dense.params, known["validation"], known["test"]))
    return found


def _measured(
    outcomes: Sequence[Outcome],
    wholes: Mapping[str, Whole],
    variants: Mapping[str, StudyFile],
    starts: Mapping[str, RunInputs],
) -> tuple[tuple[Whole, ...], tuple[Outcome, ...]]:
    """Latency and size on disk: a dense network and all that came out of it side by side, in the same rounds."""
    sizes: dict[str, Footprint] = {}
    for called in wholes:
        family = [one for one in outcomes if one.whole == called]
        start, study = starts[family[0].variant], variants[family[0].variant]
        models: dict[str, nn.Module] = {called: start.model}
        models |= {one.variant: load_artefact(Path(one.artefacts[0]), start.model) for one in family}
        home = device_of(start.model)
        images, _ = next(start.data.batches("validation", FOOTPRINT_BATCH))
        with fitting_threads(start.graph.costs.dense.macs, max(study.dense.batch_size, study.search.batch)):
            try:
                moved = {name: model.to(start.device) for name, model in models.items()}
                sizes |= footprints(moved, images.to(start.device))
            finally:
                start.model.to(home)
    return (
        tuple(replace(one, footprint=sizes[one.label]) for one in wholes.values()),
        tuple(replace(one, footprint=sizes[one.variant]) for one in outcomes),
    )
