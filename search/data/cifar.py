"""CIFAR-10 (Krizhevsky, 2009), binary or Python version."""

from __future__ import annotations

import os

from search.data.augment import Augment
from search.data.cifar_files import read_binary, read_python
from search.data.data import Data
from search.data.publications import Publication, warn_unequal

SOURCE = Publication(
    "CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html", ("cifar-10-batches-bin", "cifar-10-batches-py")
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


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
        seed: of that split.
        augment: a shift by up to four pixels and a flip when not given.
        rows: images a file; only files cut down on purpose have fewer than 10,000.

    Raises:
        SecateurError: when a file is missing (all expected names are listed), has another size, holds a label > 9, or
            is a pickle of something else (which is then not run).
    """
    place = SOURCE.home(folder)
    names = (*TRAIN_FILES, TEST_FILE)
    python = not any((place / name).is_file() for name in names) and (place / "data_batch_1").is_file()
    paths = [place / (name.removesuffix(".bin") if python else name) for name in names]
    for path in paths:
        if not path.is_file():
            raise SOURCE.missing(path, f"{paths[0].name} to {paths[-2].name} and {paths[-1].name} belong there")
    if python:
        train = read_python(paths[:-1], rows, key="labels", classes=10, title=SOURCE.title)
        test = read_python(paths[-1:], rows, key="labels", classes=10, title=SOURCE.title)
    else:
        train = read_binary(paths[:-1], rows, label_bytes=1, classes=10, title=SOURCE.title)
        test = read_binary(paths[-1:], rows, label_bytes=1, classes=10, title=SOURCE.title)
    warn_unequal(place, train, "training", 10)
    warn_unequal(place, test, "test", 10)
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
