"""CIFAR-10 in its official binary layout (Krizhevsky, 2009), read straight into uint8 tensors."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.sources import Split, counts

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
ROW = 1 + 3 * 32 * 32


def cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    rows: int = 10_000,
) -> Data:
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, three channels, ten classes.

    Args:
        folder: holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`;
            `$SECATEUR_DATA/data/cifar-10-batches-bin` when not given.
        validation: fraction of the training images set aside.
        seed: of that split.
        augment: a shift by up to four pixels and a flip when not given.
        rows: images a file; only files cut down on purpose have fewer than 10,000.

    Raises:
        SecateurError: when a file is missing (all expected names are listed), has another size, or holds a label > 9.
    """
    place = _folder(folder)
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if not (place / name).is_file()]
    if missing:
        raise SecateurError(
            f"{place}: {missing[0]} is missing; CIFAR-10 (binary version, cs.toronto.edu/~kriz/cifar.html) needs "
            f"{TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILE} there"
        )
    train = _read([place / name for name in TRAIN_FILES], rows)
    test = _read([place / TEST_FILE], rows)
    for split, name in ((train, "training"), (test, "test")):
        found = counts(split.labels, 10)
        if found.min() != found.max():
            warnings.warn(
                f"{place}: {name} images a class: {found.tolist()}, the original has equal numbers", stacklevel=2
            )
    return Data.from_tensors(
        "cifar10",
        train,
        test,
        validation=validation,
        num_classes=10,
        mean=MEAN,
        std=STD,
        augment=Augment(crop=4, flip=True) if augment is None else augment,
        classes=CLASSES,
        seed=seed,
    )


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder)
    root = os.environ.get("SECATEUR_DATA")
    if not root:
        raise SecateurError(
            "CIFAR-10 needs a folder: give folder=..., or set SECATEUR_DATA to the folder above "
            f"data/cifar-10-batches-bin (with {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILE})"
        )
    return Path(root) / "data" / "cifar-10-batches-bin"


def _read(paths: list[Path], rows: int) -> Split:
    images = np.empty((len(paths) * rows, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(len(paths) * rows, dtype=np.int64)
    for number, path in enumerate(paths):
        place = slice(number * rows, (number + 1) * rows)
        _read_file(path, images[place], labels[place])
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _read_file(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Fills (rows, 3, 32, 32) `images` and (rows,) `labels`, a thousand rows at a time."""
    rows, size = len(labels), path.stat().st_size
    if size != rows * ROW:
        raise SecateurError(
            f"{path} has {size} bytes; {rows} rows of {ROW} bytes (a label, then 1,024 red, green and blue bytes each) "
            f"make {rows * ROW}"
        )
    with path.open("rb") as file:
        for start in range(0, rows, 1000):
            piece = np.frombuffer(file.read(min(1000, rows - start) * ROW), dtype=np.uint8).reshape(-1, ROW)
            stop = start + len(piece)
            labels[start:stop] = piece[:, 0]
            images[start:stop] = piece[:, 1:].reshape(-1, 3, 32, 32)
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise SecateurError(f"{path}: row {row} has label {int(labels[row])}; CIFAR-10 labels are 0 to 9")
