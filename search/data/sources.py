"""Where data comes from: images in memory or mapped from a file, or a loader that is read anew in every epoch."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from backbones.errors import SecateurError
from backbones.inputs import first_samples, sample_count, tensors_in
from search.checks import check_range
from search.data.items import SampleBatch, as_batch, digest_tree, joined

ImageShape = tuple[int, ...]

PIECE = 2**22  # values that are worked on at once where a whole data set may not fit


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images held in memory, or some of the images of a memory map.

    Attributes:
        pool: (M, C, H, W), uint8 0..255 (kept so: a quarter of the memory) or floating point.
        labels: (N,) int64.
        rows: (N,) int64, which images of the pool these are, in order; None for all of them (M = N). Splits with rows
            share one pool, which then need not fit into memory.
        content: fingerprint of the whole pool where it is known, so that nothing is read to tell data sets apart.
    """

    pool: Tensor
    labels: Tensor
    rows: Tensor | None = None
    content: str = ""

    @staticmethod
    def of(pair: Split | tuple[Any, Any], where: str) -> Split:
        """A checked split from tensors or arrays.

        Raises:
            SecateurError: naming `where`, for a wrong number of dimensions, lengths that differ, or no image.
        """
        if isinstance(pair, Split):
            if pair.rows is not None:
                return pair
            pair = (pair.pool, pair.labels)
        images, labels = torch.as_tensor(pair[0]), torch.as_tensor(pair[1])
        if images.ndim != 4:
            raise SecateurError(f"{where} images must be (N, C, H, W), but got shape {tuple(images.shape)}")
        if len(images) == 0 or labels.shape != (len(images),):
            raise SecateurError(
                f"{where} needs at least one image and one label each, but got {len(images)} images and labels of "
                f"shape {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise SecateurError(f"{where} labels must be whole numbers, but got {labels.dtype}")
        if images.dtype != torch.uint8:
            if not images.is_floating_point():
                raise SecateurError(
                    f"{where} images must be uint8 (0 to 255) or float (0 to 1), but got {images.dtype}"
                )
            images = images.to(torch.float32)
            if not bool(torch.isfinite(images).all()):
                raise SecateurError(f"{where} images hold NaN or infinite values")
        return Split(images.contiguous(), labels.to(torch.int64).contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> ImageShape:
        """(C, H, W)."""
        return tuple(self.pool.shape[1:])

    @property
    def images(self) -> Tensor:
        """(N, C, H, W) all images; of a split with rows a copy in memory, so take a few at a time instead."""
        return self.pool if self.rows is None else self.pool[self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes of all images together."""
        return len(self) * math.prod(self.shape) * self.pool.element_size()

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at the positions `chosen` (B,), as copies on the split's device."""
        chosen = chosen.to(self.pool.device)
        return self.pool[chosen if self.rows is None else self.rows[chosen]], self.labels[chosen]

    def pieces(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels from beginning to end, at most `size` at a time."""
        for start in range(0, len(self), size):
            place = slice(start, start + size)
            yield self.pool[place if self.rows is None else self.rows[place]], self.labels[place]

    def pick(self, chosen: Tensor) -> Split:
        """The images at the positions `chosen`: a copy, or of a split with rows other rows of the same pool."""
        if self.rows is None:
            return Split(self.pool[chosen], self.labels[chosen])
        return Split(self.pool, self.labels[chosen], self.rows[chosen], self.content)

    def to(self, device: torch.device) -> Split:
        """These images, and no others of the pool, in the memory of a device."""
        if self.rows is None:
            return Split(self.pool.to(device), self.labels.to(device))
        images = torch.empty((len(self), *self.shape), dtype=self.pool.dtype, device=device)
        size = max(1, PIECE // math.prod(self.shape))
        for held, (part, _) in zip(images.split(size), self.pieces(size), strict=True):
            held.copy_(part)
        return Split(images, self.labels.to(device))

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, of pixels scaled to [0, 1]; a constant channel gets deviation 1."""
        unit = 255.0 if self.pool.dtype == torch.uint8 else 1.0
        pixels = math.prod(self.shape[1:])
        means, deviations = [], []
        for channel in range(self.shape[0]):
            # In pieces: a whole data set as float64 would be eight times its size.
            total = square = 0.0
            for piece, _ in self.pieces(min(4096, max(1, PIECE // pixels))):
                values = piece[:, channel].to(torch.float64) / unit
                total += float(values.sum())
                square += float(values.square().sum())
            number = len(self) * pixels
            mean = total / number
            deviation = max(0.0, square / number - mean * mean) ** 0.5
            means.append(mean)
            deviations.append(deviation if deviation > 1e-8 else 1.0)
        return tuple(means), tuple(deviations)

    def digest(self, digest: hashlib._Hash) -> None:
        """Feeds every image and label into `digest`; of a pool whose content is known only that and the rows."""
        digest.update(repr(((len(self), *self.shape), str(self.pool.dtype))).encode())
        if self.rows is not None and self.content:
            digest.update(self.content.encode())
            digest.update(self.rows.numpy().data)
        else:
            for images, _ in self.pieces(max(1, PIECE // math.prod(self.shape))):
                digest.update(images.numpy().data)
        digest.update(self.labels.numpy().data)


@dataclass(frozen=True, eq=False)
class Stream:
    """Batches read anew in every epoch, for data that does not fit in memory.

    Attributes:
        loader: yields (inputs, targets); its own batch size, workers, transforms and collate function hold.
        images: they are images (B, C, H, W) and labels (B,); else whatever the network and the task take.
    """

    loader: DataLoader[Any]
    images: bool = True

    @staticmethod
    def of(loader: object, where: str, *, images: bool = True) -> Stream:
        """A checked stream; reads one batch.

        Raises:
            SecateurError: naming `where`, when it is not a DataLoader of such batches, or an empty one.
        """
        if not isinstance(loader, DataLoader):
            raise SecateurError(f"{where}: a stream needs a torch DataLoader, but got {type(loader).__name__}")
        stream = Stream(loader, images)
        stream.first(1, 0)
        return stream

    def __len__(self) -> int:
        sampler: Any = self.loader.sampler
        return len(sampler)

    @cached_property
    def shape(self) -> ImageShape:
        """(C, H, W), or the shape of the first tensor of a sample's inputs."""
        return tuple(tensors_in(self.first(1, 0)[0])[0].shape[1:])

    def epoch(self, seed: int) -> Iterator[SampleBatch]:
        """All batches of one epoch; the loader's order and its workers' draws follow from `seed`."""
        sampler: Any = self.loader.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(seed)
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batches = iter(self.loader)
            head = list(itertools.islice(batches, 1))  # a sampler draws its order when the first batch is asked for
        for batch in itertools.chain(head, batches):
            yield _pair(batch, "loader") if self.images else as_batch(batch, "loader")

    def first(self, size: int, seed: int) -> SampleBatch:
        """The first `size` samples of an epoch. Targets that are no tensors are those of whole batches."""
        batches, sizes = [], []
        for batch in self.epoch(seed):
            batches.append(batch)
            sizes.append(sample_count(batch[0]))
            if sum(sizes) >= size:
                break
        if not batches:
            raise SecateurError("the loader yields no batch; give one with at least one sample")
        inputs, targets = (joined(parts, sizes) for parts in zip(*batches, strict=True))
        return first_samples(inputs, size), first_samples(targets, size) if sum(sizes) > size else targets

    def digest(self, digest: hashlib._Hash) -> None:
        """Feeds the length and the first samples into `digest`."""
        batch = self.first(min(64, len(self)), 0)
        digest.update(repr((len(self), self.shape)).encode())
        if self.images:
            digest.update(batch[0].contiguous().numpy().data)
            digest.update(batch[1].numpy().data)
        else:
            digest_tree(batch, digest)


def counts(labels: Tensor, num_classes: int) -> NDArray[np.int64]:
    """(num_classes,) images of each class."""
    return torch.bincount(labels, minlength=num_classes).numpy()


def split_off(split: Split, fraction: float, num_classes: int, seed: int, where: str) -> tuple[Split, Split]:
    """Sets aside the same share of every class, at least one image each.

    Args:
        split: what is divided.
        fraction: the share set aside, 0 < fraction < 1.
        num_classes: labels are below this.
        seed: same seed, same images.
        where: named in errors.

    Returns:
        the rest and the part set aside, both in the original order.

    Raises:
        SecateurError: for a fraction out of range, or a class with fewer than two images.
    """
    check_range("validation", fraction, 0, 1, above=True, below=True, where=where)
    sizes = []
    for label, found in enumerate(counts(split.labels, num_classes).tolist()):
        if found < 2:
            raise SecateurError(
                f"{where}: class {label} has {found} training images; at least 2 are needed, one of them for validation"
            )
        sizes.append(min(found - 1, max(1, round(fraction * found))))
    return draw_off(split, sizes, seed)


def draw_off(split: Split, sizes: Sequence[int], seed: int) -> tuple[Split, Split]:
    """Sets aside `sizes[label]` images of every class, drawn by `seed`.

    Returns:
        the rest and the part set aside, both in the original order.
    """
    rng = np.random.default_rng(seed)
    labels = split.labels.numpy()
    taken = np.zeros(len(labels), dtype=np.bool_)
    for label, size in enumerate(sizes):
        taken[rng.permutation(np.flatnonzero(labels == label))[:size]] = True
    aside, rest = torch.from_numpy(np.flatnonzero(taken)), torch.from_numpy(np.flatnonzero(~taken))
    return split.pick(rest), split.pick(aside)


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
    if not images:
        raise SecateurError(f"{where} is empty; it needs at least one image")
    return Split.of((torch.stack(images), torch.tensor(labels)), where)


def _samples(source: object, where: str) -> Iterable[tuple[Tensor, int]]:
    if isinstance(source, DataLoader):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch in _unshuffled(source):
                images, labels = _pair(batch, where)
                yield from zip(images, labels.tolist(), strict=True)
        return
    if not isinstance(source, Dataset) and not hasattr(source, "__getitem__"):
        raise SecateurError(f"{where} must be a torch Dataset or DataLoader, but got {type(source).__name__}")
    items: Any = source
    size = len(items) if hasattr(items, "__len__") else None
    for sample in items if size is None else (items[i] for i in range(size)):
        if not isinstance(sample, tuple | list) or len(sample) < 2:
            raise SecateurError(f"{where}: a sample must be an (image, label) pair, but got {type(sample).__name__}")
        yield _image(sample[0], where), int(sample[1])


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


def _pair(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) < 2 or not all(isinstance(part, Tensor) for part in batch[:2]):
        raise SecateurError(
            f"{where}: a batch must be a pair of tensors (images, labels), but got {type(batch).__name__}"
        )
    images, labels = batch[0], batch[1]
    if images.ndim != 4 or labels.ndim != 1:
        raise SecateurError(
            f"{where}: a batch must be images (B, C, H, W) and labels (B,), but got {tuple(images.shape)} and "
            f"{tuple(labels.shape)}"
        )
    return images, labels.to(torch.int64)


def _image(value: Any, where: str) -> Tensor:
    """(C, H, W) from a tensor, or from an array or PIL image (H, W, C) or (H, W)."""
    if isinstance(value, Tensor):
        image = value
    else:
        array = np.array(value)
        image = torch.from_numpy(
            array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0) if array.ndim == 3 else array
        )
    if image.ndim != 3:
        raise SecateurError(f"{where}: an image must be (C, H, W), but got shape {tuple(image.shape)}")
    return image
