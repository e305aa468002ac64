"""Images and weights of one channel, whose memory order torch cannot tell but by their strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.memory_order import in_order, keep_order, says_channels_last
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace

LAST, FIRST = torch.channels_last, torch.contiguous_format


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), st.booleans())
def test_any_size_says_its_order_and_keeps_its_values(shape: list[int], start_last: bool) -> None:
    value = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    start = in_order(value, LAST if start_last else FIRST)
    for order in (LAST, FIRST):
        moved = in_order(start, order)
        torch.testing.assert_close(moved, value, rtol=0, atol=0)
        assert moved.is_contiguous(memory_format=order)
        assert moved.stride() == torch.empty(shape, memory_format=order).stride()
        assert says_channels_last(moved) == (order is LAST and moved.stride() != torch.empty(shape).stride())
    if shape[1] == 1:
        assert in_order(start, LAST).data_ptr() == start.data_ptr()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 2, 2)])
def test_other_tensors_are_left_alone(shape: tuple[int, ...]) -> None:
    value = torch.zeros(shape)
    assert in_order(value, LAST) is value
    assert not says_channels_last(value)


class Bottleneck(nn.Module):
    """A residual branch that can be cut to one channel, with what stands between two convolutions."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.narrow = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.between, self.wide = between, nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.wide(self.between(self.narrow(x))) + x
        self.last = says_channels_last(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.mark.parametrize("between", [nn.ReLU(), nn.BatchNorm2d(4), nn.Sigmoid()])
def test_a_network_cut_to_one_channel_stays_in_order(between: nn.Module) -> None:
    torch.manual_seed(0)
    model, images = Bottleneck(between).eval(), torch.randn(5, 3, 8, 8)
    graph = trace(model, images[:1])
    pruned: Any = prune(model, graph, Structure.of(graph, {"narrow": [2]}), check=False)
    laid = in_order(images, LAST)
    with torch.no_grad():
        before = pruned(laid)
        assert not pruned.last
        kept = pruned.wide.weight
        keep_order(pruned, LAST)
        torch.testing.assert_close(pruned(laid), before, rtol=1e-5, atol=1e-6)
        assert pruned.last
        assert pruned.wide.weight is not kept
        assert kept.stride() == torch.empty(kept.shape).stride()
        keep_order(pruned, FIRST)
        pruned(images)
        assert not pruned.last
