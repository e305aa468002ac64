"""Pictures in one folder a class: your own, and two published sets.

Caltech-256 (Griffin, Holub and Perona, 2007): 256 object classes and one of clutter. Tiny ImageNet (Le and Yang, 2015):
200 classes of ImageNet at 64 x 64.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from backbones.errors import SecateurError
from search.checks import check_range
from search.data.augment import Augment
from search.data.data import Data
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD, ImageFile, View, read_pictures, usual_size
from search.data.publications import Publication, warn_unequal
from search.data.sources import counts, draw_off, split_off

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
LARGEST_SIDE = 224
"""Side in pixels to which larger pictures are resized unless another one is asked for."""
VALIDATION = ("val", "valid", "validation")
_CALTECH = Publication("Caltech-256", "https://data.caltech.edu/records/nyy15-4j048", ("256_ObjectCategories",))
_CLASS = re.compile(r"(\d{3})\.(.+)")
_CLUTTER = 257
_TINY = Publication("Tiny ImageNet", "http://cs231n.stanford.edu/tiny-imagenet-200.zip", ("tiny-imagenet-200",))
# Measured on the 100,000 training images; the usual figures of Tiny ImageNet trainings.
_TINY_MEAN = (0.4802, 0.4481, 0.3975)
_TINY_STD = (0.2770, 0.2691, 0.2821)


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
        if not found:
            raise SecateurError(f"{place / name} holds no picture; one ends in {', '.join(sorted(ENDINGS))}")
        pictures += [ImageFile(path, label) for path in found]
    return pictures


def _visible(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


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
    home = _CALTECH.home(folder)
    folders = [path for number, path in _numbered_folders(home) if clutter or number != _CLUTTER]
    pictures = [
        ImageFile(path, label) for label, place in enumerate(folders) for path in sorted(place.glob("*.[jJ][pP][gG]"))
    ]
    if not pictures:
        raise _CALTECH.missing(folders[0] / "*.jpg")
    everything = read_pictures("caltech256", home, pictures, view, _CALTECH, cache)
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


def _numbered_folders(home: Path) -> list[tuple[int, Path]]:
    """(number, folder) of every class in order; the numbers must follow one another."""
    found = {int(match[1]): path for path in home.iterdir() if path.is_dir() and (match := _CLASS.fullmatch(path.name))}
    if not found:
        raise _CALTECH.missing(home / "001.ak47")
    for number in range(1, max(found) + 1):
        if number not in found:
            raise _CALTECH.missing(home / f"{number:03d}.*")
    return sorted(found.items())


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
    home = _TINY.home(folder)
    wnids = _TINY.lines(home / "wnids.txt")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    words = _TINY.table(home / "words.txt")
    train = [ImageFile(path, label_of[wnid]) for wnid in wnids for path in _images_in(home / "train" / wnid / "images")]
    test = _validation_images(home / "val", label_of)
    everything = read_pictures("tiny-imagenet", home, [*train, *test], view, _TINY, cache)
    places = torch.arange(len(everything))
    training, testing = everything.pick(places[: len(train)]), everything.pick(places[len(train) :])
    warn_unequal(home, training, "training", len(wnids))
    return Data.from_tensors(
        "tiny-imagenet",
        training,
        testing,
        validation=validation,
        num_classes=len(wnids),
        mean=_TINY_MEAN,
        std=_TINY_STD,
        augment=Augment(crop=max(1, size // 8), flip=True) if augment is None else augment,
        classes=[words.get(wnid, wnid) for wnid in wnids],
        seed=seed,
    )


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise _TINY.missing(folder)
    found = sorted(folder.glob("*.JPEG"), key=lambda path: path.name)
    if not found:
        raise _TINY.missing(folder / "*.JPEG")
    return found


def _validation_images(folder: Path, label_of: dict[str, int]) -> list[ImageFile]:
    """The images of `val/`; a line of its list is a file, its class and a box, between tabs."""
    path = folder / "val_annotations.txt"
    pictures = []
    for name, rest in _TINY.table(path).items():
        wnid = rest.split()[0]
        if wnid not in label_of:
            raise SecateurError(f"{path}: {name} is of class {wnid!r}, which wnids.txt does not have")
        pictures.append(ImageFile(folder / "images" / name, label_of[wnid]))
    if not pictures:
        raise SecateurError(f"{path} names no image")
    return pictures
