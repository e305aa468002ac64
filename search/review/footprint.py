"""What arithmetic can't tell: how long a batch really takes on an engine, and how large the file is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.inputs import as_arguments, first_samples, sample_count
from backbones.measure import timings
from backbones.onnx_network import on_engine
from search.checks import check_range
from search.formatting import byte_size, counted, milliseconds


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
        engine: what ran the network, one of `backbones.onnx_network.ENGINES`.
        limit: seconds a batch that a latency budget allows, by the clock that measured this; None without one.
        error: the largest relative error of the budget's predictions, as their calibration found it.
    """

    latency: float
    spread: float
    disk: int
    batch: int
    threads: int
    single: float | None = None
    engine: str = "eager"
    limit: float | None = None
    error: float | None = None

    @property
    def over(self) -> bool:
        """Whether it was measured to take longer than its budget allows."""
        return self.limit is not None and self.latency > self.limit

    @property
    def how(self) -> str:
        """On what a batch was measured: "eager, 1 thread, a batch of 128"."""
        return f"{self.engine}, {counted(self.threads, 'thread')}, a batch of {self.batch}"


@explained
def footprints(
    models: Mapping[str, nn.Module],
    images: Any,
    *,
    engine: str = "eager",
    rounds: int = 15,
    files: Mapping[str, Path] | None = None,
) -> dict[str, Footprint]:
    """Measures networks side by side: one batch each in every round, so that a busy machine slows all of them alike.

    Then one sample each, likewise.

    Args:
        models: name -> network; all on one device; each is run in evaluation mode and left as it was.
        images: (B, C, H, W), the batch, on that device, or inputs of another form, as the networks take them; its size
            is part of the result.
        engine: what runs them, one of `backbones.onnx_network.ENGINES`.
        rounds: measurements of each, after two that are thrown away.
        files: name -> the network's file, of those that have one.

    Returns:
        a footprint for each name.

    Raises:
        SecateurError: for fewer than 3 rounds, images without a sample, and for an engine that is not there or cannot
            take a network.
    """
    check_range("rounds", rounds, 3)

    def seconds_of(inputs: Any) -> list[list[float]]:
        example = as_arguments(inputs)
        return timings([on_engine(model, engine, example) for model in models.values()], example, rounds)

    count = sample_count(images)
    if not count:
        raise SecateurError(f"images must be a batch of inputs, but got {type(images).__name__}")
    seconds = seconds_of(images)
    singles = seconds if count == 1 else seconds_of(first_samples(images, 1))
    found = {}
    for (name, model), taken, single in zip(models.items(), seconds, singles, strict=True):
        low, middle, high = statistics.quantiles(taken, n=4)
        spread, threads = (high - low) / 2, torch.get_num_threads()
        file, alone = (files or {}).get(name), statistics.median(single)
        disk = disk_size(model) if file is None or not file.is_file() else file.stat().st_size
        found[name] = Footprint(middle, spread, disk, count, threads, alone, engine)
    return found


def footprint_cells(footprint: Footprint | None, over: str = "!") -> tuple[str, str]:
    """Milliseconds a batch, marked by `over` where the budget allows less, and size on disk; dashes for None."""
    if footprint is None:
        return "-", "-"
    return milliseconds(footprint.latency) + over * footprint.over, byte_size(footprint.disk)


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
