"""FER-2013 (Goodfellow et al., 2013): seven facial expressions, grey, 48 x 48, in one CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.decoded import DecodeJob, Pixels, cache_folder, decoded, key_of
from search.data.pictures import View, pillow
from search.data.publications import Publication

_SOURCE = Publication(
    "FER-2013",
    "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    ("fer2013",),
)
_FILE = "fer2013.csv"
_SIDE = 48
_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_USAGES = ("Training", "PublicTest", "PrivateTest")
# Measured on the 28,709 training images; the usual figures of FER-2013 trainings.
_MEAN = (0.5074,)
_STD = (0.2551,)

_Row = tuple[int, str]


def fer2013(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = _SIDE,
    validation: float | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """FER-2013: 28,709 training, 3,589 validation (PublicTest) and 3,589 test images (PrivateTest).

    Args:
        folder: holds `fer2013.csv` with the columns emotion, pixels and Usage; `$SECATEUR_DATA/data/fer2013` when not
            given.
        size: side in pixels.
        validation: the official validation split when not given; else this fraction of both that and the training
            images, so that more are left to train with.
        seed: draws that split.
        augment: a shift by up to a twelfth of the side and a flip when not given.
        cache: folder for the decoded images, 83 MB at 48 pixels; see `cache_folder`.

    Raises:
        SecateurError: when the file is missing, or one of its lines is not as it should be.
    """
    view = View(size, grey=True)
    home = _SOURCE.home(folder)
    path = home / _FILE
    if not path.is_file():
        raise _SOURCE.missing(path)
    stat = path.stat()
    key = key_of(view, _FILE, stat.st_size, stat.st_mtime_ns)
    found = decoded(cache_folder(cache, home), f"fer2013-{size}", key, partial(_job, path, view))
    everything = found.split(found.notes["labels"])
    usage = torch.tensor(found.notes["usages"])
    kept, held, test = (everything.pick((usage == number).nonzero()[:, 0]) for number in range(3))
    both = everything.pick((usage < 2).nonzero()[:, 0])
    return Data.from_tensors(
        "fer2013",
        kept if validation is None else both,
        test,
        validation=held if validation is None else validation,
        num_classes=len(_CLASSES),
        mean=_MEAN,
        std=_STD,
        augment=Augment(crop=max(1, size // 12), flip=True) if augment is None else augment,
        classes=_CLASSES,
        seed=seed,
    )


def _job(path: Path, view: View) -> DecodeJob:
    labels, usages, rows = [], [], []
    for number, (emotion, pixels, usage) in _rows(path):
        if not (emotion.isdecimal() and int(emotion) < len(_CLASSES)):
            raise SecateurError(f"{path} line {number}: emotion must be 0 to {len(_CLASSES) - 1}, but is {emotion!r}")
        if usage not in _USAGES:
            raise SecateurError(f"{path} line {number}: Usage must be {', '.join(_USAGES)}, but is {usage!r}")
        labels.append(int(emotion))
        usages.append(_USAGES.index(usage))
        rows.append((number, pixels))
    for number, usage in enumerate(_USAGES):
        if number not in usages:
            raise SecateurError(f"{path} has no line of Usage {usage}")
    return DecodeJob(
        rows, partial(_pixels, path, view), (1, view.size, view.size), {"labels": labels, "usages": usages}
    )


def _rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Line number and (emotion, pixels, usage) of every image."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            if not {"emotion", "pixels", "usage"} <= set(header):
                raise SecateurError(f"{path} must have the columns emotion, pixels and Usage, but has {header}")
            emotion, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "usage"))
            for row in reader:
                if len(row) != len(header):
                    raise SecateurError(f"{path} line {reader.line_num} has {len(row)} columns, not {len(header)}")
                yield reader.line_num, (row[emotion].strip(), row[pixels], row[usage].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SecateurError(f"{path} cannot be read: {error}") from None


def _pixels(path: Path, view: View, row: _Row) -> Pixels:
    number, text = row
    try:
        pixels = np.frombuffer(bytes(map(int, text.split())), dtype=np.uint8)
    except ValueError:
        raise SecateurError(f"{path} line {number}: pixels must be whole numbers from 0 to 255") from None
    if pixels.size != _SIDE * _SIDE:
        raise SecateurError(f"{path} line {number} has {pixels.size} pixels, not {_SIDE} x {_SIDE}")
    image = pixels.reshape(1, _SIDE, _SIDE)
    if view.size == _SIDE:
        return image
    library = pillow()
    resized = library.fromarray(image[0]).resize((view.size, view.size), library.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)[None]
