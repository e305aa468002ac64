"""Stanford Cars (Krause et al., 2013): 196 makes, models and years of cars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Picture, View, read_pictures
from search.data.publications import Publication

SOURCE = Publication(
    "Stanford Cars", "https://ai.stanford.edu/~jkrause/cars/car_dataset.html", ("stanford_cars", "stanford-cars")
)
TEST = "cars_test_annos_withlabels.mat"


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

    448 pixels and flips alone are what bilinear networks are trained with (Lin et al., ICCV 2015).

    Args:
        folder: holds `devkit/` with `cars_meta.mat` and `cars_train_annos.mat`, `cars_test_annos_withlabels.mat` there
            or beside it, `cars_train/` and `cars_test/`; or else `cars_annos.mat` and `car_ims/`;
            `$SECATEUR_DATA/data/stanford_cars` when not given.
        size: side in pixels.
        boxes: cut every image to the car first, as the annotations say.
        validation: fraction of the training images set aside.
        seed: of that split.
        augment: a flip when not given.
        cache: folder for the decoded images, 9.7 GB at 448 pixels; see `cache_folder`.

    Raises:
        SecateurError: when a file is missing, or cannot be read.
    """
    view = View(size)
    home = SOURCE.home(folder)
    together = home / "cars_annos.mat"
    if together.is_file() and not (home / "devkit").is_dir():
        content = _read(together, "annotations", "class_names")
        train, test = (_pictures(together, content["annotations"], home, boxes, part) for part in (0, 1))
        classes = [str(name) for name in np.atleast_1d(content["class_names"])]
    else:
        meta = _read(home / "devkit" / "cars_meta.mat", "class_names")
        classes = [str(name) for name in np.atleast_1d(meta["class_names"])]
        train_path = home / "devkit" / "cars_train_annos.mat"
        test_path = home / "devkit" / TEST if (home / "devkit" / TEST).is_file() else home / TEST
        train = _pictures(train_path, _read(train_path, "annotations")["annotations"], home / "cars_train", boxes)
        test = _pictures(test_path, _read(test_path, "annotations")["annotations"], home / "cars_test", boxes)
    if not (train and test):
        raise SecateurError(
            f"{home}: the annotations must name training and test images, but name {len(train)} and {len(test)}"
        )
    everything = read_pictures("cars", home, [*train, *test], view, SOURCE, cache)
    places = torch.arange(len(everything))
    return Data.from_tensors(
        "cars",
        everything.pick(places[: len(train)]),
        everything.pick(places[len(train) :]),
        validation=validation,
        num_classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(flip=True) if augment is None else augment,
        classes=classes,
        seed=seed,
    )


def _read(path: Path, *names: str) -> dict[str, Any]:
    """Some variables of a MATLAB file."""
    from scipy.io import loadmat

    if not path.is_file():
        raise SOURCE.missing(path)
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True, variable_names=names)
    except Exception as error:  # scipy's reader raises many kinds for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SecateurError(f"{path} cannot be read as a MATLAB file: {reason}") from None
    for name in names:
        if name not in content:
            raise SecateurError(f"{path} holds no {name}")
    return content


def _pictures(path: Path, rows: Any, images: Path, boxes: bool, part: int | None = None) -> list[Picture]:
    """The images that annotations name; with `part` only those whose field `test` has this value."""
    rows = np.atleast_1d(rows)
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    needed = ("class", "fname", *corners) if part is None else ("class", "relative_im_path", "test", *corners)
    lacking = [name for name in needed if name not in (rows.dtype.names or ())]
    if lacking:
        hint = f"; {TEST} has it" if "class" in lacking else ""
        raise SecateurError(f"{path}: the annotations have no field {lacking[0]!r}{hint}")
    pictures = []
    for row in rows:
        if part is not None and int(row["test"]) != part:
            continue
        left, top, right, bottom = (float(row[name]) for name in corners)
        # Corners are counted from 1, and the last pixel belongs to the box.
        box = (left - 1, top - 1, right, bottom) if boxes else None
        pictures.append(Picture(images / str(row[needed[1]]), int(row["class"]) - 1, box))
    return pictures
