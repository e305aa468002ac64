"""The state a network is run in: eval mode and back, and the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode inside the block; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lives; the CPU for a network without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def same_sums() -> Iterator[None]:
    """CUDA's convolutions sum in the same order in every call inside the block, and are not chosen by the clock."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def bfloat16_pays(device: torch.device, height: int, width: int) -> bool:
    """Whether a CPU has bfloat16 instructions and images of this size keep them busy."""
    cpu: Any = torch.cpu
    return bool(
        device.type == "cpu"
        and height * width >= 24 * 24
        and (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    )


def fast_precision(images: Any) -> torch.autocast:
    """A forward pass over float32 images in bfloat16 where `bfloat16_pays`; of anything else nothing changes."""
    pays = (
        isinstance(images, Tensor)
        and images.dtype == torch.float32
        and images.ndim == 4
        and bfloat16_pays(images.device, *images.shape[2:])
    )
    return torch.autocast("cpu", torch.bfloat16, enabled=pays)


@contextmanager
def training_code(model: nn.Module) -> Iterator[None]:
    """Inside the block the user's own modules are in training mode and torch's layers in eval mode.

    Branches that only run in training are taken so, without noise and statistics of a batch. Every module's own mode
    afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if type(module).__module__.startswith("torch."):
            module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
