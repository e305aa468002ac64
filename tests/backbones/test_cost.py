"""Cost by arithmetic: literal counts, exactness, speed."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost, recount
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from tests.backbones.parity import parameters
from tests.graphs import known_trace as trace


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(torch.relu(self.conv(x)).flatten(1))
        return y


@lru_cache(maxsize=2)
def traced(name: str) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = build(name, 10)
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def test_counts_by_hand() -> None:
    graph = trace(TwoLayers(), torch.zeros(1, 3, 4, 4))
    # 8 filters of 3 x 3 x 3 on 2 x 2 positions; 5 outputs of 32 values
    assert graph.costs.dense.macs == 8 * 27 * 4 + 5 * 32
    assert graph.costs.dense.params == 8 * 27 + 8 + 5 * 32 + 5
    half = cost(graph, Structure.of(graph, {"conv": [0, 2, 7]}))
    assert half.macs == 3 * 27 * 4 + 5 * 12
    assert half.params == 3 * 27 + 3 + 5 * 12 + 5
    assert half.latency is None
    assert half.memory is None


def test_macs_do_not_depend_on_the_batch() -> None:
    model = TwoLayers()
    one, four = (trace(model, torch.zeros(batch, 3, 4, 4)).costs.dense for batch in (1, 4))
    assert one == four


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.floats(0.02, 1.0))
def test_equal_to_a_recount(seed: int, keep: float) -> None:
    model, graph = traced("resnet20")
    structure = Structure.random(graph, keep=keep, seed=seed)
    pruned = prune(model, graph, structure)
    assert cost(graph, structure).macs == recount(pruned, graph.example).macs
    assert cost(graph, structure).params == parameters(pruned)


def test_shares_of_the_layers_add_up() -> None:
    _, graph = traced("resnet20")
    macs = graph.costs.op_macs(graph.costs.dense_kept)
    assert int(macs.sum()) == graph.costs.dense.macs
    assert dict(zip(graph.costs.op_layers, macs.tolist(), strict=True))["linear"] == 640


def test_keeping_everything_costs_the_dense_network() -> None:
    _, graph = traced("resnet20")
    assert cost(graph, Structure.full(graph)) == graph.costs.dense


def test_takes_at_most_a_tenth_of_a_millisecond() -> None:
    """100 microseconds for ResNet-56 (median of many, so that a busy machine does not fail it)."""
    _, graph = traced("resnet56")
    structures = [Structure.random(graph, keep=0.5, seed=seed) for seed in range(20)]
    times = []
    for _ in range(20):
        for structure in structures:
            start = time.perf_counter()
            cost(graph, structure)
            times.append(time.perf_counter() - start)
    assert float(np.median(times)) < 100e-6
