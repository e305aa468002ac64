"""`compare`: all variants of a study beside each other, and the files with their figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from backbones.arguments import explained
from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from search.checks import check_count
from search.compare.execution import ComparisonPlan, dense_label, run_in_turn, run_together
from search.compare.results import Comparison
from search.compare.variant import DenseResult, VariantResult
from search.data.task import CLASSIFICATION
from search.review.footprint import Footprint
from search.run.console import Console
from search.run.dense import dense_accuracy
from search.run.folder import environment, locked, open_run
from search.run.front_context import measured_footprints
from search.run.inputs import RunInputs, choose_device, importable, read_task, run_threads
from search.run.study_file import StudyFile, read_study, read_variants

COMPARE_FOLDER = "compare"


@explained
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
        path: the study file.
        scale: which of the file's [scales] holds; by default the one that its key `scale` names.
        variants: names of those that are wanted; all by default.
        seeds: retrainings of each structure, instead of [compare] seeds.
        runs: the folder that holds all run folders.
        device: for training, `auto` for a GPU when there is one.
        jobs: searches, and then retrainings (of any variant and seed), at the same time, each in a process of its own,
            the cores divided among them; above 1 a script needs the usual `if __name__ == "__main__":`.
        progress: say on standard output what is being done.

    Raises:
        SecateurError: for a study without variants, unknown names, variants with different metrics, seeds or jobs below
            1, and as the stages of a run; KeyboardInterrupt passes through with a note on how to go on.
    """
    path, console = Path(path), Console(quiet=not progress)
    known, study = read_variants(path, scale), read_study(path, scale)
    wanted = _wanted(known, variants)
    count = study.compare.seeds if seeds is None else seeds
    check_count("seeds", count)
    check_count("jobs", jobs)
    _check_metric([known[name] for name in wanted], path.resolve().parent)
    folder, study = open_run(Path(runs), study, path)
    place = folder.path / COMPARE_FOLDER
    with locked(folder):
        try:
            place.mkdir(exist_ok=True)
            known |= {name: open_run(place, known[name], path)[1] for name in wanted}
            plan = ComparisonPlan(known, place, device, count)
            if jobs > 1 and len(wanted) * count > 1:
                found, loaded = run_together(plan, wanted, min(jobs, len(wanted) * count), console)
            else:
                found, loaded = run_in_turn(plan, wanted, console)
            results = [replace(found[name], dense=dense_label(known, name)) for name in wanted]
            measured = _measured(plan, results, _dense_results(plan, results, loaded), loaded)
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


def _check_metric(variants: Sequence[StudyFile], folder: Path) -> None:
    """Raises SecateurError where variants are judged by different metrics."""
    with importable(folder, Path.cwd()):
        specs = [(read_task(one.task) or CLASSIFICATION).spec for one in variants]
    names = dict.fromkeys(f"{spec.heading} ({spec.direction} is better)" for spec in specs)
    if len(names) > 1:
        raise SecateurError(f"the variants of a comparison need one metric, but have {', '.join(names)}")


def _dense_results(
    plan: ComparisonPlan, results: Sequence[VariantResult], loaded: Mapping[str, RunInputs]
) -> dict[str, DenseResult]:
    """Label -> figures of the dense network."""
    found: dict[str, DenseResult] = {}
    for one in results:
        inputs = loaded[one.variant]
        dense, known = inputs.graph.costs.dense, dense_accuracy(inputs, plan.run_folder(one.variant))
        spec = inputs.data.task.spec
        figures = DenseResult(one.dense, dense.macs, dense.params, known["validation"], known["test"], metric=spec)
        found.setdefault(one.dense, figures)
    return found


def _measured(
    plan: ComparisonPlan,
    results: Sequence[VariantResult],
    dense: Mapping[str, DenseResult],
    loaded: Mapping[str, RunInputs],
) -> tuple[tuple[DenseResult, ...], tuple[VariantResult, ...]]:
    """The figures with latency and size on disk: a dense network and its variants side by side, in the same rounds."""
    sizes: dict[str, Footprint] = {}
    for label in dense:
        family = [one for one in results if one.dense == label]
        inputs, study = loaded[family[0].variant], plan.variants[family[0].variant]
        models: dict[str, nn.Module] = {label: inputs.model}
        files = {one.variant: Path(one.artefacts[0]) for one in family}
        models |= {name: load_artefact(path, inputs.model) for name, path in files.items()}
        files[label] = plan.run_folder(family[0].variant).dense
        batch, _ = inputs.data.batch(study.budget.latency_batch or study.search.batch, study.seed)
        with run_threads(study, inputs):
            sizes |= measured_footprints(models, inputs, batch, study.budget.engine, files)
    return (
        tuple(replace(one, footprint=sizes[one.label]) for one in dense.values()),
        tuple(replace(one, footprint=sizes[one.variant]) for one in results),
    )
