"""VGG-16 with batch norm, for small and for large images."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import recount
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from tests.backbones.parity import assert_law, noise, parameters, stirred
from tests.graphs import known_trace as trace


@lru_cache(maxsize=1)
def small() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(build("vgg16_bn_cifar", 10))
    return model, trace(model, noise(1, 3, 32, 32))


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.floats(0.1, 0.9))
def test_law_under_random_structures(seed: int, keep: float) -> None:
    model, graph = small()
    assert_law(model, graph, Structure.random(graph, keep=keep, seed=seed))


def test_one_group_a_convolution() -> None:
    _, graph = small()
    assert [group.size for group in graph.groups] == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [record.layer for record in graph.frozen] == ["classifier"]


def test_published_size() -> None:
    """313.2 M MACs and 14.7 M parameters: the dense row of the CIFAR pruning literature."""
    model, graph = small()
    assert graph.costs.dense.macs == 313_201_664 == recount(model, graph.example).macs
    assert graph.costs.dense.params == 14_728_266 == parameters(model)


@pytest.mark.slow
def test_the_large_form() -> None:
    """138.4 M parameters (Simonyan and Zisserman 2015, table 2, plus batch norm); flatten of 7x7 maps."""
    model = build("vgg16_bn", 1000)
    example = torch.randn(1, 3, 64, 64)
    graph = trace(model, example)
    assert graph.costs.dense.params == 138_365_992 == parameters(model)
    assert graph.by_name["features.40"].inputs[0].index.shape == (512, 49)
    stir = stirred(model)
    graph = trace(stir, example.double())
    assert_law(stir, graph, Structure.random(graph, keep=0.3, seed=0))
