"""Latency predicted from a calibration: exactly where time is what the table assumes, else as far as it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import search.space.latency
from backbones.errors import SecateurError
from backbones.inputs import sample_count
from backbones.measure import latency, timings
from backbones.onnx_network import on_engine
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.scoring_task import ScoringTask
from search.space.budget import Budget
from search.space.cost_model import CostModel
from search.space.latency import LatencyTable, calibrated
from search.space.prepare import latency_batch, prepare_problem
from search.space.projection import Projected, project
from search.space.space import Space
from tests.graphs import known_trace as trace
from tests.search.space.problems import suggested, task
from tests.search.space.test_cost_model import random_widths


def test_latency_is_the_sum_of_its_parts() -> None:
    table = task().graph.costs
    costs = CostModel(table, LatencyTable(1.0, {"conv1": 2.0, "gone": 9.0}, {"linear": 0.5}, 0.25, 4))
    (row,) = random_widths(1)
    linear = sum(m for m, layer in zip(table.op_macs(row), table.op_layers, strict=True) if layer == "linear")
    assert costs.evaluate(row).latency == pytest.approx(1.0 + 2.0 + 0.5 * linear + 0.25 * row.sum())


class Stack(nn.Module):
    """Three convolutions."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1) for i, o in zip((3, *widths), widths, strict=False))
        self.head = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))).mean((2, 3)))
        return y


def stack(*widths: int, side: int = 8, count: int = 4) -> ScoringTask:
    torch.manual_seed(0)
    model, images = Stack(*widths).eval(), torch.randn(count, 3, side, side)
    return ScoringTask(model, trace(model, images[:1]), images, torch.arange(count) % 4, ())


def test_a_calibration_is_kept_and_predicts_the_same_again(tmp_path: Path) -> None:
    here, known = stack(8, 12, 16), tmp_path / "new" / "latency.json"
    first = calibrated(here.model, here.graph, here.batch, known, rounds=3)
    assert calibrated(here.model, here.graph, here.batch, known, rounds=3) == first
    narrower = calibrated(here.model, here.graph, here.batch[:2], known, rounds=3)
    assert narrower.batch == 2
    known.write_text("[]")
    with pytest.warns(UserWarning, match="is no latency table; it is measured again"):
        assert calibrated(here.model, here.graph, here.batch, known, rounds=3).batch == 4
    assert json.loads(known.read_text())["batch"] == 4


def test_predicted_latency_falls_with_every_width_and_is_near_the_measured() -> None:
    here = stack(24, 32, 48, side=16, count=16)
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


OWN = {"a": 1e-4, "b": 2e-4, "c": 0.0, "head": 0.0}
RATE = 2e-9


def macs(here: ScoringTask, widths: Sequence[int], block: int) -> list[int]:
    """Of each layer by hand, each width a multiple of the block: 64 positions of 9 weights, then the head."""
    a, b, c = (-(-width // block) * block for width in widths)
    pixels = here.batch.shape[2] * here.batch.shape[3]
    return [3 * a * 9 * pixels, a * b * 9 * pixels, b * c * 9 * pixels, 4 * c]


def seconds(here: ScoringTask, widths: Sequence[int], block: int = 1) -> float:
    """4 ms and 1 us a kept channel, and three times what layers take in torch."""
    return 4e-3 + 1e-6 * sum(widths) + 3 * RATE * sum(macs(here, widths, block))


def clocked(monkeypatch: pytest.MonkeyPatch, here: ScoringTask, odd: float = 1.0, block: int = 1) -> list[str]:
    """Such an engine, the last structure on it `odd` times as slow; what was asked of it is noted."""
    asked: list[str] = []

    def engine(net: nn.Module, name: str, example: Sequence[Any]) -> nn.Module:
        asked.append(f"{name}, {sample_count(example)}")
        return net

    def clock(nets: Sequence[Any], example: Sequence[Any], rounds: int) -> list[list[float]]:
        found = [seconds(here, [len(net.a.weight), len(net.b.weight), len(net.c.weight)], block) for net in nets]
        found[-1] *= odd
        slow = np.linspace(1.0, 5.0, rounds)  # a machine that gets busier: all alike
        return [list(value * slow / 3.0) for value in found]

    def layers(nets: Sequence[Any], names: list[str], *_: Any) -> dict[str, Any]:
        counts = [macs(here, [len(net.a.weight), len(net.b.weight), len(net.c.weight)], block) for net in nets]
        return {name: np.array([OWN[name] + RATE * count[i] for count in counts]) for i, name in enumerate(names)}

    monkeypatch.setattr(search.space.latency, "on_engine", engine)
    monkeypatch.setattr(search.space.latency, "timings", clock)
    monkeypatch.setattr(search.space.latency, "_layer_times", layers)
    return asked


@pytest.mark.parametrize("block", [1, 4, 8])
def test_times_that_are_a_sum_are_predicted_exactly(
    block: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = stack(24, 40, 48)
    asked = clocked(monkeypatch, here, block=block)
    table = calibrated(here.model, here.graph, here.batch, tmp_path / "known.json", engine="onnxruntime")
    assert asked == ["onnxruntime, 4"] * (1 + search.space.latency.DRAWN)
    assert (table.engine, table.batch, table.block) == ("onnxruntime", 4, block)
    assert table.error == pytest.approx(0.0, abs=1e-6)
    for widths in ([24, 40, 48], [1, 2, 3], [5, 12, 4], [17, 33, 9]):
        [predicted] = table.seconds(here.graph.costs, np.array([widths]))
        assert predicted == pytest.approx(seconds(here, widths, block), rel=1e-6)
    assert table.fixed == pytest.approx({layer: 3 * value for layer, value in OWN.items()})
    again = calibrated(here.model, here.graph, here.batch, tmp_path / "known.json", engine="onnxruntime")
    assert (again, len(asked)) == (table, 11)
    calibrated(here.model, here.graph, here.batch, tmp_path / "known.json", engine="compiled")
    assert asked[11:] == ["compiled, 4"] * 11  # another engine is another table


def test_a_structure_that_takes_longer_is_an_error_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    here = stack(8, 12, 16)
    clocked(monkeypatch, here, odd=1.25)
    table = calibrated(here.model, here.graph, here.batch)
    assert table.error is not None
    assert 0.15 < table.error < 0.3


def test_a_budget_of_latency_asks_its_engine_for_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    here = stack(8, 12, 16)
    asked = clocked(monkeypatch, here)
    own = Budget(latency="95%", engine="onnxruntime", latency_batch=1)
    problem = prepare_problem(Space("ratios"), here, own, scorer="params")
    assert set(asked) == {"onnxruntime, 1"}
    assert problem.cost_model.dense.latency == pytest.approx(seconds(here, [8, 12, 16]))
    assert sample_count(latency_batch(here, Budget(latency=0.5))) == 4
    with pytest.raises(SecateurError, match="budget latency_batch <= 4 samples of the scoring batch must hold"):
        prepare_problem(Space("ratios"), here, Budget(latency=0.5, latency_batch=5), scorer="params")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's compiler
@pytest.mark.parametrize("engine", ["eager", "compiled", "onnxruntime"])
def test_budgets_hold_by_the_clock_within_the_stated_error(engine: str) -> None:
    """Twenty structures, each beside the dense network, as shares of what that takes: the machine may be busy."""
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="comes with the test extra")
    here = stack(48, 64, 96, side=24, count=16)
    problem = prepare_problem(Space("ratios"), here, Budget(latency="50%", engine=engine), scorer="params")
    table = problem.cost_model.latency
    assert table is not None
    assert table.error is not None
    assert table.error < 0.5
    found = [project(problem, suggested(problem, seed), problem.targets[0]) for seed in range(20)]
    nets = [prune(here.model, here.graph, one.structure).eval() for one in found if isinstance(one, Projected)]
    assert len(nets) == 20
    example = (here.batch,)
    whole, *rest = np.array(timings([on_engine(net, engine, example) for net in (here.model, *nets)], example, 15))
    shares = np.array([np.median(one / whole) for one in rest])
    # What is stated is the largest error of ten structures; of twenty others a few may lie beyond it.
    held = shares <= 0.5 * (1 + table.error)
    assert held.sum() >= 17, (table.error, np.sort(shares).round(3))
