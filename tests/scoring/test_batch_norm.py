"""Networks with batch norm folded away against the same networks with it, and what must not be folded."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.memory_order import says_channels_last
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.batch_norm import fold_batch_norms
from scoring.naswot import naswot
from scoring.scorers import score
from scoring.scoring_task import ScoredStructure, ScoringTask, fast_layout
from tests.graphs import known_trace as trace


def stirred(model: nn.Module) -> nn.Module:
    """With statistics and affine parameters that are far from the initial ones."""
    generator = torch.Generator().manual_seed(9)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5
    return model.eval()


class Odd(nn.Module):
    """One pair to fold; a shared convolution, a norm that others read past, one called by function, one with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False)
        self.shared, self.norm2 = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.read, self.norm3 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.called, self.norm4 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.hooked, self.norm5 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.live, self.norm6 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        x = F.relu(self.norm2(self.shared(x)) + self.shared(x))
        read = self.read(x)
        x = F.relu(self.norm3(read) + read)
        norm = self.norm4
        x = F.relu(F.batch_norm(self.called(x), norm.running_mean, norm.running_var, norm.weight, norm.bias))
        x = F.relu(self.norm5(self.hooked(x)))
        x = F.relu(self.norm6(self.live(x)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.mark.parametrize("name", ["resnet20", "resnet20_proj", "vgg16_bn_cifar"])
def test_folded_structures_equal_pruned_ones(name: str) -> None:
    torch.manual_seed(0)
    model = stirred(build(name, 10).double())
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    graph = trace(model, images[:1])
    network = fold_batch_norms(model, graph)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(network.pairs) == norms
    for seed in range(2):
        structure = Structure.random(graph, keep=0.5, seed=seed)
        folded, pruned = network.prune(graph, structure), prune(model, graph, structure)
        assert folded is not None
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        with torch.no_grad():
            torch.testing.assert_close(folded.eval()(images), pruned(images), rtol=1e-10, atol=1e-10)
        assert naswot(folded, images) == naswot(pruned, images)


def test_only_plain_pairs_are_folded_and_the_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = stirred(Odd())
    images = torch.randn(4, 3, 6, 6)
    graph = trace(model, images[:1])
    model.get_submodule("hooked").register_forward_hook(lambda module, args, output: None)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norms(model, graph)
    assert folded.pairs == {"first": "norm1"}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(folded.model(images), model(images), rtol=1e-4, atol=1e-5)


def test_removed_layers_take_their_norms_along() -> None:
    torch.manual_seed(0)
    model = stirred(build("resnet20", 10).double())
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {}, ["layer2.1", "layer1.0"])
    folded = fold_batch_norms(model, graph).prune(graph, structure)
    assert folded is not None
    with torch.no_grad():
        torch.testing.assert_close(
            folded.eval()(images), prune(model, graph, structure)(images), rtol=1e-10, atol=1e-10
        )


def test_a_removed_layer_that_leaves_its_norm_behind_is_not_cut_from_the_folded_network() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1))
    model = stirred(
        nn.Sequential(nn.Conv2d(3, 6, 3), block, nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())
    )
    images = torch.randn(5, 3, 8, 8)
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {}, ["1"])
    assert fold_batch_norms(model, graph).prune(graph, structure) is None
    assert score("naswot", model, graph, structure, images) == naswot(prune(model, graph, structure), images)


class Viewed(nn.Module):
    """Flattens by `view`, which refuses images whose channels lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(F.relu(self.conv(x)).view(len(x), -1))
        return out


def test_code_that_refuses_channels_last_is_run_as_it_wants() -> None:
    torch.manual_seed(0)
    model, images = Viewed(), torch.randn(5, 3, 8, 8)
    assert fast_layout(model, images) is torch.contiguous_format
    graph = trace(model, images[:1])
    assert score("naswot", model, graph, Structure.full(graph), images) == naswot(model, images)
    assert fast_layout(build("resnet20", 10), images) is torch.channels_last


def test_a_layer_of_one_channel_does_not_change_the_memory_order_of_scored_networks() -> None:
    torch.manual_seed(0)
    model, images = build("resnet20", 10).eval(), torch.randn(8, 3, 8, 8)
    graph = trace(model, images[:1])
    [group, *_] = [one.name for one in graph.groups if one.name.endswith("conv1") and "." in one.name]
    task = ScoringTask(model, graph, images, recalibrate=[images], fit=images)
    scored = ScoredStructure(task, Structure.of(graph, {group: [3]}))
    for network in (scored.pruned, scored.folded, scored.refitted("a test"), scored.recalibrated("a test")):
        [one] = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 1]
        assert says_channels_last(one.weight)
