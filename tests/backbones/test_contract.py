"""What every backbone that can be built by name has to do: be traced, pruned, counted, saved, loaded and trained.

The small forms run on 8x8 images of one channel, so that studies on digits are possible; the others on the smallest
image that they take. Published sizes are in `test_published.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.artefact import load, save
from backbones.cost import cost, recount
from backbones.graph import ChannelGraph
from backbones.registry import BACKBONES, build
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred

SMALLEST = {"alexnet": 63, "vgg16": 32, "vgg16_bn": 32, "bcnn_vgg16_bn": 16}
"""Pixels of the smallest image; the other networks take 8x8 digits."""

HEAVY = (
    "resnet32", "resnet32_proj", "resnet44", "resnet44_proj", "resnet56", "resnet56_proj", "resnet110",
    "resnet110_proj", "resnet18", "resnet34", "resnet34_tiny", "resnet50_tiny", "vgg16_bn", "mobilenet_v3_large",
    "mobilenet_v3_large_cifar", "mobilenet_v3_small", "bcnn_vgg16_bn",
)  # fmt: skip
"""Left to the slow tests: the same code at another depth, or with the other stem, is tested by default."""

HIDDEN = 64
"""Units of the linear layers of AlexNet and VGG-16, which have 4,096: half of the default tests' time here."""


@dataclass(frozen=True)
class Subject:
    """A backbone with ten classes, its graph, and a random structure with a fifth of the MACs."""

    name: str
    model: nn.Module
    graph: ChannelGraph
    structure: Structure
    pruned: nn.Module


@pytest.fixture(autouse=True, scope="module")
def _narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backbones.architectures.vgg.HIDDEN", HIDDEN)
        yield


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in BACKBONES]
)
def subject(request: pytest.FixtureRequest) -> Subject:
    name = request.param
    pixels, channels = SMALLEST.get(name, 8), 3 if name in SMALLEST else 1
    torch.manual_seed(0)
    model = stirred(build(name, 10, channels))
    example = noise(1, channels, pixels, pixels)
    graph = trace(model, example)
    structure = Structure.random(graph, macs=0.2, seed=1)
    return Subject(name, model, graph, structure, prune(model, graph, structure))


def test_everything_but_the_classes_can_be_pruned(subject: Subject) -> None:
    assert {record.reason for record in subject.graph.frozen} == {"network output"}
    assert len({record.layer for record in subject.graph.frozen}) == 1
    assert not subject.graph.mixed
    assert not subject.graph.unreached


def test_law(subject: Subject) -> None:
    """Pruned equals masked, arithmetic equals a recount, gradients are finite: random widths, a fifth of the MACs."""
    assert_law(subject.model, subject.graph, subject.structure)


def test_arithmetic_of_the_dense_network_equals_a_recount(subject: Subject) -> None:
    dense = cost(subject.graph, Structure.full(subject.graph))
    assert dense == recount(subject.model, subject.graph.example)


def test_lands_on_a_fifth_of_the_macs(subject: Subject) -> None:
    dense, small = (recount(model, subject.graph.example).macs for model in (subject.model, subject.pruned))
    assert 0.19 < small / dense <= 0.2
    assert min(subject.structure.widths.values()) < max(subject.structure.widths.values())


def test_pruned_is_saved_and_loaded_without_a_trace(subject: Subject, tmp_path: Path) -> None:
    small = copy.deepcopy(subject.pruned).float().eval()
    save(small, tmp_path / "small.safetensors")
    loaded = load(tmp_path / "small.safetensors")
    image = subject.graph.example[0].float()
    with torch.no_grad():
        same = torch.equal(loaded(image), small(image))
    assert same
    assert [value.shape for value in loaded.parameters()] == [value.shape for value in small.parameters()]


def test_pruned_can_be_trained(subject: Subject) -> None:
    """A batch of two in training mode: the loss is finite, and so is every weight's gradient."""
    images = torch.cat([subject.graph.example[0], noise(*subject.graph.example[0].shape, seed=1)])
    images = images.to(subject.graph.example[0])
    model = copy.deepcopy(subject.pruned).train()
    loss = F.cross_entropy(model(images), torch.tensor([3, 7]))
    loss.backward()
    assert torch.isfinite(loss)
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
