"""CIFAR ResNets: sizes from the literature, any input size, and the law under random structures.

Of the deeper ones `test_contract.py` holds the law.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost, recount
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from tests.backbones.parity import assert_law, noise, parameters, stirred
from tests.graphs import known_trace as trace

NAMES = [f"resnet{depth}{suffix}" for depth in (20, 32, 44, 56, 110) for suffix in ("", "_proj")]


@lru_cache(maxsize=16)
def traced(name: str, channels: int = 3, size: int = 8) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(build(name, 10, channels))
    return model, trace(model, noise(1, channels, size, size))


def test_resnet56_has_the_published_size() -> None:
    """125.49 M MACs and 0.85 M parameters: the dense row of the pruning literature (HRank, DepGraph)."""
    model = build("resnet56", 10)
    example = torch.zeros(1, 3, 32, 32)
    graph = trace(model, example)
    assert graph.costs.dense.macs == 125_485_696 == recount(model, (example,)).macs
    assert graph.costs.dense.params == 853_018 == parameters(model)


@pytest.mark.parametrize(("depth", "params"), [(20, 0.27e6), (32, 0.46e6), (44, 0.66e6), (56, 0.85e6), (110, 1.7e6)])
def test_parameters_are_those_of_the_paper(depth: int, params: float) -> None:
    """He et al., CVPR 2016, table 6."""
    assert parameters(build(f"resnet{depth}", 10)) == pytest.approx(params, rel=0.03)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.floats(0.1, 1.0))
@pytest.mark.parametrize("name", ["resnet20", "resnet20_proj"])
def test_law_under_random_structures(name: str, seed: int, keep: float) -> None:
    model, graph = traced(name)
    assert_law(model, graph, Structure.random(graph, keep=keep, seed=seed))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (4, 15)])
def test_any_image(channels: int, size: int) -> None:
    model, graph = traced("resnet20", channels, size)
    assert_law(model, graph, Structure.random(graph, macs=0.3, seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_and_runs(name: str) -> None:
    assert build(name, 7, 1).eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_residual_stream_and_block_insides_are_groups() -> None:
    """3 stages: the zero-padded channels of each stage follow their own way, the insides of 9 blocks are free."""
    _, graph = traced("resnet20")
    assert graph.frozen[0].layer == "linear"
    assert graph.frozen[0].reason == "network output"
    inner = [group for group in graph.groups if group.name.endswith("conv1") and "layer" in group.name]
    assert [group.size for group in inner] == [16] * 3 + [32] * 3 + [64] * 3
    stream = [group for group in graph.groups if group not in inner]
    assert sum(group.size for group in stream) == 64
    assert [group.size for group in stream] == [16, 16, 32]
    assert {member.tensor for member in stream[0].inputs} >= {"layer1.0.conv1.weight", "layer3.2.conv1.weight"}


def test_a_random_structure_lands_on_its_budget() -> None:
    _, graph = traced("resnet20", 3, 32)
    reached = cost(graph, Structure.random(graph, macs=0.2, seed=5)).macs / graph.costs.dense.macs
    assert 0.17 < reached <= 0.2


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SecateurError, match="unknown backbone 'resnet65'; did you mean 'resnet56'"):
        build("resnet65", 10)
    with pytest.raises(SecateurError, match=r"num_classes >= 1 .* got num_classes=0"):
        build("resnet20", 0)
