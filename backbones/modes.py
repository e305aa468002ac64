"""The state a network is run in: eval mode and back, the device, random numbers."""

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


def seed_all(seed: int) -> None:
    """As `torch.manual_seed`, which takes a millisecond where there is no accelerator: it notes who called it."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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


def halves_pay(images: Any) -> bool:
    """Whether a forward pass over these inputs is faster in bfloat16: float32 images where `bfloat16_pays`."""
    return _float_images(images) and bfloat16_pays(images.device, *images.shape[2:])


def fast_precision(images: Any, half: bool | None = None) -> torch.autocast:
    """A forward pass over float32 images in bfloat16; of anything else nothing changes.

    Args:
        images: what the network is run on.
        half: whether in bfloat16; None for where `halves_pay`.
    """
    device = images.device.type if _float_images(images) else "cpu"
    wanted = halves_pay(images) if half is None else half and _float_images(images)
    return torch.autocast(device, torch.bfloat16, enabled=wanted)


def _float_images(images: Any) -> bool:
    return isinstance(images, Tensor) and images.dtype == torch.float32 and images.ndim == 4


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
