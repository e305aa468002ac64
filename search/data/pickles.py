"""Reads the pickles of the CIFAR data sets without running anything that they say."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from backbones.errors import SecateurError


class _Dtype:
    """Stands for `numpy.dtype`; only bytes are known."""

    def __init__(self, name: object = b"", *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {name!r} instead of bytes (u1)")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like say nothing about bytes."""


class _Array:
    """Stands for `numpy.ndarray` and the function that makes an empty one."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, object, bytes]) -> None:
        _, shape, dtype, by_columns, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array without bytes")
        order: Any = "F" if by_columns else "C"
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order)


#: All that these files name; what stands for it runs nothing of numpy's.
KNOWN: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Restricted(pickle.Unpickler):
    """Makes dicts, lists, tuples, numbers, texts and arrays of bytes, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what a pickle asks for by name."""
        try:
            return KNOWN[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        """Objects kept elsewhere are not fetched."""
        raise _RefusedError(f"the outside object {pid!r}")


class _RefusedError(Exception):
    """What was asked for and not given."""


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle as Python 2 wrote it: keys as texts, texts as bytes, arrays as uint8 arrays.

    Raises:
        SecateurError: when the file asks for anything but uint8 arrays by name (which is then not run), is no
            pickle, or holds no dictionary.
    """
    try:
        with path.open("rb") as file:
            found = _Restricted(file, fix_imports=False, encoding="bytes").load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"it holds a {type(found).__name__} instead of a dictionary")
        return {_text(key): value.values if isinstance(value, _Array) else value for key, value in found.items()}
    except _RefusedError as error:
        raise SecateurError(
            f"{path} is refused: it asks for {error}, but such a file holds nothing but dictionaries, lists, texts, "
            "numbers and arrays of bytes"
        ) from None
    except Exception as error:  # a broken pickle can fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SecateurError(f"{path} is no pickle of a dictionary of arrays and lists: {reason}") from None


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
