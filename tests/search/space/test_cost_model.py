"""Costs of many structures at once; memory predicted exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.measure import peak_memory
from backbones.structure import Structure
from backbones.surgery import prune
from search.space.budget import Budget
from search.space.cost_model import memory_table
from search.space.layer_removal import Removal
from search.space.projection import Projected, project
from search.space.space import Space
from tests.search.space.problems import problem, suggested, task


def random_widths(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    sizes = task().graph.costs.dense_kept
    return np.random.default_rng(0).integers(1, sizes + 1, (rows, len(sizes)))


def test_many_rows_cost_what_each_costs() -> None:
    table = task().graph.costs
    rows = random_widths(30)
    found = table.evaluate_many(rows)
    assert [tuple(row) for row in found] == [(c.macs, c.params) for c in map(table.evaluate, rows)]


@pytest.mark.parametrize("removed", [0, 2])
def test_memory_is_predicted_to_the_byte(removed: int) -> None:
    here = problem(Space("ratios", removal=Removal(most=2)), Budget(memory="50%"))
    assert here.removal_order is not None
    gone = here.removal_order.order[:removed]
    costs = here.cost_model_without(gone)
    graph, model = here.task.graph, here.task.model
    for seed in range(4):
        if removed:
            thin = here.removal_order.without(gone)
            smaller = Structure.random(thin.reduction.graph, keep=0.4, seed=seed)
            structure, widths = thin.lift(smaller), np.array(list(smaller.widths.values()))
        else:
            structure = Structure.random(graph, keep=0.4, seed=seed)
            widths = np.array(list(structure.widths.values()))
        counted = peak_memory(prune(model, graph, structure), graph.example)
        assert costs.evaluate(widths).memory == counted


def test_a_memory_budget_is_met_and_filled() -> None:
    here = problem(Space("hybrid+ratios"), Budget(memory="50%"))
    graph = here.graph
    found = project(here, suggested(here, 1), here.targets[0])
    assert isinstance(found, Projected), found
    counted = peak_memory(prune(here.task.model, graph, found.structure), graph.example)
    dense = here.cost_model.dense.memory
    assert dense is not None
    assert 0.49 * dense <= counted <= 0.5 * dense


def test_activations_that_are_not_linear_in_the_widths_are_refused() -> None:
    class Square(nn.Module):
        """Activations that grow with the square of what is kept."""

        def __init__(self, kept: int) -> None:
            super().__init__()
            self.kept = kept

        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(self.kept, self.kept)

    with pytest.raises(SecateurError, match="budget memory: the activations of this network are not linear"):
        memory_table(task().graph, lambda structure: Square(sum(structure.widths.values())))
