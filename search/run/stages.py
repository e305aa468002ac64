"""The stages of a run: dense network, search, refit, retrain, report. What is done is not done again."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.scorers import refits
from search.data.task import ACCURACY
from search.formatting import WIDTH
from search.review.front import Front
from search.review.summary import gain, result_tables, result_values, retrained, validation_table
from search.run.console import Console
from search.run.dense import check_dense_is_here, ensure_dense, take_dense
from search.run.folder import RunFolder, environment, locked, timed
from search.run.front_context import (
    comparison,
    known_references,
    refit_best,
    with_dense_accuracy,
    with_footprints,
    with_references,
    with_refits,
)
from search.run.inputs import RunInputs, load_run_inputs, read_structure, run_threads, warm_sources
from search.run.pages import importances, run_report, write_card
from search.run.study_file import StudyFile
from search.space.feasibility import check_early
from search.space.prepare import ImageDraws, check_classes
from search.study.metadata import note_dense_accuracy
from search.study.samplers import tries_layers
from search.study.storage import absolute_url, shown_url
from search.study.study import Study
from search.training.losses import check_options
from search.training.metrics import check_task
from search.training.parallel import fitting_threads

Stage = Literal["search", "refit", "retrain", "report"]
ALL: tuple[Stage, ...] = ("search", "refit", "retrain", "report")


def run_study(
    study: StudyFile,
    folder: RunFolder,
    console: Console,
    *,
    stages: tuple[Stage, ...] = ALL,
    device: str = "auto",
    jobs: int | None = None,
    fork: RunFolder | None = None,
) -> dict[str, Any]:
    """Does what is left to do in a run folder, and writes its report.

    Args:
        study: the settings.
        folder: its run folder.
        console: shows what happens.
        stages: what to do at most; a stage that has been done before costs next to nothing.
        device: for training, `auto` for a GPU when there is one.
        jobs: structures scored, and then retrained, at the same time; by default 1, and as `Study.retrain` chooses.
        fork: another run of the same network, whose scores (and trials that fit) a new one begins with.

    Returns:
        the result as plain values, for `--json`.

    Raises:
        SecateurError: for input that cannot be used; KeyboardInterrupt passes through with a note on how to resume.
    """
    with locked(folder):
        try:
            if fork is not None:
                take_dense(folder, fork)
            return _run(study, folder, console, stages, device, jobs, fork)
        except KeyboardInterrupt as stop:
            stop.add_note(f"to go on: secateur resume {folder.shown}")
            raise


def join_study(
    study: StudyFile, folder: RunFolder, console: Console, *, storage: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Shares the search and the retraining with all other workers, and writes the report of what all have found.

    Args:
        study: the settings; the same for all workers.
        folder: this worker's run folder; several workers of one machine may have the same.
        console: shows what happens.
        storage: URL; by default the folder's: its own database, or what it was shared by before.
        device: for training.

    Returns:
        the result as plain values, for `--json`.

    Raises:
        SecateurError: without the dense network that workers elsewhere began with; while a search on its own is at
            work; when the folder belongs to another storage.
    """
    if not study.search.searches:
        raise SecateurError("a [search] rule or structure leaves nothing to share out; `secateur run` does it alone")
    url = absolute_url(storage) if storage else folder.storage
    folder.belongs_to(url)
    check_dense_is_here(study, folder, url)
    try:
        with locked(folder, wait=console.say):  # of workers that share a folder one makes the dense network
            inputs = load_run_inputs(study, folder, device)
            check_before_training(study, inputs)
            ensure_dense(inputs, study, folder, console)
        with fitting_threads(inputs.graph.costs.dense.macs, study.search.batch):
            opened = study_from_file(study, inputs, folder, url)
            console.head(f"Working on {study.name} in {shown_url(url)}")
            opened.work(
                study.search.trials,
                top=study.retrain.top,
                finalists=study.retrain.finalists,
                recipe=study.retrain.recipe,
                flow=study.retrain.way,
                start=study.retrain.start,
                device=inputs.device,
                progress=console.progress,
            )
            refit_stage(opened, study, inputs, folder, console)
        return report_stage(opened, inputs, folder, console)
    except KeyboardInterrupt as stop:
        stop.add_note("to go on: the same command; other workers do not wait for this one")
        raise


def _run(
    study: StudyFile,
    folder: RunFolder,
    console: Console,
    stages: tuple[Stage, ...],
    device: str,
    jobs: int | None,
    fork: RunFolder | None,
) -> dict[str, Any]:
    inputs = load_run_inputs(study, folder, device)
    check_before_training(study, inputs)
    note_command(folder, inputs.device)
    with run_threads(study, inputs):
        return _run_stages(study, inputs, folder, console, stages, jobs, fork)


def _run_stages(
    study: StudyFile,
    inputs: RunInputs,
    folder: RunFolder,
    console: Console,
    stages: tuple[Stage, ...],
    jobs: int | None,
    fork: RunFolder | None,
) -> dict[str, Any]:
    with timed(folder, "dense network"):
        ensure_dense(inputs, study, folder, console)
    opened = study_from_file(study, inputs, folder)
    if fork is not None:
        console.say(_take_over(opened, fork))
    if "search" in stages:
        console.head("What the budget allows")
        console.say(opened.feasibility())
        search_stage(opened, study, folder, console, jobs or 1)
    if "refit" in stages:
        refit_stage(opened, study, inputs, folder, console)
    if "retrain" in stages:
        retrain_stage(opened, study, inputs, folder, console, jobs)
    if "report" in stages:
        return report_stage(opened, inputs, folder, console)
    return refitted_result(opened, inputs, folder, console)


def note_command(folder: RunFolder, device: str) -> dict[str, Any]:
    """Notes in the folder's record what runs here now and on what; returns it."""
    made, before = environment(), folder.record().get("commands", [])
    made["device"] = device
    folder.note(environment=made, commands=before if before[-1:] == [made["command"]] else [*before, made["command"]])
    return made


def search_stage(opened: Study, study: StudyFile, folder: RunFolder, console: Console, jobs: int = 1) -> None:
    """Searches, or takes what a rule or a file gives, as far as the study does not have it yet.

    Raises:
        SecateurError: when nothing meets the budget.
    """
    wanted = study.search
    if wanted.structure is not None:
        console.head(f"Structure: {wanted.structure.name}, scored by {wanted.scorer}")
    elif wanted.rule is not None:
        console.head(f"Rule: {wanted.rule}, scored by {wanted.scorer}")
    else:
        console.head(f"Search: {wanted.trials} trials, {wanted.sampler}, scored by {wanted.scorer}")
    if len(opened.store.finished) < (wanted.trials if wanted.searches else len(opened.problem.targets)):
        with timed(folder, "search"):
            if wanted.structure is not None:
                opened.use_rule(read_structure(wanted.structure))
            elif wanted.rule is not None:
                opened.use_rule(wanted.rule)
            else:
                opened.search(wanted.trials, progress=console.progress, jobs=jobs)
    console.say(_trials(opened.front()))
    _check_found(opened.front())


def refit_stage(opened: Study, study: StudyFile, inputs: RunInputs, folder: RunFolder, console: Console) -> None:
    """Refits the best structures, as far as they are not refitted yet: networks that work before any training."""
    chosen = opened.finalists(study.retrain.top, study.retrain.finalists).members
    console.head(f"Refitting: the best {len(chosen)}, on {opened.refitter.count} images, nothing trained")
    metric = inputs.data.task.spec
    with timed(folder, "refitting"):
        best = refit_best(opened, chosen, folder, inputs.device, progress=console.progress)
    console.say(
        f"{best.title}: {metric.text(best.cut_accuracy)} as cut, {metric.text(best.refitted_accuracy)} refitted "
        f"(validation{'' if metric == ACCURACY else ' ' + metric.name})"
    )


def retrain_stage(
    opened: Study, study: StudyFile, inputs: RunInputs, folder: RunFolder, console: Console, jobs: int | None
) -> None:
    """Retrains the best structures, as far as they are not retrained yet; says first what that costs."""
    wanted = study.retrain
    begin = ", from refitted weights" if wanted.config.refits else ""
    console.head(f"Retraining: {opened.finalists(wanted.top, wanted.finalists, wanted.recipe.epochs)}{begin}")
    with timed(folder, "retraining"):
        how: dict[str, Any] = {"recipe": wanted.recipe, "flow": wanted.way, "start": wanted.start, "jobs": jobs}
        opened.retrain(wanted.top, finalists=wanted.finalists, device=inputs.device, progress=console.progress, **how)


def study_from_file(study: StudyFile, inputs: RunInputs, folder: RunFolder, storage: str | None = None) -> Study:
    """The search that a study file describes, in the run folder's own database or another storage.

    Raises:
        SecateurError: for a budget that cannot be reached, or a database of another study.
    """
    opened = Study(
        study.name,
        inputs.model,
        inputs.graph,
        inputs.data,
        budget=study.budget.budget(),
        storage=storage or folder.storage,
        space=study.space.space(),
        scorer=study.search.scorer,
        sampler=study.search.sampler,
        warm_start=warm_sources(study),
        batch=study.search.batch,
        statistics=study.search.statistics,
        seed=study.seed,
        folder=folder.path,
    )
    if known := folder.record().get("dense_accuracy"):
        note_dense_accuracy(opened.store, known)
    return opened


def check_before_training(study: StudyFile, inputs: RunInputs) -> None:
    """What a search would refuse, found before the dense network is trained: it does not depend on the weights."""
    check_classes(study.space.space(), study.search.scorer, inputs.data)
    tells = tries_layers(study.search.sampler, study.search.scorer, study.search.warm_start)
    check_early(inputs.model, inputs.graph, study.space.space().for_search(inputs.graph, tells), study.budget.budget())
    if study.search.structure is not None:
        read_structure(study.search.structure).check(inputs.graph)
    for one in warm_sources(study):
        if isinstance(one, Structure):
            one.check(inputs.graph)
    inputs.data.batch(study.search.batch, study.seed)
    if refits(study.search.scorer):
        ImageDraws.of(len(inputs.data.train), study.search.batch)
    check_options(inputs.data, study.dense)
    check_options(inputs.data, study.retrain.recipe)
    check_task(inputs.model, inputs.data)


def _check_found(front: Front) -> None:
    """Raises SecateurError, with the most common reason, when no trial is feasible."""
    reasons = Counter(one.reason for one in front.candidates if one.reason is not None)
    if front.candidates and reasons.total() == len(front.candidates):
        [(reason, count)] = reasons.most_common(1)
        raise SecateurError(
            f"none of {len(front.candidates)} trials meets the budget; {count} times: {reason}; more trials, another "
            f'[space] kind, or a band as budget ("20%..30%") may help'
        )


def report_stage(opened: Study, inputs: RunInputs, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Saves front, best network and report, says what came out and where it is."""
    front = with_dense_accuracy(with_refits(opened.front(), folder), inputs, folder)
    front = _compared(front, opened, folder, console)
    front = with_footprints(front, inputs, folder, opened)
    front.save(folder.path)
    folder.note(importances=importances(opened.optuna_study))
    if retrained(front):
        _keep_best(front, folder, console)
    with timed(folder, "report"):
        run_report(folder, anew=False)
    _conclude(front, inputs, folder, console)
    return result_values(front, _paths(folder))


def refitted_result(opened: Study, inputs: RunInputs, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Saves the front, says how good the refitted networks are and where they are; no comparison and no report."""
    front = with_dense_accuracy(with_refits(opened.front(), folder), inputs, folder, ("validation",))
    front = with_footprints(known_references(front, folder) or front, inputs, folder, opened)
    front.save(folder.path)
    console.head("Result")
    console.result(validation_table(front))
    _hints(
        _use(folder, folder.refitted, inputs),
        ("to retrain", f"secateur retrain {folder.shown}"),
        console=console,
    )
    return result_values(front, _paths(folder))


def _keep_best(front: Front, folder: RunFolder, console: Console) -> None:
    """Copies the best network to the run's folder, unless it is not there or not what it was: then all stays."""
    try:
        front.best(measure="accuracy").save(folder.best)
        write_card(front, front.best(measure="accuracy"), folder)
    except SecateurError as error:
        again = f"`secateur resume {folder.shown}` retrains what is gone, where it was retrained"
        console.say(f"\n{folder.best.name} is left as it is: {error}; {again}")


def _paths(folder: RunFolder) -> dict[str, str]:
    """Where the files of a result are, by their names in it."""
    files = {"report": folder.report, "best": folder.best, "best_refitted": folder.refitted}
    return {"folder": str(folder.path), **{name: str(path) for name, path in files.items() if path.is_file()}}


def _compared(front: Front, opened: Study, folder: RunFolder, console: Console) -> Front:
    """The front beside what it must beat; scored once a run, and only after a search."""
    if not front.candidates:
        return front
    known = known_references(front, folder)
    if known is not None:
        return known
    console.head(f"Simple rules on the same budget, by {front.scorer}")
    with timed(folder, "baselines"):
        front = with_references(front, opened)
    console.say(comparison(front))
    return front


def _use(folder: RunFolder, path: Path, inputs: RunInputs) -> tuple[str, str]:
    """The hint how a network is loaded; one that `build` does not know is cut out of the user's own."""
    own = "" if getattr(inputs.model, "secateur_spec", None) is not None else ", dense"
    made = "\n              # dense: what your [model] factory returns" if own else ""
    return "to use it", f'model = secateur.load("{folder.shown}/{path.name}"{own}){made}'


def _conclude(front: Front, inputs: RunInputs, folder: RunFolder, console: Console) -> None:
    console.head("Result")
    best = folder.best if retrained(front) else folder.refitted
    lines = [_use(folder, best, inputs)]
    console.result(result_tables(front))
    if retrained(front):
        chosen = f"The first is the best by validation {front.metric.name}"
        level = front.ties("accuracy")
        level = f" ({level})" if level else ""
        console.say("\n" + textwrap.fill(f"{chosen}{level}; the test images chose nothing.", WIDTH))
        console.say(f"\n{gain(front)}")
    else:
        lines.append(("to retrain", f"secateur retrain {folder.shown}"))
    _hints(
        *lines,
        ("to look", f"open {folder.shown}/report.html in a browser"),
        ("to go on", f"secateur resume {folder.shown} --trials {2 * max(1, len(front.candidates))}"),
        console=console,
    )


def _hints(*lines: tuple[str, str], console: Console) -> None:
    console.say()
    for label, text in lines:
        console.say(f"  {label + ':':<12}{text}")


def _trials(front: Front) -> str:
    statuses = front.statuses("score")
    different = len({one.id for one in front.candidates if one.id})
    return f"{len(statuses)} trials, {different} different structures, {statuses.count('infeasible')} infeasible"


def _take_over(opened: Study, other: RunFolder) -> str:
    """Takes over trials and scores, unless this run has trials already; says what was done."""
    if opened.store.total:
        return f"the run has trials of its own already; nothing more is taken from {other.shown}"
    forked = opened.fork(other.study().name, other.storage)
    return f"taken from {other.shown}: {forked.scores} scores, {forked.trials} trials that lie inside this budget"
