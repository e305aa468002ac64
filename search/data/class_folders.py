"""Any pictures of your own: one folder a class, with or without folders for training, validation and test."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backbones.errors import SecateurError
from search.checks import check_range
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, ImageFile, View, read_pictures, usual_size
from search.data.sources import split_off

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
LARGEST_SIDE = 224
"""Side in pixels to which larger pictures are resized unless another one is asked for."""
VALIDATION = ("val", "valid", "validation")


def class_folders(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    grey: bool = False,
    test: float | None = None,
    validation: float | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Pictures in one folder a class, `cat/`, `dog/`, ..., or in such folders below `train/`, `val/` and `test/`.

    Args:
        folder: holds the class folders, or `train/` and perhaps `val/` (`valid/`, `validation/`) and `test/`. Classes
            are in the order of their names; pictures may lie deeper; names that begin with a dot are left alone.
        size: side in pixels: the shorter side is resized to it, the middle of the longer side is kept. When not given
            the median of the pictures' own shorter sides, at most `LARGEST_SIDE`.
        grey: one channel instead of three; mean and deviation are then measured on the training images, else they are
            those of ImageNet.
        test: without `test/` a fraction of all images of `folder` (or `train/`) set aside first, 0.2 when not given.
        validation: `val/` when there is one and this is not given; else a fraction of the training images (`val/` is
            then among them), 0.1 when not given.
        seed: draws these splits.
        augment: a shift by up to a sixteenth of the side and a flip when not given.
        cache: folder for the decoded images, size * size * 3 bytes each; see `cache_folder`.

    Raises:
        SecateurError: when there are no pictures, a class is missing or unknown in a part, or a picture cannot be read.
    """
    if folder is None:
        raise SecateurError("data 'folder' needs folder=..., which must hold one folder of pictures a class")
    home = Path(folder)
    if not home.is_dir():
        raise SecateurError(f"{home} is no folder; it must hold one folder of pictures a class")
    places = _places(home)
    if test is not None and "test" in places:
        raise SecateurError(f"{home} has test/, so that test={test} cannot be set aside; leave it out")
    classes = [path.name for path in _visible(places["train"]) if path.is_dir()]
    if len(classes) < 2:
        raise SecateurError(f"{places['train']} must hold at least two folders of pictures, but holds {len(classes)}")
    listed = {part: _pictures(place, classes) for part, place in places.items()}
    if validation is not None:
        listed["train"] += listed.pop("validation", [])
    name = home.resolve().name
    where = f"data {name!r}"
    pictures = [picture for part in listed.values() for picture in part]
    view = View(usual_size(pictures, LARGEST_SIDE) if size is None else size, grey=grey)
    everything = read_pictures("folder", home, pictures, view, cache=cache)
    places_of = torch.arange(len(everything)).split([len(part) for part in listed.values()])
    splits = {part: everything.pick(chosen) for part, chosen in zip(listed, places_of, strict=True)}
    if "test" not in splits:
        share = 0.2 if test is None else test
        check_range("test", share, 0, 1, above=True, below=True, where=where)
        splits["train"], splits["test"] = split_off(splits["train"], share, len(classes), seed, where)
    return Data.from_tensors(
        name,
        splits["train"],
        splits["test"],
        validation=splits.get("validation", 0.1 if validation is None else validation),
        num_classes=len(classes),
        mean=None if grey else IMAGENET_MEAN,
        std=None if grey else IMAGENET_STD,
        augment=Augment(crop=max(1, view.size // 16), flip=True) if augment is None else augment,
        classes=classes,
        seed=seed,
    )


def _places(home: Path) -> dict[str, Path]:
    """Part ("train", and where they exist "validation" and "test") -> the folder with its class folders."""
    held = [home / name for name in VALIDATION if (home / name).is_dir()]
    if len(held) > 1:
        raise SecateurError(f"{home} has {held[0].name}/ and {held[1].name}/; it must have one of them")
    found = {"validation": held[0]} if held else {}
    if (home / "test").is_dir():
        found["test"] = home / "test"
    if (home / "train").is_dir():
        return {"train": home / "train", **found}
    if found:
        raise SecateurError(f"{home} has {next(iter(found.values())).name}/, but train/ is missing beside it")
    return {"train": home}


def _pictures(place: Path, classes: list[str]) -> list[ImageFile]:
    """All pictures below `place`, class by class."""
    for path in _visible(place):
        if path.is_dir() and path.name not in classes:
            raise SecateurError(f"{place} has a class {path.name!r}, which the training images do not have")
    pictures = []
    for label, name in enumerate(classes):
        found = [
            path
            for path in sorted((place / name).rglob("*"))
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        ]
        odd = [path for path in found if not path.is_file()]  # reading a pipe waits for ever
        if odd:
            raise SecateurError(f"{odd[0]} is no file, though it is named as a picture; remove or rename it")
        if not found:
            raise SecateurError(f"{place / name} holds no picture; one ends in {', '.join(sorted(ENDINGS))}")
        pictures += [ImageFile(path, label) for path in found]
    return pictures


def _visible(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))
