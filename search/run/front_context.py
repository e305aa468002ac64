"""What stands beside the trials of a front: the dense network's score, simple rules on the same budget, footprints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace

from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from backbones.inputs import move_tensors
from backbones.modes import device_of
from backbones.structure import Structure
from search.data.data import SplitName
from search.formatting import WIDTH, amount, significant, text_table
from search.review.candidate import Candidate
from search.review.footprint import Footprint, footprints
from search.review.front import Front
from search.run.dense import dense_accuracy
from search.run.folder import RunFolder
from search.run.inputs import RunInputs
from search.study.rules import BASELINES, RuleSettings, rule_candidates
from search.study.study import Study

FOOTPRINT_BATCH = 128
"""Images in the batch whose latency is measured."""


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
    settings = RuleSettings(criterion or study.space.criterion, measure, seed)
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


def with_footprints(front: Front, inputs: RunInputs, folder: RunFolder) -> Front:
    """The front with latency and size on disk of the dense and the retrained networks.

    All are measured side by side in one go, on the CPU or GPU that the run uses, and again only when another network
    has been retrained since; `run.json` keeps the figures.
    """
    trained = {one.id: one.artefact for one in front.candidates if one.artefact is not None}
    if not trained:
        return front
    known = folder.record().get("footprints", {})
    if set(known) != {"dense", *trained}:
        models = {"dense": inputs.model}
        for key, path in trained.items():
            with suppress(SecateurError):  # it is gone or damaged: the next retraining makes it again
                models[key] = load_artefact(path, inputs.model)
        homes = {name: device_of(model) for name, model in models.items()}
        batch, _ = next(inputs.data.batches("validation", FOOTPRINT_BATCH))
        try:
            placed = {name: model.to(inputs.device) for name, model in models.items()}
            files = {"dense": folder.dense, **trained}
            found = footprints(placed, move_tensors(batch, inputs.device), files=files)
        finally:
            for name, model in models.items():
                model.to(homes[name])
        known = {name: asdict(one) for name, one in found.items()}
        folder.note(footprints=known)
    sizes = {name: Footprint(**one) for name, one in known.items()}
    return replace(
        front,
        dense=replace(front.dense, footprint=sizes["dense"]),
        candidates=tuple(replace(one, footprint=sizes[one.id]) if one.id in sizes else one for one in front.candidates),
    )
