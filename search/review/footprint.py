"""What arithmetic can't tell: how long a batch really takes, and how large the file is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from backbones.inputs import as_arguments, first_samples, sample_count
from backbones.measure import timings
from search.checks import check_range
from search.formatting import byte_size, milliseconds


@dataclass(frozen=True, slots=True)
class Footprint:
    """Measured speed and size of one network.

    Attributes:
        latency: seconds a batch in evaluation mode, median over the rounds.
        spread: half the distance between the quartiles of the rounds, in seconds.
        disk: bytes of the network's file; where it has none, of its tensors in a safetensors file, header included.
        batch: images in the batch.
        threads: that torch may use within an operation.
        single: seconds of one sample, measured likewise; None where it was not measured.
    """

    latency: float
    spread: float
    disk: int
    batch: int
    threads: int
    single: float | None = None


def footprints(
    models: Mapping[str, nn.Module], images: Any, *, rounds: int = 15, files: Mapping[str, Path] | None = None
) -> dict[str, Footprint]:
    """Measures networks side by side: one batch each in every round, so that a busy machine slows all of them alike.

    Then one sample each, likewise.

    Args:
        models: name -> network; all on one device; each is run in evaluation mode and left as it was.
        images: (B, C, H, W), the batch, on that device, or inputs of another form, as the networks take them; its size
            is part of the result.
        rounds: measurements of each, after two that are thrown away.
        files: name -> the network's file, of those that have one.

    Returns:
        a footprint for each name.

    Raises:
        SecateurError: for fewer than 3 rounds.
    """
    check_range("rounds", rounds, 3)
    networks, count = list(models.values()), sample_count(images)
    seconds = timings(networks, as_arguments(images), rounds)
    singles = seconds if count == 1 else timings(networks, as_arguments(first_samples(images, 1)), rounds)
    found = {}
    for (name, model), taken, single in zip(models.items(), seconds, singles, strict=True):
        low, middle, high = statistics.quantiles(taken, n=4)
        spread, threads = (high - low) / 2, torch.get_num_threads()
        file = (files or {}).get(name)
        disk = disk_size(model) if file is None or not file.is_file() else file.stat().st_size
        found[name] = Footprint(middle, spread, disk, count, threads, statistics.median(single))
    return found


def footprint_cells(footprint: Footprint | None) -> tuple[str, str]:
    """Milliseconds a batch and size on disk, as text for a table; dashes where nothing was measured."""
    if footprint is None:
        return "-", "-"
    return milliseconds(footprint.latency), byte_size(footprint.disk)


def disk_size(model: nn.Module) -> int:
    """Bytes of all parameters and buffers as safetensors, tied tensors once."""
    seen: set[tuple[int, int]] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() == 0 or place not in seen:
            seen.add(place)
            tensors[name] = tensor.detach().cpu().contiguous()
    return len(save(tensors))
