"""Hashes of weights: equal for equal networks on any machine, so that stored results can tell what they belong to."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> str:
    """16 hex digits over every parameter and buffer of `model`: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()[:16]


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor on any device, in row-major order, as the bytes that a hash takes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content: memoryview = flat.view(torch.uint8).numpy().data
    return content
