"""Linear-region codes: on which side of its kink every non-linearity is, and in how many two samples agree.

The kernel counts N - Hamming distance for all pairs of samples at once (Mellor et al., ICML 2021, equation 1). On the
CPU codes are kept as packed bits and compared by exclusive or and a population count, which is exact and needs 1/32 of
the memory of floats; elsewhere one product of codes 0 and 1 in float32 counts the units that are on in both, exact up
to 2^24 units a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.errors import SecateurError
from backbones.inputs import run_on, tensors_in
from backbones.modes import evaluating

RunMode = Callable[[nn.Module], AbstractContextManager[None]]
"""The state in which a network runs for the length of a block: `evaluating` or `recalibrating`."""
_NAMES = "relu hardtanh leaky_relu rrelu_with_noise _prelu_kernel prelu elu silu gelu hardswish mish softplus"
NON_LINEARITIES = frozenset(_NAMES.split())
"""ATen operations that count; ReLU6 arrives as hardtanh, SELU and CELU as elu. Gates (sigmoid, hardsigmoid), softmax
and pooling don't count."""
WORDS_AT_ONCE = 4096
"""64-bit words a sample that are compared at a time: a batch of 128 then fits a processor's cache."""
DIFFERENCES_AT_ONCE = 1 << 17
"""Words of differences that are held at a time."""


class _Watch(TorchDispatchMode):
    """Hands the input of every non-linearity to `see`, wherever the code writes it: module, function or in place."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see = see
        self.largest: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__.rstrip("_") in NON_LINEARITIES:
            preactivation = args[0].detach()
            self.largest.append(preactivation.amax())  # NaN if any element is; looked at when the pass is over
            self.see(preactivation)
        return func(*args, **(kwargs or {}))


def watch_preactivations(
    model: nn.Module, batch: Any, see: Callable[[Tensor], None], mode: RunMode = evaluating
) -> Any:
    """Runs the model on the batch once, calling `see` with each pre-activation in the order of the forward pass.

    The device is waited for once, at the end.

    Args:
        model: any network; left in the mode it was in.
        batch: its inputs: a tensor (B, ...), a tuple of arguments or a dictionary of arguments by name.
        see: gets (B, ...) pre-activations; must not keep them (in-place activations overwrite them).
        mode: the state to run it in, `evaluating` or `recalibrating`.

    Returns:
        the network's output.

    Raises:
        SecateurError: when the network has no activation, or a pre-activation or the output is NaN.
    """
    with mode(model), torch.no_grad():
        watching = _Watch(see)
        with watching:
            output = run_on(model, batch)
        if not watching.largest:
            raise SecateurError("the network has no activation, so its linear regions cannot be counted")
        watching.largest += [one.amax() for one in tensors_in(output) if one.is_floating_point() and one.numel()]
        if bool(torch.stack([value.double() for value in watching.largest]).isnan().any()):
            raise SecateurError("a pre-activation or the output is NaN; the structure cannot be scored")
    return output


def flat_samples(preactivation: Tensor) -> Tensor:
    """(B, N) view of one layer; the units stand as they lie in memory, in the same order for every sample."""
    if preactivation.ndim == 4 and preactivation.is_contiguous(memory_format=torch.channels_last):
        preactivation = preactivation.permute(0, 2, 3, 1)
    return preactivation.flatten(1)


class CodeAgreement:
    """Counts on how many units two samples have the same code: add layers, then ask for the kernel.

    Attributes:
        units: number of units of one sample, over the layers added so far.
    """

    def __init__(self) -> None:
        self.units = 0
        self._packed: list[NDArray[np.uint8]] = []
        self._equal: Tensor | None = None

    def add(self, preactivation: Tensor) -> None:
        """Counts one more layer.

        Args:
            preactivation: (B, ...) input of its non-linearity; the code of a unit is 1 where it is above 0.
        """
        flat = flat_samples(preactivation)
        self.units += flat.shape[1]
        if flat.device.type == "cpu":
            above = flat.numpy() > 0 if flat.dtype in (torch.float32, torch.float64) else (flat > 0).numpy()
            self._packed.append(np.packbits(above, axis=1))
            return
        on = (flat > 0).float()
        count = on.sum(1)
        equal = (2 * (on @ on.T) + flat.shape[1] - count[:, None] - count[None, :]).double()
        self._equal = equal if self._equal is None else self._equal + equal

    def kernel(self) -> Tensor:
        """(B, B) float64 on the CPU: number of units, over all layers added, on which two samples agree."""
        if self._equal is not None:
            return self._equal.cpu()
        return torch.from_numpy((self.units - hamming(np.concatenate(self._packed, axis=1))).astype(np.float64))


def hamming(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(B, B) number of bits in which rows of a (B, bytes) array differ; as many threads as torch may use."""
    missing = -packed.shape[1] % 8
    words = np.pad(packed, ((0, 0), (0, missing))).view(np.uint64) if missing else packed.view(np.uint64)
    threads = torch.get_num_threads()
    width = min(WORDS_AT_ONCE, -(-words.shape[1] // threads))
    parts = [np.ascontiguousarray(words[:, at : at + width]) for at in range(0, words.shape[1], width)]
    if threads == 1 or len(parts) == 1:
        lower = sum((_lower(part) for part in parts), np.zeros((len(words), len(words)), dtype=np.int64))
    else:
        with ThreadPoolExecutor(threads) as pool:
            lower = np.sum(list(pool.map(_lower, parts)), axis=0)
    return lower + np.tril(lower, -1).T


def _lower(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The differences of each row with itself and the rows before it, 0 above the diagonal."""
    batch, width = words.shape
    found = np.zeros((batch, batch), dtype=np.int64)
    rows = max(1, DIFFERENCES_AT_ONCE // (batch * width))
    for at in range(0, batch, rows):
        some = words[at : at + rows, None] ^ words[None, : at + rows]
        found[at : at + rows, : at + rows] = np.bitwise_count(some).sum(2, dtype=np.uint32)
    return np.tril(found)
