"""Tracing takes at most twice the time of torch.export itself and a second."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from backbones.modes import evaluating
from backbones.registry import build
from backbones.trace import trace
from tests.backbones.test_zoo import ZOO


def hold(model: nn.Module, example: Sequence[Any]) -> None:
    """The best of two measurements of each half counts: other work may disturb one."""
    traces, exports = [], []
    for _ in range(2):
        start = time.perf_counter()
        trace(model, tuple(example))
        middle = time.perf_counter()
        with evaluating(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, tuple(example), strict=False)
        exports.append(time.perf_counter() - middle)
        traces.append(middle - start)
        assert exported.graph is not None
    assert min(traces) < 2 * min(exports) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_of_the_zoo(name: str) -> None:
    sample = ZOO[name]()
    hold(sample.model.double(), sample.example)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("name", ["resnet20", "resnet56", "resnet110", "vgg16_bn_cifar", "vgg16_bn"])
def test_of_the_backbones(name: str, size: int) -> None:
    torch.manual_seed(0)
    hold(build(name, 10), (torch.randn(1, 3, size, size),))
