"""The form of reconstruction that needs no forward pass of the pruned network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.reconstruction.grams import gather_grams
from scoring.reconstruction.reconstruct import reconstruct
from tests.backbones.parity import noise, stirred
from tests.graphs import known_trace as trace

IMAGES = noise(40, 3, 8, 8)
READERS: dict[str, list[nn.Module]] = {
    "convolution": [nn.Conv2d(6, 5, 3)],
    "strided, no bias, norm": [nn.Conv2d(6, 5, 3, stride=2, bias=False), nn.BatchNorm2d(5)],
    "no bias": [nn.Conv2d(6, 5, (1, 3), bias=False)],
    "dilated": [nn.Conv2d(6, 5, 2, dilation=3)],
    "grouped": [nn.Conv2d(6, 4, 3, groups=2)],
    "transposed": [nn.ConvTranspose2d(6, 5, 3, stride=2)],
    "grouped transposed": [nn.ConvTranspose2d(6, 4, 3, groups=2)],
    "depthwise first": [nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)],
    "flatten": [nn.Flatten(), nn.Linear(216, 4)],
    "mean": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)],
}


def network(*layers: nn.Module) -> tuple[Any, ChannelGraph]:
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()  # type: ignore[operator]
    model = stirred(nn.Sequential(*layers)).eval()
    return model, trace(model, IMAGES[:1])


def channels(model: nn.Module, graph: ChannelGraph, kept: dict[str, list[int]], images: Tensor = IMAGES) -> Any:
    structure = Structure.of(graph, kept)
    return reconstruct(model, graph, structure, images, method="channels", rows=10**5, ridge=1e-10)


@pytest.mark.parametrize("name", READERS)
def test_equal_channels_and_mixes_of_kept_ones_are_made_up_for(name: str) -> None:
    grouped = "grouped" in name
    for mix in (False, True):
        model, graph = network(nn.Conv2d(3, 6, 3), nn.Identity() if mix else nn.ReLU(), *READERS[name])
        first = model[0]
        with torch.no_grad():
            for gone in (2, 5) if grouped else (5,):  # dropped together: the same place in both parts
                near, other = gone - 1, gone - 2
                first.weight[gone] = 2 * first.weight[near] - (first.weight[other] if mix else 0)
                first.bias[gone] = 2 * first.bias[near] - (first.bias[other] if mix else 0)
        size = graph.groups[0].size
        if name == "depthwise first":
            with torch.no_grad():
                model[2].weight[[4, 3]], model[2].bias[:] = model[2].weight[[5, 5]], 0.0
        small = channels(model, graph, {graph.groups[0].name: list(range(size - 1))})
        with torch.no_grad():
            torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn_cifar", "mobilenet_v3_small"])
def test_a_structure_that_keeps_everything_is_reproduced(name: str) -> None:
    torch.manual_seed(0)
    model = stirred(build(name, 10)).float().eval()
    images = noise(4, 3, 32, 32).float()
    graph = trace(model, images[:1])
    same: Any = reconstruct(model, graph, Structure.full(graph), images, method="channels")
    with torch.no_grad():
        torch.testing.assert_close(same(images), model(images), rtol=1e-6, atol=1e-6)


def test_more_inputs_than_images() -> None:
    model, graph = network(nn.Flatten(), nn.Linear(192, 90), nn.Linear(90, 4))
    with torch.no_grad():
        model[1].weight[7], model[1].bias[7] = model[1].weight[3], model[1].bias[3]
    grams = gather_grams(model, graph, IMAGES)
    assert grams.inputs["2"].rows is not None
    small: Any = reconstruct(
        model,
        graph,
        Structure.of(graph, {"1": [i for i in range(90) if i != 7]}),
        grams,
        method="channels",
        ridge=1e-10,
    )
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-6, atol=1e-6)


def test_maps_of_several_sizes_behind_a_flatten() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(3, 5, 6)
            self.end = nn.Linear(61, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.end(torch.cat([self.a(x).flatten(1), self.b(x).flatten(1)], 1))
            return out

    model: Any = Both().double().eval()
    with torch.no_grad():
        model.a.weight[2], model.a.bias[2] = model.a.weight[0], model.a.bias[0]
    graph = trace(model, IMAGES[:1])
    small = channels(model, graph, {"a": [0, 1, 3]})
    assert gather_grams(model, graph, IMAGES).inputs["end"].rows is not None
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-6, atol=1e-6)


def test_a_batch_norm_takes_the_mean_and_variance_of_what_is_left() -> None:
    model, graph = network(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5))
    with torch.no_grad():
        read = model[2](model[1](model[0](IMAGES)))
        model[3].running_mean.copy_(read.mean((0, 2, 3)))
        model[3].running_var.copy_(read.var((0, 2, 3), correction=0))
    small = channels(model, graph, {"0": [0, 2, 4, 5]})
    with torch.no_grad():
        read = small[2](small[1](small[0](IMAGES)))
    torch.testing.assert_close(small[3].running_mean, read.mean((0, 2, 3)), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(small[3].running_var, read.var((0, 2, 3), correction=0), rtol=1e-6, atol=1e-8)


def test_never_further_from_the_dense_network_than_as_cut() -> None:
    model, graph = network(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten(), nn.Linear(80, 4))
    structure = Structure.of(graph, {"0": [0, 2, 3, 5, 7]})
    refitted: Any = reconstruct(model, graph, structure, IMAGES, method="channels")
    cut: Any = prune(model, graph, structure)
    with torch.no_grad():
        wanted = model[:3](IMAGES)
        assert (refitted[:3](IMAGES) - wanted).norm() < (cut[:3](IMAGES) - wanted).norm()


def test_the_grams_serve_many_structures_and_the_network_stays_as_it_was() -> None:
    model, graph = network(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.BatchNorm2d(5), nn.Flatten())
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grams = gather_grams(model, graph, IMAGES)
    for seed in range(3):
        structure = Structure.random(graph, keep=0.5, seed=seed)
        once: Any = reconstruct(model, graph, structure, grams, method="channels")
        anew: Any = reconstruct(model, graph, structure, [IMAGES[:15], IMAGES[15:]], method="channels")
        for name, value in once.state_dict().items():
            assert torch.equal(value, anew.state_dict()[name])
        assert once.training
        assert once.secateur_as_cut == {}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_stay_as_cut_are_listed() -> None:
    model, graph = network(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3))
    model[2].weight.requires_grad_(False)
    small = channels(model, graph, {"0": [0, 1, 2]})
    assert small.secateur_as_cut == {"2": "its weight is frozen (requires_grad=False)"}
    assert torch.equal(small[2].weight, model[2].weight[:, :3])


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        (IMAGES[:1], {}, "at least 2 are needed"),
        (IMAGES * float("inf"), {}, "images: not finite"),
        (IMAGES, {"rows": 0}, "rows >= 1 must hold"),
        (IMAGES, {"ridge": 0.0}, "ridge > 0 must hold"),
    ],
)
def test_bad_input(images: Tensor, more: dict[str, Any], message: str) -> None:
    model, graph = network(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3))
    with pytest.raises(SecateurError, match=message):
        reconstruct(model, graph, Structure.random(graph, keep=0.5), images, method="channels", **more)
