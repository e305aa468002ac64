"""Costs of many structures at once; memory predicted exactly, latency as far as a busy machine allows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.measure import latency, peak_memory
from backbones.structure import Structure
from backbones.surgery import prune
from search.space.budget import Budget
from search.space.cost_model import CostModel, LatencyTable, calibrated, memory_table
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


def test_latency_is_the_sum_of_its_parts() -> None:
    table = task().graph.costs
    costs = CostModel(table, LatencyTable(1.0, {"conv1": 2.0, "gone": 9.0}, {"linear": 0.5}, 0.25, 4))
    (row,) = random_widths(1)
    linear = sum(m for m, layer in zip(table.op_macs(row), table.op_layers, strict=True) if layer == "linear")
    assert costs.evaluate(row).latency == pytest.approx(1.0 + 2.0 + 0.5 * linear + 0.25 * row.sum())


@pytest.mark.parametrize("removed", [0, 2])
def test_memory_is_predicted_to_the_byte(removed: int) -> None:
    here = problem(Space("ratios", removal=Removal(most=2)), Budget(memory="50%"))
    costs = here.cost_model_without(removed)
    graph, model = here.task.graph, here.task.model
    for seed in range(4):
        if removed:
            thin = here.removal_order.without(removed)  # type: ignore[union-attr]
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


def test_a_calibration_is_kept_and_predicts_the_same_again(tmp_path: Path) -> None:
    here, known = task(), tmp_path / "new" / "latency.json"
    first = calibrated(here.model, here.graph, here.batch, known, rounds=3)
    assert calibrated(here.model, here.graph, here.batch, known, rounds=3) == first
    narrower = calibrated(here.model, here.graph, here.batch[:2], known, rounds=3)
    assert narrower.batch == 2
    known.write_text("[]")
    with pytest.warns(UserWarning, match="is no latency table; it is measured again"):
        assert calibrated(here.model, here.graph, here.batch, known, rounds=3).batch == 16
    assert json.loads(known.read_text())["batch"] == 16


def test_predicted_latency_falls_with_every_width_and_is_near_the_measured() -> None:
    here = task()
    table = calibrated(here.model, here.graph, here.batch, rounds=5)
    costs = CostModel(here.graph.costs, table)
    assert min([table.rest, table.per_unit, *table.per_mac.values(), *table.fixed.values()]) >= 0
    structure = Structure.random(here.graph, keep=0.3, seed=0)
    predicted = costs.evaluate(np.array(list(structure.widths.values()))).latency
    measured = latency(here.model, prune(here.model, here.graph, structure), (here.batch,), rounds=15)
    dense = costs.dense.latency
    assert predicted is not None
    assert dense is not None
    assert predicted < dense
    # Quotients, for the machine may be busier now than during the calibration; wide, for it may be busy at all.
    assert 0.3 < (dense / predicted) / measured.speedup < 3
