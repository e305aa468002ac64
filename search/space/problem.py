"""The search problem: one network, what a structure of it may cost, and which structures a trial may propose."""

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
from search.space.allocations import WidthAllocation
from search.space.budget import Target
from search.space.cost_model import CostModel, memory_table
from search.space.layer_removal import LayerRemovalOrder, ReducedAllocation
from search.space.space import Space


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """Everything that the trials of a search share; `search.space.prepare.prepare_problem` makes it whole.

    Attributes:
        space: what a trial may propose; its criterion is decided.
        task: the dense network, its channel graph and the images that structures are scored on.
        tables: the filter tables of the dense network.
        cost_model: what structures cost, on every axis that the budget bounds.
        targets: what a structure may cost; trials aim at one of them each.
        objectives: 1 (maximise the score) or 2 (minimise the MACs as well).
        removal_order: the layers that may go; None where none may.
        second_choice: why filters are not chosen by the criterion that a space has by default, where they should be.
        cache: a folder that keeps filter tables; None for none.
    """

    space: Space
    task: ScoringTask
    tables: FilterTables
    cost_model: CostModel
    targets: tuple[Target, ...]
    objectives: int = 1
    removal_order: LayerRemovalOrder | None = None
    second_choice: str = ""
    cache: Path | None = None
    _reduced_cost_models: dict[tuple[str, ...], CostModel] = field(default_factory=dict, repr=False)

    @property
    def graph(self) -> ChannelGraph:
        """The dense network's channel graph."""
        return self.task.graph

    @property
    def limits(self) -> Limits:
        """The pruning-rate limits of every group."""
        return self.space.limits

    def values(self, score: float, macs: float) -> list[float]:
        """A trial's objective values."""
        return [score, float(macs)][: self.objectives]

    def suggest(self, trial: optuna.Trial) -> WidthAllocation | ReducedAllocation:
        """Asks the sampler for a proposal: an allocation of widths, and which layers go where layers may."""
        direction = self.space.suggest(trial, self.tables)
        order = self.removal_order
        ranges = order.ranges if order else {}
        asked = {name: trial.suggest_int(name, low, high) for name, (low, high) in ranges.items()}
        removed = order.chosen(asked) if order else ()
        if order is None or not removed:
            return direction(self.tables, self.limits, np.arange(len(self.tables.groups)))
        network = order.without(removed)
        allocation = direction(network.tables, self.limits, network.dense_groups)
        return ReducedAllocation(allocation, network, self.cost_model_without(removed))

    def cost_model_without(self, removed: tuple[str, ...]) -> CostModel:
        """The cost model of the network without some layers, as `LayerRemovalOrder.chosen` lists them."""
        if self.removal_order is None or not removed:
            return self.cost_model
        if removed not in self._reduced_cost_models:
            network, task = self.removal_order.without(removed), self.task
            smaller = network.reduction.graph

            def build(structure: Structure) -> nn.Module:
                return prune(task.model, task.graph, network.lift(structure), check=False)

            memory = None if self.cost_model.memory is None else memory_table(smaller, build)
            self._reduced_cost_models[removed] = CostModel(smaller.costs, self.cost_model.latency, memory)
        return self._reduced_cost_models[removed]


def problem_of_weights(
    space: Space, model: nn.Module, graph: ChannelGraph, targets: Sequence[Target] = ()
) -> SearchProblem:
    """The problem of a network as far as its weights alone define it: no data, no scores, no layer removal.

    Args:
        space: what may be proposed; its criterion must need nothing but weights ("auto" is "l2" here); `removal` is not
            looked at.
        model: the network.
        graph: of `trace(model, …)`; the traced example stands where images to score on would.
        targets: in MACs and parameters.

    Raises:
        SecateurError: for a criterion that this network or the lack of data does not allow.
    """
    task, space = ScoringTask(model, graph, graph.example), space.of_weights
    return SearchProblem(space, task, space.tables(model, graph), CostModel(graph.costs), tuple(targets))
