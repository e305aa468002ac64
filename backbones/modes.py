"""The state a network is run in: eval mode and back, and the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
