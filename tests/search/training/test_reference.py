"""The reference checkpoints on the real CIFAR-10 test images: loading, normalisation and accuracy together.

Golden numbers: Yerlan Idelbayev's ResNet-20 and ResNet-56 (github.com/akamaster/pytorch_resnet_cifar10), 91.73 % and
93.39 % on these 10,000 images with ImageNet normalisation. Unless the slow tests are asked for, they see only the first
250 (229 and 235 of them are right, as measured here).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones.checkpoint import load_checkpoint
from backbones.registry import build
from search.data.cifar import cifar10
from search.data.sources import Split
from search.training.metrics import accuracy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


WHOLE = 10_000


@pytest.mark.parametrize(
    ("name", "file", "images", "expected"),
    [
        ("resnet20", "resnet20-12fca82f.th", 250, 0.916),
        ("resnet56", "resnet56-4bfd9763.th", 250, 0.94),
        pytest.param("resnet20", "resnet20-12fca82f.th", WHOLE, 0.9173, marks=pytest.mark.slow),
        pytest.param("resnet56", "resnet56-4bfd9763.th", WHOLE, 0.9339, marks=pytest.mark.slow),
    ],
)
def test_reference_checkpoints_reach_their_accuracy(
    shared_data: Path, name: str, file: str, images: int, expected: float
) -> None:
    model = build(name, 10)
    load_checkpoint(model, shared_data / "weights" / file)
    data = replace(cifar10(shared_data / "data" / "cifar-10-batches-bin"), mean=MEAN, std=STD)
    assert isinstance(data.test, Split)
    first = replace(data, test=data.test.pick(torch.arange(images)))
    assert accuracy(model, first, "test") == pytest.approx(expected, abs=5e-5)
