"""Binary activation codes: which side of its kink every non-linearity is on, per sample (Mellor et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.errors import SecateurError
from backbones.modes import evaluating

_NAMES = "relu hardtanh leaky_relu rrelu_with_noise _prelu_kernel prelu elu silu gelu hardswish mish softplus"
SIGNED = frozenset(_NAMES.split())
"""ATen operations that count; ReLU6 arrives as hardtanh, SELU and CELU as elu. Gates (sigmoid, hardsigmoid), softmax
and pooling don't count."""


class _Watch(TorchDispatchMode):
    """Hands the input of every non-linearity to `see`, wherever the code writes it: module, function or in place."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see = see
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__.rstrip("_") in SIGNED:
            self.count += 1
            self.see(args[0])
        return func(*args, **(kwargs or {}))


def watch(model: nn.Module, batch: Tensor, see: Callable[[Tensor], None]) -> Any:
    """Runs `model(batch)` once in eval mode, calling `see` with each pre-activation in the order of the forward pass.

    Args:
        model: any network; left in the mode it was in.
        batch: (B, ...) normalised inputs.
        see: gets (B, ...) pre-activations; must not keep them (in-place activations overwrite them).

    Returns:
        the network's output.

    Raises:
        SecateurError: when the network has no activation.
    """
    with evaluating(model), torch.no_grad():
        mode = _Watch(see)
        with mode:
            output = model(batch)
    if mode.count == 0:
        raise SecateurError("the network has no activation, so its linear regions cannot be counted")
    return output


def signs(preactivation: Tensor) -> Tensor:
    """(B, N) codes of one layer as -1 and +1 (float32): +1 where the pre-activation is above 0.

    Raises:
        SecateurError: when a pre-activation is NaN.
    """
    flat = preactivation.detach().flatten(1)
    if bool(torch.isnan(flat).any()):
        raise SecateurError("a pre-activation is NaN; the structure cannot be scored")
    return (flat > 0).to(torch.float32).mul_(2.0).sub_(1.0)
