"""Latency beside each other, and bytes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbones.errors import SecateurError
from search.review.footprint import disk_size, footprints


def test_larger_network_takes_longer_and_more_room() -> None:
    small = nn.Conv2d(3, 4, 3)
    large = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1) for i in range(4)), nn.Dropout())
    large.train()
    found = footprints({"small": small, "large": large}, torch.randn(8, 3, 24, 24), rounds=5)
    assert found["small"].latency < found["large"].latency
    assert found["small"].disk < found["large"].disk
    assert all(one.spread >= 0 for one in found.values())
    assert large.training
    assert large[4].training


def test_size_is_that_of_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert disk_size(model) == (tmp_path / "model.safetensors").stat().st_size


def test_tied_weights_are_stored_once() -> None:
    first, second = nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False)
    apart = disk_size(nn.Sequential(first, second))
    second.weight = first.weight
    assert apart - disk_size(nn.Sequential(first, second)) >= 50 * 50 * 4


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(SecateurError, match="3 <= rounds must hold, but got rounds=1"):
        footprints({"a": nn.Linear(1, 1)}, torch.zeros(1, 1), rounds=1)
