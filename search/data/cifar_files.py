"""The two layouts in which CIFAR-10 and CIFAR-100 are published (Krizhevsky, 2009), read into uint8 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backbones.errors import SecateurError
from search.data.pickles import read_pickle
from search.data.sources import Split

PIXELS = 3 * 32 * 32


def read_binary(paths: Sequence[Path], rows: int, *, label_bytes: int, classes: int, title: str) -> Split:
    """Files of `rows` rows each: the label (the last of `label_bytes` bytes), then 1,024 red, green and blue bytes.

    Raises:
        SecateurError: when a file has another size, or holds a label that is too high.
    """
    images = np.empty((len(paths) * rows, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(len(paths) * rows, dtype=np.int64)
    for number, path in enumerate(paths):
        place = slice(number * rows, (number + 1) * rows)
        _read_file(path, images[place], labels[place], label_bytes)
        _check(path, labels[place], classes, title)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def read_python(paths: Sequence[Path], rows: int, *, key: str, classes: int, title: str) -> Split:
    """Pickles of `rows` images each: their bytes under `data`, their labels under `key`.

    Raises:
        SecateurError: when a file is no such pickle, has another number of images, or holds a label that is too high.
    """
    images, labels = [], []
    for path in paths:
        content = read_pickle(path)
        data, found = content.get("data"), content.get(key)
        if not isinstance(data, np.ndarray) or data.shape != (rows, PIXELS):
            what = f"an array {data.shape}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
            raise SecateurError(f"{path}: data must be {rows} rows of {PIXELS} bytes, but is {what}")
        if not isinstance(found, list) or len(found) != rows or not all(type(label) is int for label in found):
            raise SecateurError(f"{path}: {key} must be a list of {rows} whole numbers")
        images.append(data.reshape(rows, 3, 32, 32))
        labels.append(np.asarray(found, dtype=np.int64))
        _check(path, labels[-1], classes, title)
    return Split(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)))


def _read_file(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], label_bytes: int) -> None:
    """Fills (rows, 3, 32, 32) `images` and (rows,) `labels`, a thousand rows at a time."""
    rows, size, row = len(labels), path.stat().st_size, label_bytes + PIXELS
    if size != rows * row:
        head = "a label" if label_bytes == 1 else f"{label_bytes} labels"
        raise SecateurError(
            f"{path} has {size} bytes; {rows} rows of {row} bytes ({head}, then 1,024 red, green and blue bytes each) "
            f"make {rows * row}"
        )
    with path.open("rb") as file:
        for start in range(0, rows, 1000):
            piece = np.frombuffer(file.read(min(1000, rows - start) * row), dtype=np.uint8).reshape(-1, row)
            stop = start + len(piece)
            labels[start:stop] = piece[:, label_bytes - 1]
            images[start:stop] = piece[:, label_bytes:].reshape(-1, 3, 32, 32)


def _check(path: Path, labels: NDArray[np.int64], classes: int, title: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise SecateurError(
            f"{path}: row {int(wrong[0])} has label {int(labels[wrong[0]])}; {title} labels are 0 to {classes - 1}"
        )
