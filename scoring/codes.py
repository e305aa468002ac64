"""Binary activation codes: which side of its kink every non-linearity is on, per sample (Mellor et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.errors import SecateurError
from backbones.modes import evaluating

_NAMES = "relu hardtanh leaky_relu rrelu_with_noise _prelu_kernel prelu elu silu gelu hardswish mish softplus"
Mode = Callable[[nn.Module], AbstractContextManager[None]]
SIGNED = frozenset(_NAMES.split())
"""ATen operations that count; ReLU6 arrives as hardtanh, SELU and CELU as elu. Gates (sigmoid, hardsigmoid), softmax
and pooling don't count."""


class _Watch(TorchDispatchMode):
    """Hands the input of every non-linearity to `see`, wherever the code writes it: module, function or in place."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see = see
        self.largest: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__.rstrip("_") in SIGNED:
            preactivation = args[0].detach()
            self.largest.append(preactivation.amax())  # NaN if any element is; looked at when the pass is over
            self.see(preactivation)
        return func(*args, **(kwargs or {}))


def watch(model: nn.Module, batch: Tensor, see: Callable[[Tensor], None], mode: Mode = evaluating) -> Any:
    """Runs `model(batch)` once, calling `see` with each pre-activation in the order of the forward pass.

    The device is waited for once, at the end.

    Args:
        model: any network; left in the mode it was in.
        batch: (B, ...) normalised inputs.
        see: gets (B, ...) pre-activations; must not keep them (in-place activations overwrite them).
        mode: the state to run it in, `evaluating` or `renewing`.

    Returns:
        the network's output.

    Raises:
        SecateurError: when the network has no activation, or a pre-activation or the output is NaN.
    """
    with mode(model), torch.no_grad():
        watching = _Watch(see)
        with watching:
            output = model(batch)
        if not watching.largest:
            raise SecateurError("the network has no activation, so its linear regions cannot be counted")
        if isinstance(output, Tensor):
            watching.largest.append(output.amax())
        if bool(torch.stack([value.double() for value in watching.largest]).isnan().any()):
            raise SecateurError("a pre-activation or the output is NaN; the structure cannot be scored")
    return output


def samples(preactivation: Tensor) -> Tensor:
    """(B, N) view of one layer; the units stand as they lie in memory, in the same order for every sample."""
    if preactivation.ndim == 4 and preactivation.is_contiguous(memory_format=torch.channels_last):
        preactivation = preactivation.permute(0, 2, 3, 1)
    return preactivation.flatten(1)
