"""The models of torchvision and timm, where those are installed: traced, pruned, held to the law."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from backbones import Structure, trace
from tests.backbones.parity import assert_law, noise, stirred

TIMM = (
    "resnet18", "resnext50_32x4d", "densenet121", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100",
    "convnext_tiny", "regnety_002", "repvgg_a0", "ghostnet_100", "hrnet_w18_small", "inception_v3", "vgg11_bn",
    "xception41", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip


def hold(model: nn.Module, size: int) -> None:
    """Parity in float64 for networks without shared statistics, exact MACs for all."""
    model = stirred(copy.deepcopy(model)).eval()
    graph = trace(model, noise(1, 3, size, size))
    unused = [name for name, _ in model.named_parameters()]
    assert_law(model, graph, Structure.random(graph, keep=0.6, seed=0), values=not graph.mixed, without_gradient=unused)


def _torchvision() -> list[str]:
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return []
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", _torchvision() or ["resnet18"])
def test_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    size = 299 if name == "inception_v3" else 224
    hold(torchvision.models.get_model(name, weights=None), size)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    pytest.importorskip("torchvision")
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    hold(model, int(model.default_cfg["input_size"][-1]))
