"""Prepares a search problem: tables, cost model, layers that may go, targets, and what rank sums rank among."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.inputs import split_samples
from backbones.surgery import prune
from scoring.criteria import CRITERIA
from scoring.scorers import check_scorer
from scoring.scoring_task import ScoringTask
from scoring.tables import FilterTables
from search.checks import check_dtype
from search.data.data import Data
from search.space.budget import Budget
from search.space.cost_model import CostModel, calibrated, memory_table
from search.space.families import reference_structures
from search.space.feasibility import check_reachable
from search.space.layer_removal import LayerRemovalOrder
from search.space.problem import SearchProblem
from search.space.space import Space

REFERENCES = 30
"""Structures of the budget that a rank sum ranks among."""
RECALIBRATION_BATCH = 64


def scoring_task(
    model: nn.Module, graph: ChannelGraph, data: Data, batch: int, seed: int, statistics: int = 0
) -> ScoringTask:
    """What structures are scored on.

    Args:
        model: the dense network.
        graph: its channel graph.
        data: the data set; only training images are drawn.
        batch: number of images that scorers look at.
        seed: which images.
        statistics: number of images for batch-norm statistics, others than the batch; 0 for the batch itself, which
            costs no pass of its own.

    Raises:
        SecateurError: for a batch larger than the data, or a network whose weights are of another type than images.
    """
    inputs, targets = data.batch(batch, seed)
    check_dtype(model, inputs)
    renewal = [inputs]
    if statistics:
        renewal = split_samples(data.batch(statistics, seed + 1)[0], RECALIBRATION_BATCH)
    classes = data.task.classes
    return ScoringTask(model, graph, inputs, targets if classes else None, renewal, classes=classes)


def check_classes(space: Space, scorer: str, data: Data) -> None:
    """Raises SecateurError, by name, for a scorer, criterion or measure that needs classes where the task has none."""
    if data.task.classes:
        return
    check_scorer(scorer, classes=False)
    if CRITERIA[space.criterion].needs == "gradients":
        others = ", ".join(name for name, one in CRITERIA.items() if one.needs != "gradients")
        raise SecateurError(
            f"criterion {space.criterion!r} needs classes, which the task has not; these do not: {others}"
        )
    if space.removal is not None and space.removal.measure == "accuracy":
        raise SecateurError("removal by 'accuracy' needs classes, which the task has not; 'cosine' and 'score' do not")


def prepare_problem(
    space: Space, task: ScoringTask, budget: Budget, *, scorer: str, seed: int = 0, folder: Path | None = None
) -> SearchProblem:
    """Prepares a search for one network and one budget, whole: nothing is added to it later.

    Args:
        space: what trials may propose.
        task: the dense network, and images for the scorer and for criteria and measures that look at data.
        budget: what a structure may cost; latency and memory are measured where it bounds them.
        scorer: the search's scorer: for a removal guided by it, and because a rank sum "a+b" ranks structures among
            `REFERENCES` others of the budget, which are drawn here.
        seed: what the criterion "random" and those structures are drawn with.
        folder: keeps the latency calibration, so that a resumed search predicts the same.

    Raises:
        SecateurError: for a criterion, a removal or a memory budget that this network does not allow, or a budget that
            cannot be reached (the nearest value is named).
    """
    model, graph = task.model, task.graph

    def make(some: ChannelGraph) -> FilterTables:
        return space.tables(model, some, (task.batch, task.labels), seed)

    latency = None
    if "latency" in budget.axes:
        latency = calibrated(model, graph, task.batch, None if folder is None else folder / "latency.json")
    memory = memory_table(graph, lambda one: prune(model, graph, one, check=False)) if "memory" in budget.axes else None
    order = None if space.removal is None else LayerRemovalOrder.of(space.removal, task, make, scorer)
    costs = CostModel(graph.costs, latency, memory)
    targets = budget.targets(costs.dense)
    problem = SearchProblem(space, task, make(graph), costs, targets, budget.objectives, order)
    check_reachable(problem)
    if "+" not in scorer:
        return problem
    return replace(problem, task=replace(task, reference=reference_structures(problem, REFERENCES, seed)))
