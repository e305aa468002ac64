"""The models of torchvision and timm, where those are installed: traced, pruned, held to the law."""

from __future__ import annotations

import importlib
import re
import warnings
from types import ModuleType

import pytest
import torch
from torch import nn

from backbones.pruning_check import nonconstant_weights
from backbones.structure import Structure
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]

TIMM = (
    "resnet18", "resnet26d", "resnext50_32x4d", "seresnet50", "densenet121", "efficientnet_b0", "efficientnet_lite0",
    "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "convnext_tiny", "regnetx_002", "regnety_002",
    "repvgg_a0", "ghostnet_100", "ghostnetv2_100", "hrnet_w18_small", "inception_v3", "inception_v4", "vgg11_bn",
    "xception41", "legacy_xception", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip

TOO_LARGE = ("regnet_y_128gf", "vit_h_14")
"""Over 600 million parameters: several copies of them do not fit a common machine."""

SMALL = re.compile(
    r"resnet1(01|52)|resnext|wide|vgg|densenet|regnet_._(8|16|32)gf|efficientnet_(b[4-7]|v2)|convnext|xception"
)
"""Networks that also run on images of 128 x 128, which saves most of the time."""

DOUBLED = 60_000_000
"""Networks with more parameters are compared in float32."""


def library(name: str) -> ModuleType | None:
    """A package if it can be imported; torchvision raises RuntimeError when its compiled part does not fit torch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return None


torchvision = library("torchvision")
timm = library("timm") if torchvision is not None else None


def classifiers() -> list[str]:
    """Every classifier of torchvision, one name when it is not there."""
    names = torchvision.models.list_models(module=torchvision.models) if torchvision is not None else ["resnet18"]
    return [name for name in names if name not in TOO_LARGE]


def hold(model: nn.Module, size: int) -> None:
    """Parity, where layer norm mixes channels for the others, exact MACs and finite gradients for all."""
    model = nonconstant_weights(stirred(model)).eval()  # a block scaled by 1e-6 would hide every mistake inside it
    example, tolerance = noise(1, 3, size, size), 1e-9
    if sum(value.numel() for value in model.parameters()) > DOUBLED:
        model, example, tolerance = model.float(), example.float(), 1e-4
    graph = trace(model, example)
    unused = [name for name, _ in model.named_parameters()]
    structure = Structure.random(graph, keep=0.6, seed=0)
    assert_law(model, graph, structure, values=not graph.mixed, without_gradient=unused, tolerance=tolerance)
    if 0 < len(graph.mixed) < len(graph.groups):
        kept = {group: channels for group, channels in structure.keep.items() if group not in graph.mixed}
        assert_law(model, graph, Structure.of(graph, kept), without_gradient=unused, tolerance=tolerance)


@pytest.mark.parametrize("name", classifiers())
def test_torchvision(name: str) -> None:
    if torchvision is None:
        pytest.skip("torchvision cannot be imported")
    torch.manual_seed(0)
    size = 299 if name == "inception_v3" else 128 if SMALL.search(name) else 224
    hold(torchvision.models.get_model(name, weights=None), size)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    if timm is None:
        pytest.skip("timm or torchvision cannot be imported")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    hold(model, 128 if SMALL.search(name) else int(model.default_cfg["input_size"][-1]))
