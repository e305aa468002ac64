"""Layers replaced by the identity: blocks, plain layers, and what that couples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost, recount
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.removal import removable, residual_blocks
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_finite_gradients, noise, parameters, stirred


@lru_cache(maxsize=2)
def traced(name: str) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(build(name, 10))
    return model, trace(model, noise(1, 3, 32, 32))


def bypassed(model: nn.Module, modules: tuple[str, ...]) -> nn.Module:
    """The dense model with those modules replaced by hand."""
    twin = build("resnet20", 10).double() if len(list(model.children())) > 3 else build("vgg16_bn_cifar", 10).double()
    twin.load_state_dict(model.state_dict())
    for path in modules:
        parent, _, child = path.rpartition(".")
        setattr(twin.get_submodule(parent), child, nn.Identity())
    return twin.eval()


def test_blocks_of_equal_shape_can_go_and_others_say_why_not() -> None:
    _, graph = traced("resnet20")
    blocks = [path for path in removable(graph) if path.count(".") == 1]
    assert blocks == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    with pytest.raises(SecateurError, match=r"layer 'layer2.0' cannot be removed: its output \(1, 32, 16, 16\) has"):
        cost(graph, Structure.of(graph, {}, removed=["layer2.0"]))
    with pytest.raises(SecateurError, match="layer 'nowhere' cannot be removed"):
        cost(graph, Structure.of(graph, {}, removed=["nowhere"]))


class Branch(nn.Module):
    """A residual block of which the summand is a module, as in MobileNets; `outside`, the sum is not in a block."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor
        if self.kind == "in place":
            out = self.block(x)
            out += x
        elif self.kind == "before":
            out = self.block(x.relu()) + x
        elif self.kind == "concatenated":
            out = torch.cat([self.block(x)[:, :4], x[:, :4]], 1)
        else:
            out = x + self.block(x) if self.kind == "sum" else self.block(x)
        return out


class Blocks(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.head, self.kind = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), kind
        self.stage = nn.Sequential(Branch(kind), Branch(kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.stage(x) if self.kind == "outside" else self.stage(x)
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("kind", ["sum", "in place", "before"])
def test_a_block_that_adds_to_its_input_is_residual_and_its_summand_is_not(kind: str) -> None:
    graph = trace(Blocks(kind).eval(), noise(1, 3, 8, 8).float())
    assert {"stage", "stage.0", "stage.0.block"} <= removable(graph).keys()
    assert residual_blocks(graph) == ("stage.0", "stage.1")


@pytest.mark.parametrize("kind", ["plain", "concatenated", "outside"])
def test_without_a_sum_inside_no_block_is_residual(kind: str) -> None:
    assert residual_blocks(trace(Blocks(kind).eval(), noise(1, 3, 8, 8).float())) == ()


def test_a_convolution_takes_its_norm_along() -> None:
    _, graph = traced("vgg16_bn_cifar")
    assert removable(graph)["features.3"] == ("features.3", "features.4")


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("resnet20", ["layer1.1"]),
        ("resnet20", ["layer1.0", "layer1.1", "layer1.2", "layer3.2"]),
        ("vgg16_bn_cifar", ["features.3"]),
        ("vgg16_bn_cifar", ["features.27", "features.37", "features.40"]),
    ],
)
def test_removal_alone_equals_the_network_with_identities(name: str, removed: list[str]) -> None:
    model, graph = traced(name)
    structure = Structure.of(graph, {}, removed=removed)
    pruned = prune(model, graph, structure).eval()
    modules = tuple(module for path in removed for module in removable(graph)[path])
    wanted = bypassed(model, modules)(*graph.example)
    assert torch.allclose(pruned(*graph.example), wanted, rtol=1e-9, atol=1e-12)
    assert cost(graph, structure).macs == recount(pruned, graph.example).macs < graph.costs.dense.macs
    assert cost(graph, structure).params == parameters(pruned)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_removed_blocks_and_kept_channels_together(seed: int) -> None:
    model, graph = traced("resnet20")
    rng = np.random.default_rng(seed)
    blocks = [path for path in removable(graph) if path.count(".") == 1]
    removed = sorted(rng.choice(blocks, size=int(rng.integers(1, len(blocks))), replace=False).tolist())
    kept = Structure.random(graph, keep=0.5, seed=seed).keep
    structure = Structure.of(graph, kept, removed=removed)
    pruned = prune(model, graph, structure)
    assert cost(graph, structure).macs == recount(pruned, graph.example).macs
    assert cost(graph, structure).params == parameters(pruned)
    assert_finite_gradients(pruned, graph)
    assert Structure.from_json(structure.to_json()) == structure
    # the same channels without the removal differ by the blocks alone: bypass them in the pruned network by hand
    whole = prune(model, graph, Structure.of(graph, kept))
    for path in removed:
        parent, _, child = path.rpartition(".")
        setattr(whole.get_submodule(parent), child, nn.Identity())
    assert torch.allclose(whole.eval()(*graph.example), pruned(*graph.example), rtol=1e-9, atol=1e-12)


def test_a_plain_layer_unites_the_groups_on_both_sides() -> None:
    model, graph = traced("vgg16_bn_cifar")
    equal = {"features.0": range(10), "features.3": range(10)}
    structure = Structure.of(graph, equal, removed=["features.3"])
    assert prune(model, graph, structure).get_submodule("features.7").in_channels == 10
    unequal = Structure.of(graph, {"features.0": range(10)}, removed=["features.3"])
    with pytest.raises(SecateurError, match=r"unites the channels of features.0 and features.3; they must keep equal"):
        cost(graph, unequal)


@pytest.mark.parametrize("removed", [["features.3"], ["features.27", "features.37", "features.40"]])
def test_a_network_without_layers_can_be_trained_where_activations_were_in_place(removed: list[str]) -> None:
    model, graph = traced("vgg16_bn_cifar")
    small = prune(model, graph, Structure.of(graph, {}, removed=removed))
    assert not any(getattr(module, "inplace", False) for module in small.modules())
    assert any(getattr(module, "inplace", False) for module in model.modules())
    assert_finite_gradients(small, graph)
