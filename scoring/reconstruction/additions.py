"""Sees the other summand when a value is added to something, wherever the code writes the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

See = Callable[[Tensor, Tensor], None]
ADDITIONS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)


class WatchAdditions(TorchDispatchMode):
    """Inside the block, `expect(value, see)` has `see(value, other)` called just before value + other is computed.

    `see` may write into `value` in place: the sum then takes what it has become.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._expected: dict[int, tuple[Tensor, See]] = {}

    def expect(self, value: Tensor, see: See) -> None:
        """Waits for an addition that reads `value`, which nothing else reads before."""
        self._expected[value.data_ptr()] = value, see  # kept alive, so that no other value gets its address

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in ADDITIONS and not kwargs and all(isinstance(value, Tensor) for value in args):
            left, right = args
            for ours, other in ((left, right), (right, left)):
                _, see = self._expected.pop(ours.data_ptr(), (None, None))
                if see is not None and ours.shape == other.shape:
                    see(ours, other)
        return func(*args, **(kwargs or {}))
