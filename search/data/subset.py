"""A part of the training images: for studies that are meant to be small."""

from __future__ import annotations

from dataclasses import replace

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.sources import Split, split_off


def cut(data: Data, images: int | None, seed: int) -> Data:
    """The task with at most `images` training images, classes in proportion, drawn once.

    Raises:
        SecateurError: for a stream, or more images than there are.
    """
    if images is None or images == len(data.train):
        return data
    if not isinstance(data.train, Split):
        raise SecateurError("images needs training images in memory; leave it out for a loader")
    if images > len(data.train):
        raise SecateurError(f"images <= {len(data.train)} training images must hold, but got images={images}")
    _, chosen = split_off(
        data.train, images / len(data.train), data.num_classes, seed, f"data {data.name!r}, images={images}"
    )
    return replace(data, train=chosen)
