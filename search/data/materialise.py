"""From a torch dataset or loader to images in memory, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from backbones.errors import SecateurError
from backbones.modes import seed_all
from search.data.sources import Split, image_batch

UNSIZED, UNSIZED_BYTES = 250_000, 8 * 2**30
"""Samples of a source without a length that are read at most, and bytes."""


def materialise(source: object, where: str) -> Split:
    """Reads a Dataset or DataLoader once into memory.

    Raises:
        SecateurError: naming `where`, for samples that are not (image, label) pairs or differ in shape.
    """
    images: list[Tensor] = []
    labels: list[int] = []
    for image, label in _samples(source, where):
        if images and image.shape != images[0].shape[-image.ndim :]:
            raise SecateurError(
                f"{where}: image {len(images)} is {tuple(image.shape)}, the first {tuple(images[0].shape)}; "
                "resize them to one shape in the dataset"
            )
        images.append(image)
        labels.append(label)
        if (len(images) > UNSIZED or len(images) * image.nbytes > UNSIZED_BYTES) and not _sized(source):
            raise SecateurError(
                f"{where} has no length and does not end after {len(images) - 1:,} samples; give a dataset with a "
                "length, or stream=True with a loader"
            )
    if not images:
        raise SecateurError(f"{where} is empty; it needs at least one image")
    return Split.of((torch.stack(images), torch.tensor(labels)), where)


def _samples(source: object, where: str) -> Iterable[tuple[Tensor, int]]:
    if isinstance(source, DataLoader):
        with torch.random.fork_rng(devices=[]):
            seed_all(0)
            for batch in _unshuffled(source):
                images, labels = image_batch(batch, where)
                yield from zip(images, labels.tolist(), strict=True)
        return
    if isinstance(source, Mapping) or (not isinstance(source, Dataset) and not hasattr(source, "__getitem__")):
        raise SecateurError(f"{where} must be a torch Dataset or DataLoader, but got {type(source).__name__}")
    items: Any = source
    size = len(items) if hasattr(items, "__len__") else None
    for sample in items if size is None else (items[i] for i in range(size)):
        if not isinstance(sample, tuple | list) or len(sample) < 2:
            raise SecateurError(f"{where}: a sample must be an (image, label) pair, but got {type(sample).__name__}")
        try:
            label = int(sample[1])
        except (TypeError, ValueError):
            raise SecateurError(f"{where}: a label must be a whole number, but got {sample[1]!r}") from None
        yield _image(sample[0], where), label


def _sized(source: object) -> bool:
    """Whether a dataset, or that of a loader, knows its length."""
    return hasattr(source.dataset if isinstance(source, DataLoader) else source, "__len__")


def _unshuffled(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same samples in the dataset's order, so that reading twice gives the same tensors."""
    if isinstance(loader.sampler, RandomSampler) and not loader.sampler.replacement and loader.batch_size:
        return DataLoader(
            loader.dataset,
            loader.batch_size,
            sampler=SequentialSampler(loader.dataset),  # type: ignore[arg-type]
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
    return loader


def _image(value: Any, where: str) -> Tensor:
    """(C, H, W) from a tensor, or from an array or PIL image (H, W, C) or (H, W)."""
    if isinstance(value, Tensor):
        image = value
    else:
        array = np.array(value)
        if array.dtype.kind not in "buif":
            raise SecateurError(
                f"{where}: an image must be a tensor, array or PIL image, but got {type(value).__name__}"
            )
        image = torch.from_numpy(
            array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0) if array.ndim == 3 else array
        )
    if image.ndim != 3:
        raise SecateurError(f"{where}: an image must be (C, H, W), but got shape {tuple(image.shape)}")
    return image
