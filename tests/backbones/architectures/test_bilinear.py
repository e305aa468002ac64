"""The bilinear CNN where its arithmetic is not float32; what it is otherwise stands in the contract."""

from __future__ import annotations

import torch

from backbones.registry import build


def test_it_trains_under_autocast() -> None:
    torch.manual_seed(0)
    model = build("bcnn_vgg16_bn_cifar", 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 3, 8, 8))
    logits.float().sum().backward()
    gradients = [value.grad for value in model.parameters()]
    assert all(grad is not None and bool(torch.isfinite(grad).all()) for grad in gradients)
    assert all(grad is None or grad.dtype == torch.float32 for grad in gradients)
