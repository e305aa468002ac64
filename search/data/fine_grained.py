"""Three data sets of fine-grained classes: FGVC-Aircraft, Stanford Cars and CUB-200-2011 (birds).

448 pixels and flips alone are what bilinear networks are trained with on them (Lin et al., ICCV 2015).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Box, ImageFile, View, read_pictures
from search.data.publications import Publication
from search.data.sources import Split

_AIRCRAFT = Publication(
    "FGVC-Aircraft", "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", ("fgvc-aircraft-2013b",)
)
_BANNER = 20  # rows at the bottom with the photographer's name; the README asks to remove them
_CARS = Publication(
    "Stanford Cars", "https://ai.stanford.edu/~jkrause/cars/car_dataset.html", ("stanford_cars", "stanford-cars")
)
_CARS_TEST = "cars_test_annos_withlabels.mat"
_BIRDS = Publication("CUB-200-2011", "https://www.vision.caltech.edu/datasets/cub_200_2011/", ("CUB_200_2011",))


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

    Args:
        folder: holds `data/` with `images/`, `variants.txt` and `images_variant_train.txt`, `_val.txt` and `_test.txt`
            (`_trainval.txt` with a fraction for `validation`); `$SECATEUR_DATA/data/fgvc-aircraft-2013b` when not
            given.
        size: side in pixels.
        validation: the official validation split when not given; else this fraction of the images of
            `images_variant_trainval.txt`, so that more are left to train with.
        seed: draws that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 6.0 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size, strip=_BANNER)
    home = _AIRCRAFT.home(folder) / "data"
    classes = _AIRCRAFT.lines(home / "variants.txt")
    parts = ("train", "val", "test") if validation is None else ("trainval", "test")
    listed = [_variants(home, f"images_variant_{part}.txt", classes) for part in parts]
    # In the order of their names, whatever the parts are: the decoded images are the same for both ways to split.
    pictures = sorted((picture for part in listed for picture in part), key=lambda picture: picture.path)
    everything = read_pictures("aircraft", home.parent, pictures, view, _AIRCRAFT, cache)
    place_of = {picture.path: place for place, picture in enumerate(pictures)}
    splits = [everything.pick(torch.tensor([place_of[picture.path] for picture in part])) for part in listed]
    return _task(
        "aircraft",
        splits[0],
        splits[-1],
        classes,
        validation=splits[1] if validation is None else validation,
        augment=augment,
        seed=seed,
    )


def _variants(home: Path, name: str, classes: list[str]) -> list[ImageFile]:
    """The images of one list: a line is the image's number and its variant."""
    label_of = {variant: label for label, variant in enumerate(classes)}
    pictures = []
    for image, variant in _AIRCRAFT.table(home / name).items():
        if variant not in label_of:
            raise SecateurError(
                f"{home / name}: image {image} is of variant {variant!r}, which variants.txt does not have"
            )
        pictures.append(ImageFile(home / "images" / f"{image}.jpg", label_of[variant]))
    if not pictures:
        raise SecateurError(f"{home / name} names no image")
    return pictures


def cars(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 448,
    boxes: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Stanford Cars: 8,144 training and 8,041 test images, as the annotations say.

    Args:
        folder: holds `devkit/` with `cars_meta.mat` and `cars_train_annos.mat`, `cars_test_annos_withlabels.mat` there
            or beside it, `cars_train/` and `cars_test/`; or else `cars_annos.mat` and `car_ims/`;
            `$SECATEUR_DATA/data/stanford_cars` when not given.
        size: side in pixels.
        boxes: cut every image to the car first, as the annotations say.
        validation: fraction of the training images set aside.
        seed: draws that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 9.7 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size)
    home = _CARS.home(folder)
    together = home / "cars_annos.mat"
    if together.is_file() and not (home / "devkit").is_dir():
        content = _read_matlab(together, "annotations", "class_names")
        train, test = (_annotated(together, content["annotations"], home, boxes, part) for part in (0, 1))
        classes = [str(name) for name in np.atleast_1d(content["class_names"])]
    else:
        meta = _read_matlab(home / "devkit" / "cars_meta.mat", "class_names")
        classes = [str(name) for name in np.atleast_1d(meta["class_names"])]
        train_path = home / "devkit" / "cars_train_annos.mat"
        test_path = home / "devkit" / _CARS_TEST if (home / "devkit" / _CARS_TEST).is_file() else home / _CARS_TEST
        train = _annotated(
            train_path, _read_matlab(train_path, "annotations")["annotations"], home / "cars_train", boxes
        )
        test = _annotated(test_path, _read_matlab(test_path, "annotations")["annotations"], home / "cars_test", boxes)
    if not (train and test):
        raise SecateurError(
            f"{home}: the annotations must name training and test images, but name {len(train)} and {len(test)}"
        )
    everything = read_pictures("cars", home, [*train, *test], view, _CARS, cache)
    places = torch.arange(len(everything))
    return _task(
        "cars",
        everything.pick(places[: len(train)]),
        everything.pick(places[len(train) :]),
        classes,
        validation=validation,
        augment=augment,
        seed=seed,
    )


def _read_matlab(path: Path, *names: str) -> dict[str, Any]:
    """Some variables of a MATLAB file."""
    from scipy.io import loadmat

    if not path.is_file():
        raise _CARS.missing(path)
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True, variable_names=names)
    except Exception as error:  # scipy's reader raises many kinds for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SecateurError(f"{path} cannot be read as a MATLAB file: {reason}") from None
    for name in names:
        if name not in content:
            raise SecateurError(f"{path} holds no {name}")
    return content


def _annotated(path: Path, rows: Any, images: Path, boxes: bool, part: int | None = None) -> list[ImageFile]:
    """The images that annotations name; with `part` only those whose field `test` has this value."""
    rows = np.atleast_1d(rows)
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    needed = ("class", "fname", *corners) if part is None else ("class", "relative_im_path", "test", *corners)
    lacking = [name for name in needed if name not in (rows.dtype.names or ())]
    if lacking:
        hint = f"; {_CARS_TEST} has it" if "class" in lacking else ""
        raise SecateurError(f"{path}: the annotations have no field {lacking[0]!r}{hint}")
    pictures = []
    for row in rows:
        if part is not None and int(row["test"]) != part:
            continue
        left, top, right, bottom = (float(row[name]) for name in corners)
        # Corners are counted from 1, and the last pixel belongs to the box.
        box = (left - 1, top - 1, right, bottom) if boxes else None
        pictures.append(ImageFile(images / str(row[needed[1]]), int(row["class"]) - 1, box))
    return pictures


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

    Args:
        folder: holds `images.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt` and `images/`;
            `$SECATEUR_DATA/data/CUB_200_2011` when not given.
        size: side in pixels.
        boxes: cut every image to the bird first, as `bounding_boxes.txt` says.
        validation: fraction of the training images set aside.
        seed: draws that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 7.1 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size)
    home = _BIRDS.home(folder)
    paths = _BIRDS.table(home / "images.txt")
    labels = _numbers(home / "image_class_labels.txt", paths)
    training = _numbers(home / "train_test_split.txt", paths)
    classes = [name.partition(".")[2] or name for name in _BIRDS.table(home / "classes.txt").values()]
    cuts = _boxes(home / "bounding_boxes.txt", paths) if boxes else {}
    pictures = [ImageFile(home / "images" / path, labels[image] - 1, cuts.get(image)) for image, path in paths.items()]
    everything = read_pictures("cub200", home, pictures, view, _BIRDS, cache)
    chosen = torch.tensor([training[image] == 1 for image in paths])
    return _task(
        "cub200",
        everything.pick(chosen.nonzero()[:, 0]),
        everything.pick((~chosen).nonzero()[:, 0]),
        classes,
        validation=validation,
        augment=augment,
        seed=seed,
    )


def _numbers(path: Path, images: dict[str, str]) -> dict[str, int]:
    """Image -> whole number, one for every image."""
    rows = _BIRDS.table(path)
    try:
        found = {image: int(text) for image, text in rows.items()}
    except ValueError as error:
        raise SecateurError(f"{path} must hold an image and a whole number in every line: {error}") from None
    _complete(path, found, images)
    return found


def _boxes(path: Path, images: dict[str, str]) -> dict[str, Box]:
    """Image -> box, from left, top, width and height."""
    found: dict[str, Box] = {}
    for image, text in _BIRDS.table(path).items():
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


def _task(
    name: str,
    train: Split,
    test: Split,
    classes: Sequence[str],
    *,
    validation: float | Split,
    augment: Augment | None,
    seed: int,
) -> Data:
    """What the three have in common: normalised as for ImageNet, and flipped while training."""
    return Data.from_tensors(
        name,
        train,
        test,
        validation=validation,
        num_classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(flip=True) if augment is None else augment,
        classes=classes,
        seed=seed,
    )
