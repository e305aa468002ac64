"""How essential a layer is, against computations by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.registry import build
from backbones.structure import Structure
from scoring.essentiality import accuracy_of, essentiality, removable_blocks
from scoring.scoring_task import ScoredStructure, ScoringTask
from tests.graphs import known_trace as trace


class Turns(nn.Module):
    """Three linear layers of equal width: one does nothing, one turns a little, one flips every sign."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.still = nn.Linear(4, 4, bias=False)
        self.slight = nn.Linear(4, 4, bias=False)
        self.flip = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            for layer, weight in (
                (self.first, torch.eye(4)),
                (self.still, 2 * torch.eye(4)),
                (self.slight, torch.eye(4) + 0.3 * torch.ones(4, 4)),
                (self.flip, -torch.eye(4)),
                (self.head, -torch.eye(4)),
            ):
                layer.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flip(self.slight(self.still(self.first(x))))
        out: Tensor = self.head(torch.nn.functional.hardtanh(x, -50, 50))
        return out


@pytest.fixture(scope="module")
def task() -> ScoringTask:
    torch.manual_seed(0)
    model = Turns().eval()
    images = torch.rand(32, 4)
    return ScoringTask(model, trace(model, images[:1]), images, images.argmax(1))


LAYERS = ("still", "slight", "flip")


def test_cosine_is_one_minus_the_cosine_of_input_and_output(task: ScoringTask) -> None:
    found = essentiality("cosine", task, LAYERS)
    assert found["still"] == pytest.approx(0.0, abs=1e-6)
    assert found["flip"] == pytest.approx(2.0)
    before = 2 * task.batch
    after = before + 0.3 * before.sum(1, keepdim=True)
    wanted = 1 - F.cosine_similarity(before.double(), after.double(), dim=1).mean().item()
    assert found["slight"] == pytest.approx(wanted, rel=1e-5)


class Named(Turns):
    """Hands its layers their input by name."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.flip(input=self.slight(input=self.still(input=self.first(x))))
        out: Tensor = self.head(torch.nn.functional.hardtanh(x, -50, 50))
        return out


def test_layers_that_get_their_input_by_name_are_measured_alike(task: ScoringTask) -> None:
    model = Named().eval()
    named = ScoringTask(model, trace(model, task.images[:1]), task.batch, task.labels)
    assert essentiality("cosine", named, LAYERS) == essentiality("cosine", task, LAYERS)


def test_accuracy_is_the_fall_when_the_layer_is_bypassed(task: ScoringTask) -> None:
    assert accuracy_of(task.model, task) == 1.0
    found = essentiality("accuracy", task, LAYERS)
    assert found["still"] == found["slight"] == 0.0
    assert found["flip"] == pytest.approx(1.0)  # the largest input has the smallest logit


class Noted(nn.Module):
    """A convolution and a norm, which note what they are run on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.seen: list[tuple[torch.dtype, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.seen.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last)))
        out: Tensor = self.head(self.norm(x).relu().mean((2, 3)))
        return out


@pytest.mark.parametrize("half", [False, True])
def test_accuracy_is_measured_in_the_arithmetic_and_layout_of_scores(half: bool) -> None:
    torch.manual_seed(0)
    model = Noted().eval()
    images = torch.randn(16, 3, 6, 6)
    labels = model(images).argmax(1)
    task = ScoringTask(model, trace(model, images[:1]), images, labels, half=half)
    full = ScoredStructure(task, Structure.full(task.graph)).folded
    assert isinstance(full.norm, nn.Identity)
    full.seen = []  # type: ignore[assignment]
    assert accuracy_of(full, task) >= 0.9
    assert full.seen == [(torch.bfloat16 if half else torch.float32, True)]


def test_score_is_the_fall_in_a_score(task: ScoringTask) -> None:
    found = essentiality("score", task, LAYERS, "params")
    assert set(found.values()) == {16.0}


def test_a_measurement_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = build("resnet20", 10).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(4, 3, 16, 16)
    graph = trace(model, images[:1])
    found = essentiality("cosine", ScoringTask(model, graph, images), removable_blocks(graph))
    assert set(found) == {"layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"}
    assert all(0 <= value <= 2 for value in found.values())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_single_layers_where_there_are_no_blocks() -> None:
    model = build("vgg16_bn_cifar", 10)
    found = removable_blocks(trace(model, torch.randn(1, 3, 32, 32)))
    assert "features.3" in found
    assert all(isinstance(model.get_submodule(path), nn.Conv2d | nn.Linear) for path in found)


def test_bad_questions_are_refused(task: ScoringTask) -> None:
    with pytest.raises(SecateurError, match=r"unknown essentiality 'cos'"):
        essentiality("cos", task, LAYERS)
    with pytest.raises(SecateurError, match=r"unknown removable layer 'head2'"):
        essentiality("cosine", task, ["head2"])
    with pytest.raises(SecateurError, match="'accuracy' needs labels"):
        essentiality("accuracy", ScoringTask(task.model, task.graph, task.batch), LAYERS)


def test_a_rank_sum_cannot_say_how_essential_a_layer_is() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten())
    task = ScoringTask(model.eval(), trace(model, torch.randn(1, 3, 4, 4)), torch.randn(4, 3, 4, 4))
    with pytest.raises(SecateurError, match=r"essentiality by score needs a single scorer, but got the rank sum 'a"):
        essentiality("score", task, (), "adaptive_bn+params")
