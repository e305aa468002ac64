"""The text of `secateur inspect`."""

from __future__ import annotations

import torch
from torch import nn

from backbones.inspect_table import describe, mac_shares, minimum
from backbones.registry import build
from tests.graphs import known_trace as trace


def test_a_small_network_in_full() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    text = describe(trace(model, torch.zeros(1, 3, 2, 2)))
    assert text == "\n".join(
        [
            "dense                        1,024 MACs            294 parameters",
            "reachable minimum              120 MACs             40 parameters",
            "                            11.72% of the MACs, one channel a group",
            "",
            "2 prunable groups, 12 channels",
            "  group  size  share  layers",
            "  0         8  96.9%  0, 2",
            "  2         4  15.6%  2, 4",
            "share: of the MACs, that the channels take part in; layers have two sides, so",
            "shares overlap",
            "",
            "2 channels stay",
            "  layer  channels  reason",
            "  4             2  network output",
        ]
    )


def test_long_lists_are_cut_and_unused_parameters_named() -> None:
    model = build("resnet20", 10)
    model.auxiliary = nn.Linear(8, 2)
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    text = describe(graph)
    words = " ".join(text.split())
    assert "conv1, bn1, layer1.0.conv1, layer1.0.conv2 and " in words
    assert "never used by the traced forward pass (eval mode): auxiliary.weight, auxiliary.bias" in words
    assert 0 < minimum(graph).macs < 0.02 * graph.costs.dense.macs
    assert all(0 < share < 1 for share in mac_shares(graph).values())


def test_it_fits_a_terminal_and_cuts_no_name() -> None:
    inner = nn.Sequential()
    inner.add_module("a_projection_with_a_long_name", nn.Conv2d(3, 8, 1))
    inner.add_module("another_one", nn.Conv2d(8, 4, 1))
    model = nn.Sequential()
    model.add_module("a_backbone_of_somebody", inner)
    text = describe(trace(model, torch.zeros(1, 3, 2, 2)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    name = "a_backbone_of_somebody.a_projection_with_a_long_name"
    assert f"  {name}" in lines  # on a line of its own, the figures below it
    assert lines[lines.index(f"  {name}") + 1].split()[:2] == ["8", "100.0%"]
    assert max(map(len, describe(trace(build("resnet20", 10), torch.zeros(1, 3, 8, 8))).splitlines())) <= 80
