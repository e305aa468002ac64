"""CUB-200-2011 (Wah et al., 2011): 200 species of birds."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Box, Picture, View, read_pictures
from search.data.publications import Publication

SOURCE = Publication("CUB-200-2011", "https://www.vision.caltech.edu/datasets/cub_200_2011/", ("CUB_200_2011",))


def cub200(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 448,
    boxes: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """CUB-200-2011: 5,994 training and 5,794 test images, as `train_test_split.txt` says.

    448 pixels and flips alone are what bilinear networks are trained with (Lin et al., ICCV 2015).

    Args:
        folder: holds `images.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt` and `images/`;
            `$SECATEUR_DATA/data/CUB_200_2011` when not given.
        size: side in pixels.
        boxes: cut every image to the bird first, as `bounding_boxes.txt` says.
        validation: fraction of the training images set aside.
        seed: of that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 7.1 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size)
    home = SOURCE.home(folder)
    paths = SOURCE.table(home / "images.txt")
    labels = _numbers(home / "image_class_labels.txt", paths)
    training = _numbers(home / "train_test_split.txt", paths)
    classes = [name.partition(".")[2] or name for name in SOURCE.table(home / "classes.txt").values()]
    cuts = _boxes(home / "bounding_boxes.txt", paths) if boxes else {}
    pictures = [Picture(home / "images" / path, labels[image] - 1, cuts.get(image)) for image, path in paths.items()]
    everything = read_pictures("cub200", home, pictures, view, SOURCE, cache)
    chosen = torch.tensor([training[image] == 1 for image in paths])
    return Data.from_tensors(
        "cub200",
        everything.pick(chosen.nonzero()[:, 0]),
        everything.pick((~chosen).nonzero()[:, 0]),
        validation=validation,
        num_classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(flip=True) if augment is None else augment,
        classes=classes,
        seed=seed,
    )


def _numbers(path: Path, images: dict[str, str]) -> dict[str, int]:
    """Image -> whole number, one for every image."""
    rows = SOURCE.table(path)
    try:
        found = {image: int(text) for image, text in rows.items()}
    except ValueError as error:
        raise SecateurError(f"{path} must hold an image and a whole number in every line: {error}") from None
    _complete(path, found, images)
    return found


def _boxes(path: Path, images: dict[str, str]) -> dict[str, Box]:
    """Image -> box, from left, top, width and height."""
    found: dict[str, Box] = {}
    for image, text in SOURCE.table(path).items():
        try:
            left, top, width, height = map(float, text.split())
        except ValueError:
            raise SecateurError(f"{path}: image {image} must have four numbers, but has {text!r}") from None
        found[image] = (left, top, left + width, top + height)
    _complete(path, found, images)
    return found


def _complete(path: Path, found: dict[str, int] | dict[str, Box], images: dict[str, str]) -> None:
    for image in images:
        if image not in found:
            raise SecateurError(f"{path} has no line for image {image}, which images.txt has")
