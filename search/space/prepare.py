"""Prepares a search problem: tables, cost model, layers that may go, targets, and what rank sums rank among."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.inputs import first_samples, pick_samples, sample_count, split_samples
from backbones.surgery import prune
from scoring.criteria import CRITERIA
from scoring.reconstruction.targets import LEAST_IMAGES
from scoring.scorers import check_scorer, refits
from scoring.scoring_task import ScoringTask
from scoring.tables import FilterTables
from search.checks import check_dtype
from search.data.data import Data
from search.space.budget import Budget
from search.space.cost_model import CostModel, memory_table
from search.space.families import reference_structures
from search.space.feasibility import check_reachable
from search.space.latency import calibrated
from search.space.layer_removal import LayerRemovalOrder
from search.space.problem import SearchProblem
from search.space.space import Space

REFERENCES = 30
"""Structures of the budget that a rank sum ranks among."""
RECALIBRATION_BATCH = 64
FIT, HELD_OUT, CONFIRM, MOST_FIT = 256, 1024, 2048, 512
"""Images that structures are refitted on for a score, that they are scored on, that the best are
confirmed on, and those that these are refitted on at most."""

FILTERS = "filters"
"""Part of a study's folder that keeps its filter tables."""


@dataclass(frozen=True, slots=True)
class ImageDraws:
    """Which training images each step of a search sees; no image is in two of the draws, but for tiny data sets.

    Attributes:
        batch: for scorers of linear regions and logits.
        fit: structures are refitted on them.
        held_out: refitted structures are compared with the dense network on them.
        confirm: no trial sees them: the best are looked at again on them.
    """

    batch: range
    fit: range
    held_out: range
    confirm: range

    @staticmethod
    def of(images: int, batch: int) -> ImageDraws:
        """The draws from so many training images, shuffled: the batch first; of few images each other gets a share.

        Where nearly all images are in the batch the others are taken from it too, apart from each other.

        Raises:
            SecateurError: when there are too few images.
        """
        start = batch if images - batch >= 5 * LEAST_IMAGES else 0
        left = images - start
        sizes = [min(FIT, left // 5), min(HELD_OUT, left * 2 // 5), min(CONFIRM, left * 2 // 5)]
        if sizes[0] < LEAST_IMAGES:
            raise SecateurError(
                f"scores of refitted networks need at least {5 * LEAST_IMAGES} training images, but there are {images}"
            )
        ends = np.cumsum([start, *sizes]).tolist()
        return ImageDraws(range(batch), *(range(low, high) for low, high in itertools.pairwise(ends)))


def scoring_task(
    model: nn.Module, graph: ChannelGraph, data: Data, batch: int, seed: int, statistics: int = 0, scorer: str = ""
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
        scorer: where it looks at refitted networks, images to fit and to score them are drawn too (`ImageDraws`).

    Raises:
        SecateurError: for a batch larger than the data, too few images beside it where the scorer refits, or a network
            whose weights are of another type than images.
    """
    inputs, targets = data.batch(batch, seed)
    check_dtype(model, inputs)
    renewal = [inputs]
    if statistics:
        renewal = split_samples(data.batch(statistics, seed + 1)[0], RECALIBRATION_BATCH)
    classes = data.task.classes
    task = ScoringTask(model, graph, inputs, targets if classes else None, renewal, classes=classes)
    if not refits(scorer):
        return task
    draws = ImageDraws.of(len(data.train), batch)
    drawn, _ = data.batch(draws.held_out.stop, seed)
    return replace(task, fit=pick_samples(drawn, draws.fit), held_out=pick_samples(drawn, draws.held_out))


def check_classes(space: Space, scorer: str, data: Data) -> None:
    """Raises SecateurError, by name, for a scorer, criterion or measure that needs classes where the task has none."""
    if data.task.classes:
        return
    check_scorer(scorer, classes=False)
    if space.needs == "gradients":
        others = ", ".join(name for name, one in CRITERIA.items() if one.needs != "gradients")
        raise SecateurError(
            f"criterion {space.criterion!r} needs classes, which the task has not; these do not: {others}"
        )
    if space.layers is not None and space.layers.measure == "accuracy":
        raise SecateurError("removal by 'accuracy' needs classes, which the task has not; 'cosine' and 'score' do not")


def confirming_task(task: ScoringTask, data: Data, seed: int) -> ScoringTask:
    """What the best structures of a search are looked at again on: images that no trial saw, and more of them.

    They are refitted on the images to fit and those that trials were scored on together, and compared with the dense
    network on fresh ones, which stand in for the batch too.

    Args:
        task: of `scoring_task`, for a scorer that refits.
        data: the data set.
        seed: of `scoring_task`.
    """
    batch = sample_count(task.batch)
    draws = ImageDraws.of(len(data.train), batch)
    drawn, targets = data.batch(draws.confirm.stop, seed)
    fresh = range(draws.confirm.start, draws.confirm.start + min(batch, len(draws.confirm)))
    return replace(
        task,
        batch=pick_samples(drawn, fresh),
        labels=None if task.labels is None else targets[fresh.start : fresh.stop],
        fit=pick_samples(drawn, range(draws.fit.start, draws.held_out.stop)[:MOST_FIT]),
        held_out=pick_samples(drawn, draws.confirm),
        reference_scores={},
    )


def latency_batch(task: ScoringTask, budget: Budget) -> Any:
    """The inputs whose latency counts: the scoring batch, or as many of it as the budget says.

    Raises:
        SecateurError: when the budget wants more samples than the scoring batch has.
    """
    if budget.latency_batch is None:
        return task.batch
    if budget.latency_batch > sample_count(task.batch):
        raise SecateurError(
            f"budget latency_batch <= {sample_count(task.batch)} samples of the scoring batch must hold, but got "
            f"latency_batch={budget.latency_batch}"
        )
    return first_samples(task.batch, budget.latency_batch)


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
        folder: keeps the filter tables and the latency calibration, so that a resumed search proposes and predicts the
            same, and begins at once; None keeps nothing.

    Raises:
        SecateurError: for a criterion, a removal or a memory budget that this network does not allow, a budget that
            cannot be reached (the nearest value is named), or an engine that is not there or cannot take the network.
    """
    model, graph, images = task.model, task.graph, (task.batch, task.labels)
    cache = None if folder is None else folder / FILTERS
    space, tables, reason = space.decided(model, graph, images, seed, cache)

    def make(some: ChannelGraph) -> FilterTables:
        return space.tables(model, some, images, seed, cache)

    latency = None
    if "latency" in budget.axes:
        known = None if folder is None else folder / "latency.json"
        latency = calibrated(model, graph, latency_batch(task, budget), known, engine=budget.engine)
    memory = memory_table(graph, lambda one: prune(model, graph, one, check=False)) if "memory" in budget.axes else None
    order = None if space.layers is None else LayerRemovalOrder.of(space.layers, task, make, scorer, tables)
    costs = CostModel(graph.costs, latency, memory)
    targets = budget.targets(costs.dense)
    problem = SearchProblem(space, task, tables, costs, targets, budget.objectives, order, reason, cache)
    check_reachable(problem)
    if "+" not in scorer:
        return problem
    return replace(problem, task=replace(task, reference=reference_structures(problem, REFERENCES, seed)))
