"""A space on one network: everything that trials propose from, prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from torch import nn

from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.limits import Limits
from scoring.scoring_task import ScoringTask
from scoring.tables import FilterTables
from search.space.calibrate import calibrated, memory_table
from search.space.costing import Costing
from search.space.depth import Depth, ThinRay
from search.space.rays import Ray
from search.space.space import Space

LAYERS = "layers removed"
"""The parameter that says how many of the least essential layers go."""


@dataclass(frozen=True, eq=False)
class Ground:
    """A space on one network.

    Attributes:
        space: what is proposed.
        task: the dense network.
        tables: of its filters.
        costs: of its structures, on every axis that the budget bounds.
        depth: layers that may go; None for none.
    """

    space: Space
    task: ScoringTask
    tables: FilterTables
    costs: Costing
    depth: Depth | None = None
    _costs: dict[int, Costing] = field(default_factory=dict, repr=False)

    @property
    def limits(self) -> Limits:
        """The pruning-rate constraint."""
        return self.space.limits

    def propose(self, trial: optuna.Trial, tables: FilterTables) -> Ray | ThinRay:
        """Asks the sampler for a proposal; `tables` are the dense network's."""
        direction = self.space.suggest(trial, tables)
        count = trial.suggest_int(LAYERS, self.depth.least, len(self.depth.order)) if self.depth else 0
        if self.depth is None or count == 0:
            return direction(tables, self.limits, np.arange(len(tables.groups)))
        level = self.depth.level(count)
        return ThinRay(direction(level.tables, self.limits, level.own), level, self.costs_without(count))

    def costs_without(self, count: int) -> Costing:
        """The costs of structures without the `count` least essential layers."""
        if self.depth is None or count == 0:
            return self.costs
        if count not in self._costs:
            level, task = self.depth.level(count), self.task
            smaller = level.reduction.graph

            def build(structure: Structure) -> nn.Module:
                return prune(task.model, task.graph, level.lift(structure), check=False)

            memory = None if self.costs.memory is None else memory_table(smaller, build)
            self._costs[count] = Costing(smaller.costs, self.costs.latency, memory)
        return self._costs[count]


def lay(
    space: Space, task: ScoringTask, axes: Sequence[str], *, scorer: str, seed: int = 0, folder: Path | None = None
) -> Ground:
    """Prepares a space for one network.

    Args:
        space: what is proposed.
        task: the dense network, and images for the criteria and measures that look at data.
        axes: what the budget bounds; latency and memory are measured when they are among them.
        scorer: of the study, for a removal guided by it.
        seed: of the random criterion.
        folder: keeps the latency calibration, so that a resumed search predicts the same.

    Raises:
        SecateurError: for a criterion, a removal or a memory budget that this network does not allow.
    """
    model, graph = task.model, task.graph

    def make(some: ChannelGraph) -> FilterTables:
        return space.tables(model, some, (task.batch, task.labels), seed)

    latency = None
    if "latency" in axes:
        latency = calibrated(model, graph, task.batch, None if folder is None else folder / "latency.json")
    memory = memory_table(graph, lambda one: prune(model, graph, one, check=False)) if "memory" in axes else None
    depth = None if space.removal is None else Depth.of(space.removal, task, make, scorer)
    return Ground(space, task, make(graph), Costing(graph.costs, latency, memory), depth)
