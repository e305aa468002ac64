"""All variants of a study in turn, what they share shared, and the files that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from backbones.modes import device_of
from search.compare.outcome import Outcome, Whole
from search.compare.results import Comparison
from search.compare.variant import follow_variant
from search.review.footprint import Footprint, footprints
from search.run.console import Console
from search.run.folder import RunFolder, environment, locked, open_run
from search.run.footprints import FOOTPRINT_BATCH
from search.run.forks import take_twin
from search.run.prepare import Start, dense_accuracy, prepare
from search.run.study_file import StudyFile
from search.training.threads import fitting_threads

FOLDER = "compare"


def compare(
    study: StudyFile,
    variants: Mapping[str, StudyFile],
    folder: RunFolder,
    source: Path,
    console: Console,
    *,
    names: Sequence[str] | None = None,
    seeds: int | None = None,
    device: str = "auto",
) -> Comparison:
    """Does what is left to do of every variant, and writes `compare.json`, `.md` and `.csv`.

    Each variant has a run folder of its own, `runs/<name>/compare/<variant>`, with everything that `secateur status`,
    `report` and `resume` want to know. Variants with the same [model], [data] and [dense] share one dense network.

    Args:
        study: what the variants are variants of.
        variants: name -> study.
        folder: of the study.
        source: the study file.
        console: where the user reads on.
        names: the variants that are wanted; all by default.
        seeds: retrainings of each structure, instead of [compare] seeds.
        device: for training, `auto` for a GPU when there is one.

    Raises:
        SecateurError: for a study without variants, unknown names, seeds below 1, and as the stages of a run;
            KeyboardInterrupt passes through with a note on how to go on.
    """
    count = study.compare.seeds if seeds is None else seeds
    if count < 1:
        raise SecateurError(f"seeds >= 1 must hold, but got seeds={count}")
    wanted = _wanted(variants, names)
    place = folder.path / FOLDER
    with locked(folder):
        try:
            place.mkdir(exist_ok=True)
            runs = {name: open_run(place, variants[name], source) for name in wanted}
            starts: dict[str, Start] = {}
            outcomes = []
            for number, name in enumerate(wanted, 1):
                console.head(f"Variant {number} of {len(wanted)}: {name}")
                start = _start(variants, name, place, starts, device)
                one = follow_variant(variants[name], start, runs[name], console, count)
                outcomes.append(replace(one, whole=_label(variants, name)))
            wholes = _wholes(variants, wanted, runs, starts)
            measured = _measured(outcomes, wholes, variants, starts)
        except KeyboardInterrupt as stop:
            stop.add_note("to go on: the same command; what is done is not done again")
            raise
        facts = {**environment(), "device": start.device, "threads": torch.get_num_threads()}
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


def _origin(study: StudyFile) -> str:
    """Equal for studies whose dense network is the same."""
    return repr((study.model, study.data, study.dense, study.seed))


def _start(
    variants: Mapping[str, StudyFile],
    name: str,
    place: Path,
    starts: dict[str, Start],
    device: str,
) -> Start:
    """Data, dense network and graph of a variant, those of another one where they are the same.

    Layers that [space] leaves out are marked in the graph, so that it is shared only where those agree.
    """
    study, run = variants[name], RunFolder(place / name)
    for other, twin in variants.items():
        if other != name and _origin(twin) == _origin(study):
            take_twin(run, RunFolder(place / other))
    for other, start in starts.items():
        twin = variants[other]
        left_out = (twin.space.ignore, twin.space.only) == (study.space.ignore, study.space.only)
        if left_out and _origin(twin) == _origin(study):
            starts[name] = start
            return start
    starts[name] = prepare(study, run, device)
    return starts[name]


def _label(variants: Mapping[str, StudyFile], name: str) -> str:
    """Names the dense network: its architecture, and the first variant that has it where there are several of those."""
    origins: dict[str, str] = {}
    for other, study in variants.items():
        origins.setdefault(_origin(study), other)
    kinds = [_architecture(variants[first]) for first in origins.values()]
    kind, first = _architecture(variants[name]), origins[_origin(variants[name])]
    return f"dense {kind}" if kinds.count(kind) == 1 else f"dense {kind} ({first})"


def _architecture(study: StudyFile) -> str:
    return study.model.backbone or str(study.model.factory).rpartition(":")[2]


def _wholes(
    variants: Mapping[str, StudyFile], wanted: Sequence[str], runs: Mapping[str, RunFolder], starts: Mapping[str, Start]
) -> dict[str, Whole]:
    """Label -> dense network."""
    found: dict[str, Whole] = {}
    for name in wanted:
        label, dense = _label(variants, name), starts[name].graph.costs.dense
        known = dense_accuracy(starts[name], runs[name])
        found.setdefault(label, Whole(label, dense.macs, dense.params, known["validation"], known["test"]))
    return found


def _measured(
    outcomes: Sequence[Outcome],
    wholes: Mapping[str, Whole],
    variants: Mapping[str, StudyFile],
    starts: Mapping[str, Start],
) -> tuple[tuple[Whole, ...], tuple[Outcome, ...]]:
    """Latency and size on disk: a dense network and all that came out of it side by side, in the same rounds."""
    sizes: dict[str, Footprint] = {}
    for label in wholes:
        family = [one for one in outcomes if one.whole == label]
        start, study = starts[family[0].variant], variants[family[0].variant]
        models: dict[str, nn.Module] = {label: start.model}
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
