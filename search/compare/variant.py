"""One variant, from its study to its figures; what its run folder has is not done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.artefact import load as load_artefact
from backbones.artefact import save
from search.compare.variant_result import SeedStats, SparseResult, VariantResult, seed_netscores
from search.review.candidate import Candidate
from search.run.console import Console
from search.run.dense import ensure_dense
from search.run.folder import RunFolder, locked
from search.run.front_context import with_dense_accuracy
from search.run.inputs import RunInputs
from search.run.sections import SparsifySection
from search.run.stages import check_before_training, note_command, search_stage, study_from_file, timed
from search.run.study_file import StudyFile
from search.study.retrain import RetrainConfig
from search.study.study import Study
from search.training.double_pruning import sparsify
from search.training.parallel import fitting_threads
from search.training.recipe import Recipe

Results = Sequence[Mapping[str, Any]]
"""Facts of the retrainings of one structure, one for each seed."""


def run_variant(study: StudyFile, inputs: RunInputs, folder: RunFolder, console: Console, seeds: int) -> VariantResult:
    """Searches, retrains with every seed, and prunes single weights where [sparsify] says so.

    Args:
        study: the variant's settings.
        inputs: data, dense network and graph; the network is trained here where the folder has no trained one.
        folder: the variant's run folder.
        console: where the user reads on.
        seeds: retrainings of each structure.

    Returns:
        the figures of the structure with the best mean validation accuracy; the label of the dense network is empty.

    Raises:
        SecateurError: as the stages of `secateur run`.
    """
    with locked(folder):
        check_before_training(study, inputs)
        note_command(folder, inputs.device)
        with fitting_threads(inputs.graph.costs.dense.macs, max(study.dense.batch_size, study.search.batch)):
            with timed(folder, "dense network"):
                ensure_dense(inputs, study, folder, console)
            opened = study_from_file(study, inputs, folder)
            search_stage(opened, study, folder, console)
            recipes = [
                replace(study.retrain.recipe, seed=study.retrain.recipe.seed + number) for number in range(seeds)
            ]
            best, results = _retrain(opened, study, recipes, inputs, folder, console)
            with_dense_accuracy(opened.front(), inputs, folder).save(folder.path)
            result = _variant_result(study, opened, best, results, folder)
            if study.sparsify.amount > 0:
                with timed(folder, "double pruning"):
                    result = replace(result, sparse=_sparsify(study.sparsify, result, inputs, folder, console))
    return result


def _retrain(
    opened: Study, study: StudyFile, recipes: Sequence[Recipe], inputs: RunInputs, folder: RunFolder, console: Console
) -> tuple[Candidate, Results]:
    wanted = study.retrain
    console.head(f"Retraining: the best {wanted.top}, {len(recipes)} seeds, {wanted.recipe.epochs} epochs each")
    by_seed = []
    for recipe in recipes:
        with timed(folder, "retraining"):
            opened.retrain(
                wanted.top,
                recipe=recipe,
                flow=wanted.way,
                start=wanted.start,
                device=inputs.device,
                progress=console.progress,
            )
        by_seed.append(opened.retrained(recipe, wanted.way, wanted.start))
    best = max(opened.promising(wanted.top), key=lambda one: sum(results[one.id]["accuracy"] for results in by_seed))
    return best, [results[best.id] for results in by_seed]


def _variant_result(
    study: StudyFile, opened: Study, best: Candidate, results: Results, folder: RunFolder
) -> VariantResult:
    macs, params = best.on("macs") or 0.0, best.on("params") or 0.0
    return VariantResult(
        variant=study.name,
        dense="",
        structure=best.id,
        settings=study.fingerprint,
        scored=len({one.id for one in opened.candidates(retrained=False) if one.score is not None}),
        search_seconds=folder.record().get("seconds", {}).get("search"),
        score=best.score,
        scorer=study.search.scorer,
        removed=best.structure.removed if best.structure is not None else (),
        macs=SeedStats(tuple(one.get("macs", macs) for one in results)),
        params=SeedStats(tuple(one.get("params", params) for one in results)),
        validation=SeedStats(tuple(one["accuracy"] for one in results)),
        test=SeedStats(tuple(one["test_accuracy"] for one in results)),
        retrain_seconds=SeedStats(tuple(one["seconds"] for one in results)),
        artefacts=tuple(one["artefact"] for one in results),
    )


def _sparsify(
    section: SparsifySection, result: VariantResult, inputs: RunInputs, folder: RunFolder, console: Console
) -> SparseResult:
    """Double pruning of every seed's network; each has a folder named by what was done, so that nothing is repeated."""
    console.head(f"Double pruning: {section.amount:.0%} of the weights, {section.recipe.epochs} epochs")
    found = []
    for number, path in enumerate(result.artefacts):
        network = Path(path)
        recipe = replace(section.recipe, seed=section.recipe.seed + number)
        name = f"{network.parent.name}-{RetrainConfig(recipe).key}-{section.scope}-{section.amount:g}"
        place = folder.path / "sparse" / (name + "".join(f"-{layer}" for layer in section.spare))
        model = load_artefact(network, inputs.model)
        sparse = sparsify(
            model,
            inputs.data,
            recipe,
            section.amount,
            scope=section.scope,
            spare=section.spare,
            teacher=inputs.model,
            folder=place,
            device=inputs.device,
            progress=console.progress,
        )
        save(model, place / "network.safetensors")
        found.append((sparse.parameters, sparse.history))
    test = SeedStats(tuple(history.test_accuracy or 0.0 for _, history in found))
    nonzero = SeedStats(tuple(float(parameters.effective) for parameters, _ in found))
    return SparseResult(
        nonzero=nonzero,
        masked=SeedStats(tuple(float(parameters.masked) for parameters, _ in found)),
        validation=SeedStats(tuple(history.validation_accuracy for _, history in found)),
        test=test,
        netscore=seed_netscores(test, nonzero, result.macs),
    )
