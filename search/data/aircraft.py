"""FGVC-Aircraft (Maji et al., 2013): 100 variants of aircraft."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Picture, View, read_pictures
from search.data.publications import Publication

SOURCE = Publication("FGVC-Aircraft", "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", ("fgvc-aircraft-2013b",))
BANNER = 20  # rows at the bottom with the photographer's name; the README asks to remove them


def aircraft(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 448,
    validation: float | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """FGVC-Aircraft, variants: 3,334 training, 3,333 validation and 3,333 test images, as its lists say.

    448 pixels and flips alone are what bilinear networks are trained with (Lin et al., ICCV 2015).

    Args:
        folder: holds `data/` with `images/`, `variants.txt` and `images_variant_train.txt`, `_val.txt` and `_test.txt`
            (`_trainval.txt` with a fraction for `validation`); `$SECATEUR_DATA/data/fgvc-aircraft-2013b` when not
            given.
        size: side in pixels.
        validation: the official validation split when not given; else this fraction of the images of
            `images_variant_trainval.txt`, so that more are left to train with.
        seed: of that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 6.0 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size, strip=BANNER)
    home = SOURCE.home(folder) / "data"
    classes = SOURCE.lines(home / "variants.txt")
    parts = ("train", "val", "test") if validation is None else ("trainval", "test")
    listed = [_listed(home, f"images_variant_{part}.txt", classes) for part in parts]
    # In the order of their names, whatever the parts are: the decoded images are the same for both ways to split.
    pictures = sorted((picture for part in listed for picture in part), key=lambda picture: picture.path)
    everything = read_pictures("aircraft", home.parent, pictures, view, SOURCE, cache)
    place_of = {picture.path: place for place, picture in enumerate(pictures)}
    splits = [everything.pick(torch.tensor([place_of[picture.path] for picture in part])) for part in listed]
    return Data.from_tensors(
        "aircraft",
        splits[0],
        splits[-1],
        validation=splits[1] if validation is None else validation,
        num_classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(flip=True) if augment is None else augment,
        classes=classes,
        seed=seed,
    )


def _listed(home: Path, name: str, classes: list[str]) -> list[Picture]:
    """The images of one list: a line is the image's number and its variant."""
    label_of = {variant: label for label, variant in enumerate(classes)}
    pictures = []
    for image, variant in SOURCE.table(home / name).items():
        if variant not in label_of:
            raise SecateurError(
                f"{home / name}: image {image} is of variant {variant!r}, which variants.txt does not have"
            )
        pictures.append(Picture(home / "images" / f"{image}.jpg", label_of[variant]))
    if not pictures:
        raise SecateurError(f"{home / name} names no image")
    return pictures
