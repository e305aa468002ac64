"""Sizes and parameter names of the backbones against what others publish, on meta tensors: nothing is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.cost import recount
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.registry import BACKBONES, build
from tests.backbones.torchvision_shapes import TORCHVISION, torchvision_state

TORCHVISION_SIZES = {
    "alexnet": (0.714, 61_100_840),
    "vgg16": (15.47, 138_357_544),
    "vgg16_bn": (15.47, 138_365_992),
    "resnet18": (1.814, 11_689_512),
    "resnet34": (3.664, 21_797_672),
    "resnet50": (4.089, 25_557_032),
    "mobilenet_v3_large": (0.217, 5_483_032),
    "mobilenet_v3_small": (0.057, 2_542_856),
}
"""Billions of MACs at 224 pixels (called GFLOPS there) and parameters: pytorch.org/vision/stable/models.html."""

CIFAR_SIZES = {"resnet56": (1.25e8, 8.5e5), "resnet110": (2.53e8, 1.72e6), "vgg16_bn_cifar": (3.13e8, 1.5e7)}
"""MACs at 32 pixels (called FLOP there) and parameters: Li et al., ICLR 2017, table 1."""


def outline(name: str, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return build(name, num_classes)


def size_of(name: str, num_classes: int, pixels: int) -> Cost:
    return recount(outline(name, num_classes), (torch.empty(1, 3, pixels, pixels, device="meta"),))


@pytest.mark.parametrize("name", TORCHVISION_SIZES)
def test_sizes_of_torchvision(name: str) -> None:
    found, (macs, params) = size_of(name, 1000, 224), TORCHVISION_SIZES[name]
    assert round(found.macs / 1e9, 3) == macs
    assert found.params == params


@pytest.mark.parametrize("name", CIFAR_SIZES)
def test_sizes_on_cifar(name: str) -> None:
    found, (macs, params) = size_of(name, 10, 32), CIFAR_SIZES[name]
    assert found.macs == pytest.approx(macs, rel=0.005)
    assert found.params == pytest.approx(params, rel=0.02)


@pytest.mark.parametrize(("depth", "params"), [(18, 11.2e6), (34, 21.3e6), (50, 23.7e6)])
def test_sizes_without_the_large_stem(depth: int, params: float) -> None:
    """On CIFAR-100: the table of github.com/weiaicunzai/pytorch-cifar100, whose stem is the same 3x3 of stride 1."""
    assert size_of(f"resnet{depth}_tiny", 100, 64).params == pytest.approx(params, rel=0.003)


def test_size_of_alexnet_on_cifar() -> None:
    """The table of github.com/bearpaw/pytorch-classification."""
    assert round(size_of("alexnet_cifar", 10, 32).params / 1e6, 2) == 2.47


def test_size_of_the_bilinear_network() -> None:
    """VGG-16's convolutions at 448 pixels: 4 x 15.347 G; then 28 x 28 positions and one weight a class and pair."""
    whole = size_of("vgg16_bn", 200, 224)
    linear = 25_088 * 4096 + 4096 * 4096 + 4096 * 200
    found = size_of("bcnn_vgg16_bn", 200, 448)
    assert found.macs == 4 * (whole.macs - linear) + 28 * 28 * 512 * 512 + 200 * 512 * 512
    assert found.params == whole.params - (linear + 2 * 4096 + 200) + 200 * 512 * 512 + 200


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameter_names_and_shapes_of_torchvision(name: str) -> None:
    found = {key: tuple(value.shape) for key, value in outline(name, 1000).state_dict().items()}
    assert list(found.items()) == list(torchvision_state(name).items())


@pytest.mark.parametrize("name", ["bcnn_vgg16_bn", "bcnn_vgg16_bn_cifar"])
def test_the_bilinear_network_has_the_convolutions_of_torchvision(name: str) -> None:
    def convolutions(state: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, shape in state.items() if key.startswith("features.")}

    found = {key: tuple(value.shape) for key, value in outline(name, 200).state_dict().items()}
    assert convolutions(found) == convolutions(dict(torchvision_state("vgg16_bn")))
    assert {key for key in found if not key.startswith("features.")} == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(("name", "pixels"), [("alexnet", 63), ("vgg16", 32), ("vgg16_bn", 32), ("bcnn_vgg16_bn", 16)])
def test_the_smallest_image(name: str, pixels: int) -> None:
    assert size_of(name, 10, pixels).macs > 0
    with pytest.raises(SecateurError, match=f"takes images of {pixels}x{pixels} pixels or more, but got {pixels - 1}x"):
        size_of(name, 10, pixels - 1)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.endswith(("_cifar", "_tiny", "_proj"))])
def test_small_forms_take_any_image(name: str) -> None:
    """Really computed, which takes less than meta tensors do; 8x8 is what `test_contract.py` runs on."""
    model = build(name, 10).eval()
    for pixels in (1, 15, 48):
        with torch.no_grad():
            assert model(torch.zeros(1, 3, pixels, pixels)).shape == (1, 10)
