"""From image files to square pixels of one size: decode, cut, resize, keep."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from backbones.errors import SecateurError
from search.data.decoded import DecodeJob, Pixels, cache_folder, decoded, key_of
from search.data.publications import Publication
from search.data.sources import Split

#: Mean and deviation per channel of ImageNet, which networks that are trained on it expect (Simonyan and Zisserman,
#: ICLR 2015; torchvision).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file.

    Attributes:
        path: where it is.
        label: number of its class, from 0.
        box: left, top, right, bottom in pixels of the part that is kept; the whole image when None.
    """

    path: Path
    label: int
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class View:
    """How pictures become pixels.

    Attributes:
        size: side of the square in pixels: the shorter side is resized to it, the middle of the longer side is kept.
        grey: one channel instead of three.
        strip: rows of pixels that are cut off at the bottom first.
    """

    size: int
    grey: bool = False
    strip: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise SecateurError(f"1 <= size <= 4096 pixels must hold, but got size={self.size!r}")


MEASURED = 1000
"""Pictures whose sizes are looked at."""


def usual_size(pictures: Sequence[ImageFile], most: int) -> int:
    """The median of the pictures' shorter sides in pixels, at most `most`; of many every so manieth is looked at.

    Raises:
        SecateurError: as `read_pictures`.
    """
    library, sides = pillow(), []
    for picture in pictures[:: -(-len(pictures) // MEASURED)]:
        _status(picture)
        try:
            with library.open(picture.path) as image:
                sides.append(min(image.size))
        except Exception as error:  # Pillow's decoders raise many kinds
            raise _unreadable(picture, error) from None
    return min(most, int(np.median(sides)))


def _unreadable(picture: ImageFile, error: Exception) -> SecateurError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return SecateurError(f"{picture.path} cannot be read as an image: {reason}; fetch the file again")


def read_pictures(
    name: str,
    home: Path,
    pictures: Sequence[ImageFile],
    view: View,
    source: Publication | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Split:
    """All pictures as one mapped split, in the order given.

    They are decoded once; later calls find the result by the names, sizes and times of the files and by `view`.

    Args:
        name: name of the data set; begins the name of the cache file.
        home: folder of the data set.
        pictures: the files to read, with their labels.
        view: how the pictures are cut and resized.
        source: where the data set is published; named when a file is missing.
        cache: folder for the decoded images; see `cache_folder`.

    Raises:
        SecateurError: for a file that is missing, or no image that can be read; without Pillow.
    """
    facts = []
    for picture in pictures:
        found = _status(picture, source)
        facts.append((str(picture.path).removeprefix(str(home)), found.st_size, found.st_mtime_ns, picture.box))
    channels = 1 if view.grey else 3

    def job() -> DecodeJob:
        return DecodeJob(pictures, partial(decode, view=view, library=pillow()), (channels, view.size, view.size))

    images = decoded(cache_folder(cache, home), f"{name}-{view.size}", key_of(view, facts), job)
    return images.split([picture.label for picture in pictures])


def _status(picture: ImageFile, source: Publication | None = None) -> os.stat_result:
    """What the system says of a picture's file.

    Raises:
        SecateurError: when it is missing, or a pipe or device, of which reading may never end.
    """
    try:
        found = picture.path.stat()
    except OSError:
        missing = SecateurError(f"{picture.path.parent}: {picture.path.name} is missing")
        raise (source.missing(picture.path) if source else missing) from None
    if not stat.S_ISREG(found.st_mode):
        raise SecateurError(f"{picture.path} is no file, though it is named as a picture; remove or rename it")
    return found


def decode(picture: ImageFile, view: View, library: ModuleType) -> Pixels:
    """(C, size, size) pixels of one picture; antialiased bilinear resizing.

    Raises:
        SecateurError: when it cannot be decoded.
    """
    try:
        with library.open(picture.path) as image:
            if image.mode[0] in "IF":
                raise SecateurError(f"{picture.path} has more than 8 bits a channel; save it with 8")
            coloured = image.convert("RGBA") if image.mode == "P" else image
            pixels = coloured.convert("L" if view.grey else "RGB")
    except SecateurError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise _unreadable(picture, error) from None
    left, top, right, bottom = picture.box or (0, 0, pixels.width, pixels.height)
    left, top = max(0.0, left), max(0.0, top)
    right, bottom = min(right, pixels.width), min(bottom, pixels.height - view.strip)
    side = min(right - left, bottom - top)
    if side < 1:
        raise SecateurError(
            f"{picture.path}: nothing is left of {pixels.width} x {pixels.height} pixels after cutting to "
            f"{left:g}, {top:g}, {right:g}, {bottom:g}"
        )
    left, top = left + (right - left - side) // 2, top + (bottom - top - side) // 2
    resized = pixels.resize(
        (view.size, view.size), library.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    array = np.asarray(resized, dtype=np.uint8)
    return array[None] if view.grey else np.moveaxis(array, -1, 0)


def pillow() -> ModuleType:
    """`PIL.Image`.

    Raises:
        SecateurError: when Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise SecateurError("image files need Pillow; install it with: pip install pillow") from None
    return Image
