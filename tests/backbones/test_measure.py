"""Latency side by side and peak activation memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.measure import latency, peak_memory
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace


class Chain(nn.Module):
    """x (4 KB a map of 32x32 float32): 2 maps, 4 maps, ReLU of them, mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.b(self.a(x))).mean((2, 3))
        return y


class Wide(Chain):
    """Keeps the first maps alive to the end."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        y: Tensor = torch.relu(self.b(a)).mean((2, 3)) + a.mean()
        return y


def test_peak_memory_by_hand() -> None:
    """The largest moment is the ReLU: its 4 maps of input and 4 of output; `Wide` still holds 2 more."""
    example = (torch.zeros(1, 1, 32, 32),)
    assert peak_memory(Chain(), example) == 8 * 4096
    assert peak_memory(Wide(), example) == 10 * 4096


def test_peak_memory_falls_with_the_widths_and_grows_with_the_batch() -> None:
    torch.manual_seed(0)
    model = build("resnet20", 10)
    graph = trace(model, torch.zeros(1, 3, 16, 16))
    pruned = prune(model, graph, Structure.random(graph, keep=0.3))
    dense = peak_memory(model, graph.example)
    assert peak_memory(pruned, graph.example) < 0.8 * dense
    assert peak_memory(model, (torch.zeros(4, 3, 16, 16),)) == 4 * dense


def test_latency_says_what_it_was_measured_with() -> None:
    torch.manual_seed(0)
    model = build("resnet20", 10).train()
    example = (torch.zeros(8, 3, 32, 32),)
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    pruned = prune(model, graph, Structure.random(graph, macs=0.1))
    found = latency(model, pruned, example, rounds=5)
    assert found.speedup > 1.2
    assert found.low <= found.speedup <= found.high
    assert min(found.pruned, found.dense) > 0  # a busy clock decides between them: the quotient is of pairs
    assert (found.batch, found.rounds, found.threads) == (8, 5, torch.get_num_threads())
    assert found.device.startswith("cpu, ")
    assert model.training
    with pytest.raises(SecateurError, match="rounds >= 4 must hold, but got rounds=1"):
        latency(model, pruned, example, rounds=1)
