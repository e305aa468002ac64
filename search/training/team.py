"""One network trained by several processes: what each of them needs to know (torch DistributedDataParallel)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.errors import SecateurError


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train one network together.

    Attributes:
        rank: of this process, 0 to size - 1; 0 writes files and shows progress.
        size: number of processes; 1 outside torchrun.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself, or one that averages gradients over the team; weights come from rank 0."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over the team."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def same_buffers(self, model: nn.Module) -> None:
        """Gives every process the batch-norm statistics of rank 0."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str | torch.device) -> Iterator[Team]:
    """The team of this process: of one, or, under `torchrun`, of all processes that were launched together.

    A process group that is already there is used and left open; otherwise one is made (nccl on CUDA, gloo elsewhere)
    and closed afterwards.

    Args:
        device: "cpu", "cuda" (one device a process: LOCAL_RANK chooses it) or any torch device.

    Raises:
        SecateurError: for a device that is not there.
    """
    place = _device(device)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if not launched and not dist.is_initialized():
        yield Team(0, 1, place)
        return
    if str(place) == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    opened = not dist.is_initialized()
    if opened:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), place)
    finally:
        if opened:
            dist.destroy_process_group()


def _device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise SecateurError(f"device {str(device)!r} cannot be used: {reason}; 'cpu' always can") from None
    return place
