"""What stands beside the trials of a front: dense score, simple rules, footprints, refitted networks."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from backbones.arguments import explained
from backbones.artefact import load as load_artefact
from backbones.artefact import read_artefact, save
from backbones.errors import SecateurError
from backbones.files import atomic_write
from backbones.inputs import move_tensors
from backbones.modes import device_of
from backbones.structure import Structure
from backbones.surgery import prune
from search.data.data import SplitName
from search.formatting import WIDTH, amount, significant, text_table
from search.review.candidate import Candidate, Refit
from search.review.footprint import Footprint, footprints
from search.review.front import Front
from search.review.summary import refitted
from search.run.dense import dense_accuracy
from search.run.folder import RunFolder
from search.run.inputs import RunInputs
from search.space.prepare import latency_batch
from search.study.candidates import given_structure
from search.study.rules import BASELINES, RuleSettings, rule_candidates
from search.study.study import Study
from search.training.metrics import measure


@explained
def baseline(
    name: str, study: Study, *, criterion: str | None = None, measure: str | None = None, seed: int = 0
) -> tuple[Candidate, ...]:
    """The structures that a simple rule gives on a study's budget, one a target, to stand beside `Study.front()`.

    Put them there with `dataclasses.replace(front, baselines=...)`.

    Args:
        name: "uniform" (one keep ratio), "global" (one threshold for all filters' worth), "sensitivity" (the same loss
            allowed to each group, found by bisection, as FastNAS of NVIDIA's ModelOpt does), "random".
        study: its network, budget, rate limits and scorer are used; its trials stay as they are.
        criterion: name of the criterion that filters are kept by; the study's own by default.
        measure: what "sensitivity" watches fall: "accuracy" on the scoring batch, or a key of `SCORERS`; by default
            accuracy, and "fidelity" where the task has no classes.
        seed: seed of "random".

    Returns:
        candidates with structure, cost and the study's score; with a reason where the rule misses the target.

    Raises:
        SecateurError: for unknown names.
    """
    settings = RuleSettings(criterion, measure, seed)
    return rule_candidates(name, study.problem, study.scores, settings)


def with_dense_accuracy(
    front: Front, inputs: RunInputs, folder: RunFolder, splits: Sequence[SplitName] = ("validation", "test")
) -> Front:
    """The front with the accuracy of the dense network on these splits, and on others where it is known."""
    known = dense_accuracy(inputs, folder, splits, front.dense)
    dense = replace(front.dense, accuracy=known.get("validation"), test_accuracy=known.get("test"))
    return replace(front, dense=dense)


def known_references(front: Front, folder: RunFolder) -> Front | None:
    """The front with the dense score and the baselines that its run folder has stored; None where it has not all."""
    try:
        stored = Front.load(folder.path)
    except SecateurError:
        return None
    if stored.scorer != front.scorer or {one.label for one in stored.baselines} != set(BASELINES):
        return None
    return _with(front, stored.dense.score, stored.baselines)


def with_references(front: Front, study: Study) -> Front:
    """The front with the dense network's score and one baseline of every kind for each target of the budget.

    Rules with which the search began are there already. Of the others nothing is trained either: a baseline costs a
    score a target.
    """
    [dense] = study.scores.of([Structure.full(study.graph)])
    begun = [replace(one, number=-1, label=one.rule, rule="") for one in front.candidates if one.rule in BASELINES]
    others = [name for name in BASELINES if name not in {one.label for one in begun}]
    return _with(front, dense.score, (*begun, *(one for name in others for one in baseline(name, study))))


def comparison(front: Front) -> str:
    """A table: MACs and score of the dense network, the baselines and the best trial, and what ties with it."""
    ones = [front.dense, *front.baselines]
    rows = [(one.name, amount(one.on("macs")), significant(one.value("score"))) for one in ones]
    if front.points("score"):
        best = front.best(measure="score")
        rows.append((f"best, {best.title}", amount(best.on("macs")), significant(best.value("score"))))
    table, level = text_table(("", "MACs", front.scorer), rows), front.ties("score")
    return "\n".join([table, textwrap.fill(f"The best is {level}.", WIDTH)]) if level else table


def _with(front: Front, dense: float | None, baselines: tuple[Candidate, ...]) -> Front:
    """Baselines whose structure was retrained as a trial show that trial's accuracy and network."""
    trained = {one.id: one for one in front.candidates if one.accuracy is not None}
    shown = []
    for one in baselines:
        same = trained.get(one.id)
        names = ("accuracy", "test_accuracy", "artefact", "retrainings")
        result = {} if same is None else {name: getattr(same, name) for name in names}
        shown.append(replace(one, **result))
    return replace(front, dense=replace(front.dense, score=dense), baselines=tuple(shown))


def with_footprints(front: Front, inputs: RunInputs, folder: RunFolder, study: Study) -> Front:
    """The front with latency and size on disk of the dense and the retrained networks, by the budget's engine.

    Where the budget bounds latency, so of all finalists and refitted structures, each with what it may take. All are
    measured side by side in one go, on the CPU or GPU that the run uses, and again only when there are others;
    `run.json` keeps the figures.
    """
    bounded = "latency" in study.budget.axes
    wanted = {one.id: one for one in front.candidates if bounded and (one.retrainings or one.refit)}
    wanted |= {one.id: one for one in front.candidates if one.artefact is not None}
    if not wanted:
        return front
    known, engine = folder.record().get("footprints", {}), study.budget.engine
    if set(known) != {"dense", *wanted} or known["dense"].get("engine", "eager") != engine:
        models = {"dense": inputs.model}
        for key, one in wanted.items():
            with suppress(SecateurError):  # it is gone or damaged: the next retraining makes it again
                models[key] = _network(one, inputs)
        batch = latency_batch(study.problem.task, study.budget)
        files = {key: one.artefact for key, one in wanted.items() if one.artefact is not None}
        found = measured_footprints(models, inputs, batch, engine, {"dense": folder.dense, **files})
        table = study.problem.cost_model.latency
        for key, one in wanted.items():
            if key in found and table is not None and one.cost is not None:
                limit = study.budget.latency_limit(one.cost, study.problem.cost_model.dense, found["dense"].latency)
                found[key] = replace(found[key], limit=limit, error=table.error)
        known = {name: asdict(one) for name, one in found.items()}
        folder.note(footprints=known)
    sizes = {name: Footprint(**one) for name, one in known.items()}
    return replace(
        front,
        dense=replace(front.dense, footprint=sizes["dense"]),
        candidates=tuple(replace(one, footprint=sizes[one.id]) if one.id in sizes else one for one in front.candidates),
    )


def measured_footprints(
    models: Mapping[str, nn.Module], inputs: RunInputs, batch: Any, engine: str, files: Mapping[str, Path]
) -> dict[str, Footprint]:
    """Footprints of networks on the device of a run (of onnxruntime the CPU), to which they go only for that."""
    homes = {name: device_of(model) for name, model in models.items()}
    device = "cpu" if engine == "onnxruntime" else inputs.device
    try:
        placed = {name: model.to(device) for name, model in models.items()}
        return footprints(placed, move_tensors(batch, device), engine=engine, files=files)
    finally:
        for name, model in models.items():
            model.to(homes[name])


def _network(one: Candidate, inputs: RunInputs) -> nn.Module:
    """The retrained network, or one of the same structure: what it weighs and how long it takes is the same."""
    if one.artefact is not None:
        return load_artefact(one.artefact, inputs.model)
    return prune(inputs.model, inputs.graph, given_structure(one), check=False)


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
        if _read_refit(_refit_path(folder, one)) is None:
            _refit(study, one, _refit_path(folder, one), device)
    front = with_refits(study.front(retrained=False), folder)
    wanted = {one.id for one in chosen}
    best = next(one for one in refitted(front) if one.id in wanted)
    with atomic_write(folder.refitted) as part:
        shutil.copyfile(_refit_path(folder, best), part)
    return best


def with_refits(front: Front, folder: RunFolder) -> Front:
    """The front with what the refitted networks in the folder reach.

    A candidate that a flow has changed shows none: the refitted network is that of the structure it began with.
    A file that is damaged, or no refitted network, counts as none.
    """
    paths = {path.stem: path for path in folder.refits.glob("*.safetensors")}
    found = {name: refit for name, path in paths.items() if (refit := _read_refit(path)) is not None}
    return replace(front, candidates=tuple(_with_refit(one, found) for one in front.candidates))


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


def _read_refit(path: Path) -> tuple[int, Refit] | None:
    """The trial's number, and what its network reaches; None where the file is not there or not whole."""
    try:
        facts = read_artefact(path)[0].get("provenance", {})
        refit = Refit(path, float(facts["refitted_accuracy"]), float(facts["cut_accuracy"]))
        return (int(facts["trial"]), refit) if facts["structure"] == path.stem else None
    except (SecateurError, KeyError, TypeError, ValueError):
        return None


def _with_refit(one: Candidate, found: Mapping[str, tuple[int, Refit]]) -> Candidate:
    trial, refit = found.get(one.id, (None, None))
    return replace(one, refit=refit) if trial == one.number else one


def _refit_path(folder: RunFolder, one: Candidate) -> Path:
    return folder.refits / f"{one.id}.safetensors"
