"""Scores against direct computation with loops, on a small network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.batch_norm import recalibrate
from scoring.scorers import SCORERS, score
from scoring.scoring_task import ScoredStructure, ScoringTask
from tests.graphs import known_trace as trace


class Net(nn.Module):
    """Two convolutions with batch norm and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 3)

    def before_last(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(F.relu(self.before_last(x)).mean((2, 3)))
        return out


NEED_BATCHES = (
    "naswot_balanced",
    "region_kernel",
    "region_separation",
    "fidelity",
    "adaptive_bn",
)
Case = tuple[Net, ChannelGraph, Structure, Tensor, Tensor, list[Tensor], Net]


@pytest.fixture
def case() -> Case:
    torch.manual_seed(5)
    model = Net().eval()
    for _ in range(3):
        model.train()(torch.randn(32, 2, 5, 5))
    model.eval()
    graph = trace(model, torch.randn(1, 2, 5, 5))
    structure = Structure.of(graph, {"conv1": [0, 2, 3, 7], "conv2": [1, 4, 5]})
    images, labels = torch.randn(9, 2, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
    batches = list(torch.randn(40, 2, 5, 5).split(20))
    pruned = prune(model, graph, structure)
    recalibrate(pruned, batches)
    assert isinstance(pruned, Net)
    return model, graph, structure, images, labels, batches, pruned


def agreement(preactivation: Tensor) -> np.ndarray:
    """K / N of one layer, pair by pair."""
    codes = (preactivation.detach().flatten(1) > 0).numpy()
    return np.array([[np.mean(a == b) for b in codes] for a in codes])


def value(name: str, case: Case) -> float:
    model, graph, structure, images, labels, batches, _ = case
    return score(name, model, graph, structure, images, labels, batches)


def pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count) if i < j]


def test_region_separation(case: Case) -> None:
    _, _, _, images, labels, _, pruned = case
    kernel = agreement(pruned.before_last(images))
    same = [kernel[i, j] for i, j in pairs(9) if labels[i] == labels[j]]
    other = [kernel[i, j] for i, j in pairs(9) if labels[i] != labels[j]]
    assert value("region_separation", case) == pytest.approx(np.mean(same) - np.mean(other), abs=1e-9)


def test_region_kernel(case: Case) -> None:
    model, _, _, images, _, _, pruned = case
    ours, dense = agreement(pruned.before_last(images)), agreement(model.before_last(images))
    upper = tuple(np.array(pairs(9)).T)
    assert value("region_kernel", case) == pytest.approx(np.corrcoef(ours[upper], dense[upper])[0, 1], abs=1e-9)


def test_fidelity(case: Case) -> None:
    model, _, _, images, _, _, pruned = case
    ours, dense = pruned(images).detach().numpy(), model(images).detach().numpy()
    cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(ours, dense, strict=True)]
    assert value("fidelity", case) == pytest.approx(np.mean(cosines), abs=1e-6)


def test_adaptive_bn(case: Case) -> None:
    _, _, _, images, labels, _, pruned = case
    right = [int(pruned(images)[i].argmax()) == int(labels[i]) for i in range(9)]
    assert value("adaptive_bn", case) == sum(right) / 9


def test_naswot_balanced(case: Case) -> None:
    _, _, _, images, _, _, pruned = case
    layers = [pruned.bn1(pruned.conv1(images)), pruned.before_last(images)]
    expected = np.mean([np.linalg.slogdet(agreement(layer))[1] for layer in layers])
    assert value("naswot_balanced", case) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in NEED_BATCHES if name != "naswot_balanced"])
def test_a_batch_that_recalibrates_for_itself_needs_one_pass(case: Case, name: str) -> None:
    model, graph, structure, images, labels, _, _ = case
    passes = itertools.count()  # a list would be put back to what it was before the pass, like all that a hook holds

    def counts(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if len(output) == 9:
            next(passes)

    model.conv1.register_forward_hook(counts)
    task = ScoringTask(model, graph, images, labels, [images])
    once = SCORERS[name](ScoredStructure(task, structure))
    assert next(passes) == (1 if name in ("region_separation", "adaptive_bn") else 2)  # and one of the dense network
    twice = score(name, model, graph, structure, images, labels, [images.clone()])
    assert once == pytest.approx(twice, abs=0.02)  # 225 values a channel: variances differ by 0.4 %


def test_region_kernel_of_the_whole_network_is_one(case: Case) -> None:
    model, graph, _, images, labels, batches, _ = case
    recalibrate(model, batches)
    whole = score("region_kernel", model, graph, Structure.full(graph), images, labels, batches)
    assert whole == pytest.approx(1.0, abs=1e-12)


def test_synflow_of_one_linear_layer_is_the_sum_of_its_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    graph = trace(model, torch.ones(1, 3))
    first, second = (model.get_parameter(f"{layer}.weight").detach().abs() for layer in (0, 2))
    flow = float((second @ first @ torch.ones(3)).sum())  # every path counts once in each of the two layers
    result = score("synflow", model, graph, Structure.full(graph), torch.ones(2, 3))
    assert result == pytest.approx(math.log(2 * flow), rel=1e-6)


@pytest.mark.parametrize("name", ["region_separation", "adaptive_bn"])
def test_missing_labels_are_named(case: Case, name: str) -> None:
    model, graph, structure, images, _, batches, _ = case
    with pytest.raises(SecateurError, match=f"scorer '{name}' needs labels"):
        score(name, model, graph, structure, images, None, batches)


@pytest.mark.parametrize("name", NEED_BATCHES)
def test_missing_recalibration_batches_are_named(case: Case, name: str) -> None:
    model, graph, structure, images, labels, _, _ = case
    empty: Sequence[Tensor] = []
    with pytest.raises(SecateurError, match=f"scorer '{name}' needs recalibrate"):
        score(name, model, graph, structure, images, labels, empty)
