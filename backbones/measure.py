"""What arithmetic cannot tell: how long a batch takes beside the dense network, and how much memory it needs."""

from __future__ import annotations

import os
import statistics
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.inputs import output_of
from backbones.modes import device_of, evaluating


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds a batch, of the dense and the pruned network measured in turns.

    Attributes:
        dense, pruned: medians over the rounds.
        speedup: median over the rounds of dense / pruned within a round.
        low, high: quartiles of that quotient.
        rounds: number of rounds.
        batch: samples in the batch.
        threads: of torch, within an operation.
        device: `cpu` or the name of the accelerator.
    """

    dense: float
    pruned: float
    speedup: float
    low: float
    high: float
    rounds: int
    batch: int
    threads: int
    device: str


@explained
def latency(model: nn.Module, pruned: nn.Module, example: Sequence[Any], *, rounds: int = 20) -> Latency:
    """Measures both networks in eval mode, in turns, so that a busy machine slows both alike.

    Args:
        model: the dense network.
        pruned: the same network with less in it, on the same device.
        example: the batch, a tuple of inputs on that device.
        rounds: measurements of each, after two that are thrown away.

    Raises:
        SecateurError: for fewer than 4 rounds.
    """
    if rounds < 4:
        raise SecateurError(f"rounds >= 4 must hold, but got rounds={rounds}")
    seconds = timings([model, pruned], example, rounds)
    quotients = [one / other for one, other in zip(*seconds, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4)
    device = device_of(model)
    return Latency(
        statistics.median(seconds[0]),
        statistics.median(seconds[1]),
        middle,
        low,
        high,
        rounds,
        next((int(item.shape[0]) for item in tree_leaves(example) if isinstance(item, Tensor) and item.ndim), 1),
        torch.get_num_threads(),
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores",
    )


def timings(models: Sequence[nn.Module], example: Sequence[Any], rounds: int) -> list[list[float]]:
    """Seconds of each model's eval forward pass in each round, measured in turns after two rounds that are thrown away.

    The order turns around from round to round, so that no model always runs in the other's wake.
    """
    seconds: list[list[float]] = [[] for _ in models]
    with torch.no_grad(), ExitStack() as modes:
        for model in models:
            modes.enter_context(evaluating(model))
        for number in range(rounds + 2):
            order = range(len(models)) if number % 2 else reversed(range(len(models)))
            for which in order:
                taken = _once(models[which], example)
                if number >= 2:
                    seconds[which].append(taken)
    return seconds


def _once(model: nn.Module, example: Sequence[Any]) -> float:
    device = device_of(model)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    output_of(model, example)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@explained
def peak_memory(model: nn.Module, example: Sequence[Any]) -> int:
    """Largest number of bytes that activations take at once in an eval forward pass, parameters and inputs left out.

    Counted over the tensors that operations return, the same on any device: scratch space inside a kernel is not seen.

    Args:
        model: any module.
        example: a tuple of inputs.
    """
    return max(memory_course(model, example), default=0)


def memory_course(model: nn.Module, example: Sequence[Any]) -> tuple[int, ...]:
    """The bytes that activations take after each operation of the forward pass that `peak_memory` looks at."""
    ledger = _Ledger([*model.parameters(), *model.buffers(), *tree_leaves(example)])
    with evaluating(model), torch.no_grad(), ledger:
        output_of(model, example)
    return tuple(ledger.course)


class _Ledger(TorchDispatchMode):
    """Adds up storages when they appear and takes them off when they die."""

    def __init__(self, known: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.course: list[int] = []
        self._alive = {item.untyped_storage()._cdata for item in known if isinstance(item, Tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor):
                self._enter(item.untyped_storage())
        self.course.append(self.now)
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        self._alive.add(key)
        size = storage.nbytes()
        self.now += size
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
