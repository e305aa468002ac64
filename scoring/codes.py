"""Linear-region codes: on which side of its kink every non-linearity is, and in how many two samples agree.

The kernel counts N - Hamming distance for all pairs of samples at once (Mellor et al., ICML 2021, equation 1). A
product of codes 0 and 1 counts the units that are on in both of two samples: of 8-bit integers on a CPU with
instructions for it, exact; of float32 on a GPU, exact up to 2^24 units a layer. Other CPUs keep codes as packed bits
and compare them by exclusive or and a population count, which is exact too.
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


def codes_of(preactivation: Tensor) -> Tensor:
    """(B, N) bool: where the input of a non-linearity is above 0, the units as `flat_samples` lays them out."""
    flat = flat_samples(preactivation)
    if flat.device.type != "cpu" or flat.dtype == torch.bool:
        return flat > 0
    # numpy compares 3 times as fast as torch; a 16-bit float is above 0 where its bits, as an integer, are.
    halves = flat.dtype in (torch.bfloat16, torch.float16)
    return torch.from_numpy((flat.contiguous().view(torch.int16) if halves else flat).numpy() > 0)


def int8_products() -> bool:
    """Whether this CPU multiplies 8-bit integers faster than it counts bits."""
    cpu: Any = torch.cpu
    return bool(cpu._is_vnni_supported() or cpu._is_amx_tile_supported())


def on_in_both(codes: Tensor) -> Tensor:
    """(B, B) number of units that are on in two samples, from (B, N) bool codes."""
    if codes.device.type != "cpu":
        on = codes.float()
        return on @ on.T
    if codes.shape[1] == 1:  # of one column the transpose looks the same in memory, and torch takes it for a row
        return (codes & codes.T).int()
    whole = codes.view(torch.int8)
    return torch._int_mm(whole, whole.T)


class CodeAgreement:
    """Counts on how many units two samples have the same code: add layers, then ask for the kernel.

    Attributes:
        units: number of units of one sample, over the layers added so far.
    """

    def __init__(self) -> None:
        self.units = 0
        self._packed: list[NDArray[np.uint8]] = []
        self._both: Tensor | None = None

    def add(self, preactivation: Tensor) -> None:
        """Counts one more layer.

        Args:
            preactivation: (B, ...) input of its non-linearity; the code of a unit is 1 where it is above 0. Or the
                codes themselves.
        """
        codes = codes_of(preactivation)
        self.units += codes.shape[1]
        if codes.device.type == "cpu" and not int8_products():
            self._packed.append(np.packbits(codes.numpy(), axis=1))
            return
        both = on_in_both(codes).double()
        self._both = both if self._both is None else self._both + both

    def kernel(self) -> Tensor:
        """(B, B) float64 on the CPU: number of units, over all layers added, on which two samples agree."""
        if self._both is None:
            return torch.from_numpy((self.units - hamming(np.concatenate(self._packed, axis=1))).astype(np.float64))
        both = self._both.cpu()
        on = both.diagonal()
        return self.units + 2 * both - on[:, None] - on[None, :]


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
