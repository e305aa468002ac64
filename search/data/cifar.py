"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), each in its binary or its Python version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pickles import read_pickle
from search.data.publications import Publication, warn_unequal
from search.data.sources import Split

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Measured on the 50,000 training images, as in weiaicunzai/pytorch-cifar100 (github.com), rounded.
_CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
_CIFAR100_STD = (0.2673, 0.2564, 0.2762)
_CIFAR100_BINARY = ("train.bin", "test.bin", "fine_label_names.txt")
_CIFAR100_PYTHON = ("train", "test", "meta")
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the files of one of the two data sets are read.

    Attributes:
        source: where the data set is published.
        classes: number of classes.
        label_bytes: labels before the pixels of each image in the binary version; the last of them counts.
        key: name of the labels in the Python version.
    """

    source: Publication
    classes: int
    label_bytes: int
    key: str


_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR10 = _Layout(Publication("CIFAR-10", _PAGE, ("cifar-10-batches-bin", "cifar-10-batches-py")), 10, 1, "labels")
_CIFAR100 = _Layout(Publication("CIFAR-100", _PAGE, ("cifar-100-binary", "cifar-100-python")), 100, 2, "fine_labels")


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
        folder: holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or the same names without `.bin`
            (the Python version); `$SECATEUR_DATA/data/cifar-10-batches-bin` or `-py` when not given.
        validation: fraction of the training images set aside.
        seed: draws that split.
        augment: a shift by up to four pixels and a flip when not given.
        rows: images a file; only files cut down on purpose have fewer than 10,000.

    Raises:
        SecateurError: when a file is missing (all expected names are listed), has another size, holds a label > 9, or
            is a pickle of something else (which is then not run).
    """
    home = _CIFAR10.source.home(folder)
    names = (*TRAIN_FILES, TEST_FILE)
    python = not any((home / name).is_file() for name in names) and (home / "data_batch_1").is_file()
    paths = [home / (name.removesuffix(".bin") if python else name) for name in names]
    for path in paths:
        if not path.is_file():
            raise _CIFAR10.source.missing(
                path, f"{paths[0].name} to {paths[-2].name} and {paths[-1].name} belong there"
            )
    train, test = (_read(_CIFAR10, part, rows, python) for part in (paths[:-1], paths[-1:]))
    warn_unequal(home, train, "training", 10)
    warn_unequal(home, test, "test", 10)
    return Data.from_tensors(
        "cifar10",
        train,
        test,
        validation=validation,
        num_classes=10,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        augment=Augment(crop=4, flip=True) if augment is None else augment,
        classes=_CIFAR10_CLASSES,
        seed=seed,
    )


def cifar100(
    folder: str | os.PathLike[str] | None = None,
    *,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    rows: tuple[int, int] = (50_000, 10_000),
) -> Data:
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32, three channels, its hundred fine classes.

    Args:
        folder: holds `train.bin`, `test.bin` and `fine_label_names.txt`, or `train`, `test` and `meta` (the Python
            version); `$SECATEUR_DATA/data/cifar-100-binary` or `-python` when not given.
        validation: fraction of the training images set aside.
        seed: draws that split.
        augment: a shift by up to four pixels and a flip when not given.
        rows: training and test images; only files cut down on purpose have fewer.

    Raises:
        SecateurError: when a file is missing, has another size, holds a label > 99, or is a pickle of something else
            (which is then not run).
    """
    home = _CIFAR100.source.home(folder)
    python = not any((home / name).is_file() for name in _CIFAR100_BINARY) and (home / _CIFAR100_PYTHON[0]).is_file()
    names = _CIFAR100_PYTHON if python else _CIFAR100_BINARY
    *paths, names_path = (home / name for name in names)
    for path in (*paths, names_path):
        if not path.is_file():
            raise _CIFAR100.source.missing(path, f"{', '.join(names[:-1])} and {names[-1]} belong there")
    train, test = (_read(_CIFAR100, [path], count, python) for path, count in zip(paths, rows, strict=True))
    warn_unequal(home, train, "training", 100)
    warn_unequal(home, test, "test", 100)
    return Data.from_tensors(
        "cifar100",
        train,
        test,
        validation=validation,
        num_classes=100,
        mean=_CIFAR100_MEAN,
        std=_CIFAR100_STD,
        augment=Augment(crop=4, flip=True) if augment is None else augment,
        classes=_fine_classes(names_path, python),
        seed=seed,
    )


def _fine_classes(path: Path, python: bool) -> tuple[str, ...]:
    found = read_pickle(path).get("fine_label_names") if python else _CIFAR100.source.lines(path)
    if not isinstance(found, list) or len(found) != 100:
        raise SecateurError(f"{path} must hold the names of 100 classes")
    return tuple(name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in found)


def _read(layout: _Layout, paths: Sequence[Path], rows: int, python: bool) -> Split:
    return _read_python(layout, paths, rows) if python else _read_binary(layout, paths, rows)


def _read_binary(layout: _Layout, paths: Sequence[Path], rows: int) -> Split:
    """Files of `rows` rows each: the label bytes, of which the last counts, then 1,024 red, green and blue bytes.

    Raises:
        SecateurError: when a file has another size, or holds a label that is too high.
    """
    images = np.empty((len(paths) * rows, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(len(paths) * rows, dtype=np.int64)
    for number, path in enumerate(paths):
        place = slice(number * rows, (number + 1) * rows)
        _read_file(path, images[place], labels[place], layout.label_bytes)
        _check(path, labels[place], layout)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _read_python(layout: _Layout, paths: Sequence[Path], rows: int) -> Split:
    """Pickles of `rows` images each: their bytes under `data`, their labels under `layout.key`.

    Raises:
        SecateurError: when a file is no such pickle, has another number of images, or holds a label that is too high.
    """
    images, labels = [], []
    for path in paths:
        content = read_pickle(path)
        data, found = content.get("data"), content.get(layout.key)
        if not isinstance(data, np.ndarray) or data.shape != (rows, _PIXELS):
            what = f"an array {data.shape}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
            raise SecateurError(f"{path}: data must be {rows} rows of {_PIXELS} bytes, but is {what}")
        if not isinstance(found, list) or len(found) != rows or not all(type(label) is int for label in found):
            raise SecateurError(f"{path}: {layout.key} must be a list of {rows} whole numbers")
        images.append(data.reshape(rows, 3, 32, 32))
        labels.append(np.asarray(found, dtype=np.int64))
        _check(path, labels[-1], layout)
    return Split(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)))


def _read_file(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], label_bytes: int) -> None:
    """Fills (rows, 3, 32, 32) `images` and (rows,) `labels`, a thousand rows at a time."""
    rows, size, row = len(labels), path.stat().st_size, label_bytes + _PIXELS
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


def _check(path: Path, labels: NDArray[np.int64], layout: _Layout) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if len(wrong):
        raise SecateurError(
            f"{path}: row {int(wrong[0])} has label {int(labels[wrong[0]])}; {layout.source.title} labels are "
            f"0 to {layout.classes - 1}"
        )
