# mypy: disable-error-code="no-any-return"
"""Small networks that keep values between calls: on themselves, on their class, in their module, in functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tests.backbones.zoo import Between, patterns

GRIDS: dict[tuple[int, ...], Tensor] = {}
OWNERS: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()
latest: Tensor | None = None


def grid(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) / 10


@lru_cache
def remembered(width: int) -> Tensor:
    return torch.arange(width, dtype=torch.float64) / 10


def looked_up(x: Tensor) -> Tensor:
    key = tuple(x.shape[-2:])
    if key not in GRIDS:
        GRIDS[key] = grid(x)
    return GRIDS[key]


def counter() -> Callable[[Tensor], Tensor]:
    calls, seen = 0, None

    def call(x: Tensor) -> Tensor:
        nonlocal calls, seen
        calls += 1
        seen = grid(x) if seen is None else seen
        return seen

    return call


class Store:
    """A user's own object."""

    def __init__(self) -> None:
        self.grids: list[Tensor] = []


class Kept(Between):
    """Multiplies by a grid over positions that it has from somewhere."""

    def grid(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def between(self, x: Tensor) -> Tensor:
        return x * self.grid(x)


class InAttribute(Kept):
    def make(self) -> None:
        self.seen: torch.Size | None = None

    def grid(self, x: Tensor) -> Tensor:
        if self.seen != x.shape[-2:]:
            self.seen, self.kept = x.shape[-2:], grid(x)
        return self.kept


class InNewAttribute(Kept):
    def grid(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = grid(x)
        return self.kept


class OnClass(Kept):
    seen: torch.Size | None = None
    kept: Tensor

    def grid(self, x: Tensor) -> Tensor:
        if self.seen != x.shape[-2:]:
            type(self).seen, type(self).kept = x.shape[-2:], grid(x)
        return self.kept


class InClassDict(Kept):
    grids: dict[int, Tensor] = {}  # noqa: RUF012

    def grid(self, x: Tensor) -> Tensor:
        return self.grids.setdefault(x.shape[-1], grid(x))


class InListAttribute(Kept):
    """The grids of a YOLO's head."""

    def make(self) -> None:
        self.grids = [torch.zeros(1), torch.zeros(1)]

    def grid(self, x: Tensor) -> Tensor:
        if self.grids[0].shape != x.shape[-1:]:
            self.grids[0] = grid(x)
        return self.grids[0]


class InObject(Kept):
    def make(self) -> None:
        self.store = Store()

    def grid(self, x: Tensor) -> Tensor:
        if not self.store.grids:
            self.store.grids.append(grid(x))
        return self.store.grids[0]


class InBuffer(Kept):
    kept: Tensor

    def make(self) -> None:
        self.register_buffer("kept", torch.zeros(1), persistent=False)

    def grid(self, x: Tensor) -> Tensor:
        if self.kept.shape != x.shape[-1:]:
            self.kept = grid(x)
        return self.kept


class InModuleDict(Kept):
    def grid(self, x: Tensor) -> Tensor:
        return looked_up(x)


class InGlobal(Kept):
    def grid(self, x: Tensor) -> Tensor:
        global latest
        if latest is None or latest.shape != x.shape[-1:]:
            latest = grid(x)
        return latest


class ByObject(Kept):
    def grid(self, x: Tensor) -> Tensor:
        if self not in OWNERS:
            OWNERS[self] = grid(x)
        return OWNERS[self]


class InFunction(Kept):
    def grid(self, x: Tensor) -> Tensor:
        return remembered(x.shape[-1])


class InMethod(Kept):
    @cache  # noqa: B019
    def kept(self, width: int) -> Tensor:
        return torch.arange(width, dtype=torch.float64)

    def grid(self, x: Tensor) -> Tensor:
        return self.kept(x.shape[-1])


class InClosure(Kept):
    def make(self) -> None:
        self.counted = counter()

    def grid(self, x: Tensor) -> Tensor:
        return self.counted(x)


class InDefault(Kept):
    def grid(self, x: Tensor, kept: list[Tensor] = []) -> Tensor:  # noqa: B006
        if not kept:
            kept.append(grid(x))
        return kept[0]


class KeptFeatures(Kept):
    """Remembers the last features and all of the calls."""

    def make(self) -> None:
        self.calls = 0
        self.history: list[Any] = []
        self.total = torch.zeros((), dtype=torch.float64)

    def grid(self, x: Tensor) -> Tensor:
        self.last = x
        self.history.append(x.mean((2, 3)))
        self.calls += 1
        self.total += 1
        return grid(x)


class KeptByHook(Kept):
    def make(self) -> None:
        self.features: list[Tensor] = []
        self.bn.register_forward_hook(lambda _, inputs, output: self.features.append(output))

    def grid(self, x: Tensor) -> Tensor:
        return grid(x)


KEPT = patterns({name: found for name, found in globals().items() if found is not Kept})
