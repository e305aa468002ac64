"""Evidence for scorers on one network: draw structures of one cost, score them, retrain them, compare the orders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.fingerprint import fingerprint
from backbones.graph import ChannelGraph
from backbones.surgery import prune
from scoring.scorers import OF_CLASSES, REFITTED, check_scorer
from scoring.scoring_task import ScoringTask
from search.checks import check_count
from search.data.data import Data, subset
from search.data.task import MetricSpec
from search.evaluate.evidence import Evidence, save_evidence, with_rank_sums
from search.evaluate.measurements import ScoreTable, TrainingResult, TrainingTask, retrain_all, score_all
from search.run.evaluation_plan import AccuracySplit, Plan
from search.run.folder import environment
from search.space.budget import Budget
from search.space.families import SampledStructure, draw
from search.space.prepare import prepare_problem, scoring_task
from search.space.space import Space
from search.study.identity import to_record
from search.study.networks import Refitter
from search.study.retraining_task import RetrainConfig
from search.training.metrics import check_task
from search.training.parallel import fitting_threads

PLAN = "plan.json"
"""File that says what a folder's results depend on."""


@explained
def evaluate(
    model: nn.Module,
    graph: ChannelGraph,
    data: Data,
    *,
    budget: Budget,
    plan: Plan | None = None,
    space: Space | None = None,
    folder: str | Path = "runs/evaluation",
    jobs: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> Evidence:
    """Measures how well each scorer ranks pruned structures of one cost by their accuracy after retraining.

    The structures come from families of widths (`Plan.families`) within one narrow budget, so that size alone cannot
    tell them apart. All are retrained with every seed by the same short recipe, and scored as they were before it.
    Choose a scorer on one set (`Plan.set`) and confirm the choice on another. What is in the folder is not done again:
    a call that was killed goes on where it was, and more structures, seeds or scorers add to it.

    Args:
        model: the dense, trained network. Never changed.
        graph: the channel graph that `trace(model, …)` found.
        data: scores look at its training images; accuracies are of its validation and test images.
        budget: the one cost of all structures: a cap is filled to within 2 %.
        plan: structures, seeds, recipe, scorers, and whether accuracies are of validation or test images.
        space: whose criterion chooses filters, and whose limits hold; by default that of the space "ratios".
        folder: results go to `<folder>/evaluate/set-<number of the set>`; its name is the title of pictures.
        jobs: retrainings at the same time, each a process (so a script needs `if __name__ == "__main__":`).
        device: where to train: "cpu", "cuda".
        progress: show bars when standard error is a terminal.

    Raises:
        SecateurError: for a budget with several targets or out of reach, results of another plan in the folder (what
            differs is named), a recipe that cannot be trained, or scorers that need classes where the task has none.
    """
    plan, space = plan or Plan(), space or Space("ratios")
    check_count("jobs", jobs)
    plan = _fitting(plan, data)
    check_task(model, data)
    place = results_folder(folder, plan)
    place.mkdir(parents=True, exist_ok=True)
    needs = "+".join(plan.scorers)
    task = scoring_task(model, graph, data, plan.batch, plan.recipe.seed, plan.statistics, needs)
    space = space.as_noted(_known(place / PLAN).get("space"))
    problem = prepare_problem(space, task, budget, scorer="params", seed=plan.recipe.seed, folder=place)
    if len(problem.targets) != 1:
        raise SecateurError(f"an evaluation needs one target, but the budget has {len(problem.targets)}")
    [target] = problem.targets
    facts = _identity(plan, budget, problem.space, task, data)
    _check_same(place / PLAN, facts)
    structures = draw(problem, target, plan.structures, plan.families, plan.set)
    results = retrain_all(
        _trainings(plan, task, structures, Refitter(model, graph, data, plan.recipe.seed)),
        subset(data, plan.images, plan.recipe.seed),
        place / "trainings",
        test=plan.measure == "test",
        processes=jobs,
        device=device,
        progress=progress,
    )
    with fitting_threads(problem.cost_model.dense.macs, plan.batch):
        file = place / f"scores-{plan.batch}-{plan.statistics}.json"
        table = score_all(task, structures, plan.single, file, progress)
    run = {"target": str(target), "environment": environment(), "jobs": jobs}
    settings = {**facts, "batch": plan.batch, "statistics": plan.statistics, **run}
    evidence = _gather(Path(folder).resolve().name, settings, plan, structures, table, results, data.task.spec)
    save_evidence(evidence, place)
    return evidence


def _fitting(plan: Plan, data: Data) -> Plan:
    """The plan; of the scorers that are looked at by default, those that the task allows.

    Raises:
        SecateurError: for a scorer that was asked for by name and needs classes, where the task has none.
    """
    if plan.scorers == Plan().scorers and not data.task.classes:
        parts = [[part.removeprefix(REFITTED) for part in name.split("+")] for name in plan.scorers]
        allowed = [name for name, of in zip(plan.scorers, parts, strict=True) if not set(of) & set(OF_CLASSES)]
        plan = replace(plan, scorers=tuple(allowed))
    for scorer in plan.scorers:
        check_scorer(scorer, data.task.classes)
    return plan


def results_folder(folder: str | Path, plan: Plan) -> Path:
    """Where the results of a plan's set of structures lie."""
    return Path(folder) / "evaluate" / f"set-{plan.set}"


def _identity(plan: Plan, budget: Budget, space: Space, task: ScoringTask, data: Data) -> dict[str, Any]:
    """What must be equal for two calls to add to the same results."""
    return {
        **plan.identity(),
        "budget": budget.to_dict(),
        "space": space.to_dict(),
        "weights": fingerprint(task.model),
        "graph": task.graph.id,
        "data": data.fingerprint,
    }


def _trainings(
    plan: Plan, task: ScoringTask, structures: tuple[SampledStructure, ...], refit: Refitter
) -> list[TrainingTask]:
    """Every structure with every seed, one seed after the other."""
    refitted = RetrainConfig(plan.recipe, start=plan.start).refits
    make = refit if refitted else partial(prune, task.model, task.graph, check=False)
    return [
        TrainingTask(
            one.structure.id,
            partial(make, one.structure),
            replace(plan.recipe, seed=seed),
        )
        for seed in plan.retraining_seeds
        for one in structures
    ]


def _gather(
    name: str,
    settings: Mapping[str, Any],
    plan: Plan,
    structures: tuple[SampledStructure, ...],
    table: ScoreTable,
    results: Mapping[tuple[str, int], TrainingResult],
    metric: MetricSpec,
) -> Evidence:
    values = {
        scorer: np.array([_number(table.values[scorer][one.structure.id]) for one in structures])
        for scorer in plan.single
    }
    splits: tuple[AccuracySplit, ...] = ("validation", "test") if plan.measure == "test" else ("validation",)
    accuracies: dict[str, NDArray[np.float64]] = {
        split: np.array(
            [[getattr(results[one.structure.id, seed], split) for seed in plan.retraining_seeds] for one in structures]
        )
        for split in splits
    }
    scores = with_rank_sums(values, plan.scorers)
    return Evidence(name, settings, structures, scores, accuracies, table.seconds, plan.measure, metric)


def _known(path: Path) -> dict[str, Any]:
    """What a folder's results depend on; empty for a new folder."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _check_same(path: Path, facts: Mapping[str, Any]) -> None:
    """Notes what a folder's results depend on; raises SecateurError when it holds results of anything else."""
    record = json.loads(to_record(facts))
    known = _known(path)
    if not known:
        write_text(path, json.dumps(record, indent=1) + "\n")
        return
    different = [key for key in record if known.get(key) != record[key]]
    if different:
        key = different[0]
        raise SecateurError(
            f"{path.parent} holds results with another {key} ({known.get(key)}, now {record[key]}); give another "
            "folder or set, or remove it"
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
