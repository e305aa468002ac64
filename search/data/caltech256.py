"""Caltech-256 (Griffin, Holub and Perona, 2007): 256 object classes and one of clutter."""

from __future__ import annotations

import os
import re
from pathlib import Path

from backbones.errors import SecateurError
from search.checks import check_range
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, ImageFile, View, read_pictures
from search.data.publications import Publication
from search.data.sources import counts, draw_off

_SOURCE = Publication("Caltech-256", "https://data.caltech.edu/records/nyy15-4j048", ("256_ObjectCategories",))
_CLASS = re.compile(r"(\d{3})\.(.+)")
_CLUTTER = 257


def caltech256(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 224,
    per_class: int = 60,
    clutter: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Caltech-256: 29,780 images of 256 classes; 30,607 of 257 with the clutter class.

    There is no official split. `per_class` images of every class, drawn by the seed, are for training (60 is the most
    that the authors use), all others for the test.

    Args:
        folder: holds `001.ak47/` to `257.clutter/`; `$SECATEUR_DATA/data/256_ObjectCategories` when not given.
        size: side in pixels.
        per_class: training images a class, those of the validation split among them.
        clutter: with class 257, which shows no kind of object; most results leave it out.
        validation: fraction of the training images set aside.
        seed: draws both splits.
        augment: a shift by up to a sixteenth of the side and a flip when not given.
        cache: folder for the decoded images, 4.5 GB at 224 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a class is missing or has too few images, or an image cannot be read.
    """
    view = View(size)
    check_range("per_class", per_class, 2, where="data 'caltech256'")
    home = _SOURCE.home(folder)
    folders = [path for number, path in _class_folders(home) if clutter or number != _CLUTTER]
    pictures = [
        ImageFile(path, label) for label, place in enumerate(folders) for path in sorted(place.glob("*.[jJ][pP][gG]"))
    ]
    if not pictures:
        raise _SOURCE.missing(folders[0] / "*.jpg")
    everything = read_pictures("caltech256", home, pictures, view, _SOURCE, cache)
    for place, found in zip(folders, counts(everything.labels, len(folders)).tolist(), strict=True):
        if found <= per_class:
            raise SecateurError(
                f"{place} has {found} images; {per_class} for training and at least one for the test are needed"
            )
    test, train = draw_off(everything, [per_class] * len(folders), seed)
    return Data.from_tensors(
        "caltech256",
        train,
        test,
        validation=validation,
        num_classes=len(folders),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(crop=max(1, size // 16), flip=True) if augment is None else augment,
        classes=[place.name[4:] for place in folders],
        seed=seed,
    )


def _class_folders(home: Path) -> list[tuple[int, Path]]:
    """(number, folder) of every class in order; the numbers must follow one another."""
    found = {int(match[1]): path for path in home.iterdir() if path.is_dir() and (match := _CLASS.fullmatch(path.name))}
    if not found:
        raise _SOURCE.missing(home / "001.ak47")
    for number in range(1, max(found) + 1):
        if number not in found:
            raise _SOURCE.missing(home / f"{number:03d}.*")
    return sorted(found.items())
