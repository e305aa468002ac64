"""Tiny ImageNet (Le and Yang, 2015): 200 classes of ImageNet at 64 x 64."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import ImageFile, View, read_pictures
from search.data.publications import Publication, warn_unequal

_SOURCE = Publication("Tiny ImageNet", "http://cs231n.stanford.edu/tiny-imagenet-200.zip", ("tiny-imagenet-200",))
# Measured on the 100,000 training images; the usual figures of Tiny ImageNet trainings.
_MEAN = (0.4802, 0.4481, 0.3975)
_STD = (0.2770, 0.2691, 0.2821)


def tiny_imagenet(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 64,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Tiny ImageNet: 100,000 training images; the 10,000 labelled ones of `val/` are the test split.

    The images of the original `test/` have no published labels and are not read.

    Args:
        folder: holds `wnids.txt`, `words.txt`, `train/<wnid>/images/`, `val/images/` and `val/val_annotations.txt`;
            `$SECATEUR_DATA/data/tiny-imagenet-200` when not given.
        size: side in pixels.
        validation: fraction of the training images set aside.
        seed: draws that split.
        augment: a shift by up to an eighth of the side and a flip when not given.
        cache: folder for the decoded images, 1.4 GB at 64 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size)
    home = _SOURCE.home(folder)
    wnids = _SOURCE.lines(home / "wnids.txt")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    words = _SOURCE.table(home / "words.txt")
    train = [ImageFile(path, label_of[wnid]) for wnid in wnids for path in _images(home / "train" / wnid / "images")]
    test = _held(home / "val", label_of)
    everything = read_pictures("tiny-imagenet", home, [*train, *test], view, _SOURCE, cache)
    places = torch.arange(len(everything))
    training, testing = everything.pick(places[: len(train)]), everything.pick(places[len(train) :])
    warn_unequal(home, training, "training", len(wnids))
    return Data.from_tensors(
        "tiny-imagenet",
        training,
        testing,
        validation=validation,
        num_classes=len(wnids),
        mean=_MEAN,
        std=_STD,
        augment=Augment(crop=max(1, size // 8), flip=True) if augment is None else augment,
        classes=[words.get(wnid, wnid) for wnid in wnids],
        seed=seed,
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise _SOURCE.missing(folder)
    found = sorted(folder.glob("*.JPEG"), key=lambda path: path.name)
    if not found:
        raise _SOURCE.missing(folder / "*.JPEG")
    return found


def _held(folder: Path, label_of: dict[str, int]) -> list[ImageFile]:
    """The images of `val/`; a line of its list is a file, its class and a box, between tabs."""
    path = folder / "val_annotations.txt"
    pictures = []
    for name, rest in _SOURCE.table(path).items():
        wnid = rest.split()[0]
        if wnid not in label_of:
            raise SecateurError(f"{path}: {name} is of class {wnid!r}, which wnids.txt does not have")
        pictures.append(ImageFile(folder / "images" / name, label_of[wnid]))
    if not pictures:
        raise SecateurError(f"{path} names no image")
    return pictures
