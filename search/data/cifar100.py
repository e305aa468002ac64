"""CIFAR-100 (Krizhevsky, 2009) with its hundred fine classes, binary or Python version."""

from __future__ import annotations

import os
from pathlib import Path

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.cifar_files import read_binary, read_python
from search.data.data import Data
from search.data.pickles import read_pickle
from search.data.publications import Publication, warn_unequal

SOURCE = Publication(
    "CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar.html", ("cifar-100-binary", "cifar-100-python")
)
BINARY = ("train.bin", "test.bin", "fine_label_names.txt")
PYTHON = ("train", "test", "meta")
# Of the 50,000 training images, as in weiaicunzai/pytorch-cifar100 (github.com), rounded.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)


def cifar100(
    folder: str | os.PathLike[str] | None = None,
    *,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    rows: tuple[int, int] = (50_000, 10_000),
) -> Data:
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32, three channels, a hundred classes.

    Args:
        folder: holds `train.bin`, `test.bin` and `fine_label_names.txt`, or `train`, `test` and `meta` (the Python
            version); `$SECATEUR_DATA/data/cifar-100-binary` or `-python` when not given.
        validation: fraction of the training images set aside.
        seed: of that split.
        augment: a shift by up to four pixels and a flip when not given.
        rows: training and test images; only files cut down on purpose have fewer.

    Raises:
        SecateurError: when a file is missing, has another size, holds a label > 99, or is a pickle of something else
            (which is then not run).
    """
    place = SOURCE.home(folder)
    python = not any((place / name).is_file() for name in BINARY) and (place / PYTHON[0]).is_file()
    names = PYTHON if python else BINARY
    train_path, test_path, names_path = (place / name for name in names)
    for path in (train_path, test_path, names_path):
        if not path.is_file():
            raise SOURCE.missing(path, f"{', '.join(names[:-1])} and {names[-1]} belong there")
    if python:
        train = read_python([train_path], rows[0], key="fine_labels", classes=100, title=SOURCE.title)
        test = read_python([test_path], rows[1], key="fine_labels", classes=100, title=SOURCE.title)
    else:
        train = read_binary([train_path], rows[0], label_bytes=2, classes=100, title=SOURCE.title)
        test = read_binary([test_path], rows[1], label_bytes=2, classes=100, title=SOURCE.title)
    warn_unequal(place, train, "training", 100)
    warn_unequal(place, test, "test", 100)
    return Data.from_tensors(
        "cifar100",
        train,
        test,
        validation=validation,
        num_classes=100,
        mean=MEAN,
        std=STD,
        augment=Augment(crop=4, flip=True) if augment is None else augment,
        classes=_classes(names_path, python),
        seed=seed,
    )


def _classes(path: Path, python: bool) -> tuple[str, ...]:
    found = read_pickle(path).get("fine_label_names") if python else SOURCE.lines(path)
    if not isinstance(found, list) or len(found) != 100:
        raise SecateurError(f"{path} must hold the names of 100 classes")
    return tuple(name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in found)
