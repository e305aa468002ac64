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

from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.fingerprint import fingerprint
from backbones.graph import ChannelGraph
from backbones.surgery import prune
from search.checks import check_range
from search.data.data import Data, subset
from search.evaluate.evidence import Evidence, Measure, with_rank_sums
from search.evaluate.scoring import Sheet, score_all
from search.evaluate.trainings import Job, Trained, retrain_all
from search.run.evaluation_plan import Plan
from search.run.folder import environment
from search.space.budget import Budget
from search.space.families import Drawn, draw
from search.space.ground import lay
from search.space.space import Space
from search.study.identity import to_record
from search.study.scores import scoring_task
from search.training.parallel import fitting_threads


def evaluate(  # noqa: PLR0913 - what is asked, where it goes and how it runs, all keywords
    model: nn.Module,
    graph: ChannelGraph,
    data: Data,
    *,
    budget: Budget,
    plan: Plan | None = None,
    space: Space | None = None,
    name: str = "evaluation",
    folder: str | Path | None = None,
    measure: Measure = "validation",
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
        graph: of `trace(model, …)`.
        data: the task. Scores look at training images; accuracies are of the validation and the test split.
        budget: the one cost of all structures: a cap is filled to within 2 %.
        plan: structures, seeds, recipe, scorers.
        space: whose criterion chooses filters, and whose limits hold.
        name: of the result.
        folder: for results; `runs/<name>/evaluate` by default. Each set has a folder of its own in it.
        measure: whose accuracy the verdicts are about: "validation" to choose by, which never looks at the test images;
            "test" to confirm.
        jobs: retrainings at the same time, each a process (so a script needs `if __name__ == "__main__":`).
        device: where to train.
        progress: show bars when standard error is a terminal.

    Raises:
        SecateurError: for a budget with several targets or out of reach, results of another plan in the folder (what
            differs is named), or a recipe that cannot be trained.
    """
    plan = plan or Plan()
    space = space or Space("ratios")
    if measure not in ("validation", "test"):
        raise SecateurError(f"measure must be 'validation' or 'test', but got {measure!r}")
    check_range("jobs", jobs, 1)
    place = Path(folder if folder is not None else Path("runs") / name / "evaluate") / f"set-{plan.set}"
    place.mkdir(parents=True, exist_ok=True)
    task = scoring_task(model, graph, data, plan.batch, plan.recipe.seed, plan.statistics)
    ground = lay(space, task, budget.axes, scorer="params", seed=plan.recipe.seed)
    targets = budget.targets(ground.costs.dense)
    if len(targets) != 1:
        raise SecateurError(f"an evaluation needs one target, but the budget has {len(targets)}")
    facts = {
        **plan.identity(),
        "budget": budget.to_dict(),
        "space": space.to_dict(),
        "weights": fingerprint(model),
        "graph": graph.id,
        "data": data.fingerprint,
    }
    _check_same(place / "plan.json", facts)
    drawn = draw(ground, targets[0], plan.structures, plan.families, plan.set)
    wanted = [
        Job(one.structure.id, partial(prune, model, graph, one.structure, check=False), replace(plan.recipe, seed=seed))
        for seed in plan.retraining_seeds
        for one in drawn
    ]
    results = retrain_all(
        wanted,
        subset(data, plan.images, plan.recipe.seed),
        place / "trainings",
        test=measure == "test",
        processes=jobs,
        device=device,
        progress=progress,
    )
    with fitting_threads(ground.costs.dense.macs, plan.batch):
        sheet = score_all(task, drawn, plan.single, place / f"scores-{plan.batch}-{plan.statistics}.json", progress)
    settings = {
        **facts,
        "batch": plan.batch,
        "statistics": plan.statistics,
        "target": str(targets[0]),
        "environment": environment(),
        "jobs": jobs,
    }
    evidence = _gather(name, settings, plan, drawn, sheet, results, measure)
    evidence.save(place)
    return evidence


def _gather(
    name: str,
    settings: Mapping[str, Any],
    plan: Plan,
    drawn: tuple[Drawn, ...],
    sheet: Sheet,
    results: Mapping[tuple[str, int], Trained],
    measure: Measure,
) -> Evidence:
    values = {
        scorer: np.array([_number(sheet.values[scorer][one.structure.id]) for one in drawn]) for scorer in plan.single
    }
    splits: tuple[Measure, ...] = ("validation", "test") if measure == "test" else ("validation",)
    accuracies: dict[str, NDArray[np.float64]] = {
        split: np.array(
            [[getattr(results[one.structure.id, seed], split) for seed in plan.retraining_seeds] for one in drawn]
        )
        for split in splits
    }
    return Evidence(name, settings, drawn, with_rank_sums(values, plan.scorers), accuracies, sheet.seconds, measure)


def _check_same(path: Path, facts: Mapping[str, Any]) -> None:
    """Notes what a folder's results rest on; raises SecateurError when it holds results of anything else."""
    record = json.loads(to_record(facts))
    if not path.is_file():
        write_text(path, json.dumps(record, indent=1) + "\n")
        return
    known = json.loads(path.read_text())
    different = [key for key in record if known.get(key) != record[key]]
    if different:
        key = different[0]
        raise SecateurError(
            f"{path.parent} holds results with another {key} ({known.get(key)}, now {record[key]}); give another "
            "folder or set, or remove it"
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
