"""Where data comes from: images in memory or mapped from a file, or a loader that is read anew in every epoch."""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from backbones.errors import SecateurError, one_line
from backbones.inputs import first_samples, sample_count, tensors_in
from backbones.modes import seed_all
from search.checks import check_range
from search.data.items import Items, SampleBatch, as_batch, batches_of, digest_tree, joined

ImageShape = tuple[int, ...]

FAR = 8.0
"""What no image in floats of 0 to 1 reaches, normalised or not."""
FEWEST_SEEN, MOST_SEEN = 16, 256
"""Images, at least and at most, in which it is looked for what is wrong with all of them."""
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
        try:
            images, labels = (torch.as_tensor(part) for part in pair)
        except (TypeError, ValueError, RuntimeError) as error:
            raise SecateurError(
                f"{where} must be a pair of tensors or arrays (images, labels), but got {type(pair).__name__}: "
                f"{one_line(error)}"
            ) from None
        if images.layout != torch.strided:
            raise SecateurError(f"{where} images must be dense, but got layout {images.layout}; call to_dense()")
        if images.ndim != 4:
            raise SecateurError(f"{where} images must be (N, C, H, W), but got shape {tuple(images.shape)}")
        _, first, second, last = images.shape
        if last in (1, 3, 4) and first > 4 and second > 4 and (first == second or last == 3):
            raise SecateurError(
                f"{where} images must be (N, C, H, W), but {tuple(images.shape)} looks like (N, H, W, C); give "
                "images.permute(0, 3, 1, 2)"
            )
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


def check_images(source: Split | Stream | Items, mean: Sequence[float], std: Sequence[float], where: str) -> None:
    """Checks how images are normalised, and of some of them that there is something to see in their scale.

    Mapped images are left alone: they are read when they are wanted.

    Args:
        source: the training images.
        mean: per channel, of pixels scaled to [0, 1].
        std: likewise.
        where: named in errors.

    Raises:
        SecateurError: for a mean or std that is no finite number a channel, images that hold NaN or are all of one
            colour, or floats of 0 to 255 in memory where `mean` and `std` are of 0 to 1.

    Warns:
        UserWarning: for floats of 0 to 255 otherwise.
    """
    channels = source.shape[0]
    numbers = all(isinstance(one, int | float) and math.isfinite(one) for one in (*mean, *std))
    if len(mean) != channels or len(std) != channels or not numbers or not all(one > 0 for one in std):
        raise SecateurError(
            f"{where}: mean and std need {channels} numbers, one a channel, and std > 0, "
            f"but got mean={tuple(mean)}, std={tuple(std)}"
        )
    if _goes_far(high := _highest(source, f"{where}: every pixel of the training images")):
        advice = f"float images go up to {high:g}, but 0 to 1 is meant; divide by 255, or give uint8"
        if isinstance(source, Split) and max(map(abs, mean)) <= 1 and max(std) <= 1:
            raise SecateurError(f"{where}: {advice}")
        warnings.warn(f"{where}: {advice}", UserWarning, stacklevel=2)


def check_scale(source: Split | Stream | Items, train: Split | Stream | Items, where: str) -> None:
    """Raises SecateurError for images that are of one colour, hold NaN, or have another scale than those of training.

    Args:
        source: the images of another split.
        train: the training images.
        where: data and split, for errors.
    """
    high, usual = _highest(source, f"{where}: every pixel"), _highest(train, where)
    if _goes_far(high) and usual is not None and not _goes_far(usual):
        raise SecateurError(
            f"{where} images go up to {high:g}, training images to {usual:g}; give both in one scale, 0 to 1 or uint8"
        )


def _goes_far(high: float | None) -> bool:
    return high is not None and high > FAR


def _highest(source: Split | Stream | Items, what: str) -> float | None:
    """The largest value of some images, bytes as 0 to 1; 0 where some are below 0, None where none are looked at.

    Raises:
        SecateurError: beginning with `what`, where all that is seen has one value; for NaN or infinity.
    """
    if isinstance(source, Split):
        if source.rows is not None:
            return None
        some, _ = source.take(torch.linspace(0, len(source) - 1, min(len(source), MOST_SEEN)).long())
    else:
        assert isinstance(source, Stream)  # of images
        some = source.beginning
    low, high = float(some.min()), float(some.max())
    if not math.isfinite(low + high):
        raise SecateurError(f"{what.partition(':')[0]}: the loader's images hold NaN or infinite values")
    if low == high and len(some) >= FEWEST_SEEN:
        raise SecateurError(f"{what} is {low:g}; nothing can be learned from them; look at how they are read")
    return high / 255 if some.dtype == torch.uint8 else high if low >= 0 else 0.0


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
            SecateurError: naming `where`, when it is not a DataLoader of such batches, an empty one, or one that
                may never end.
        """
        if not isinstance(loader, DataLoader):
            raise SecateurError(f"{where}: a stream needs a torch DataLoader, but got {type(loader).__name__}")
        stream = Stream(loader, images)
        try:
            len(stream)
        except TypeError:
            raise SecateurError(
                f"{where}: the loader's dataset has no length, and may never end; give it a __len__ (samples an epoch)"
            ) from None
        stream.first(1, 0)
        return stream

    def __len__(self) -> int:
        sampler: Any = self.loader.sampler
        return len(sampler if hasattr(sampler, "__len__") else self.loader.dataset)  # type: ignore[arg-type]

    @cached_property
    def beginning(self) -> Tensor:
        """(B, C, H, W) images of the first batch, at most `FEWEST_SEEN`."""
        images: Tensor = next(self.epoch(0))[0]
        return images[:FEWEST_SEEN].clone()

    @cached_property
    def shape(self) -> ImageShape:
        """(C, H, W), or the shape of the first tensor of a sample's inputs."""
        return tuple((self.beginning if self.images else tensors_in(self.first(1, 0)[0])[0]).shape[1:])

    def epoch(self, seed: int) -> Iterator[SampleBatch]:
        """All batches of one epoch; the loader's order and its workers' draws follow from `seed`."""
        sampler: Any = self.loader.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(seed)
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            seed_all(seed)
            batches = batches_of(self.loader)
            head = list(itertools.islice(batches, 1))  # a sampler draws its order when the first batch is asked for
        for batch in itertools.chain(head, batches):
            yield image_batch(batch, "loader") if self.images else as_batch(batch, "loader")

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
    check_range("seed", seed, 0, 2**63 - 1, where=where)
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


def image_batch(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    """The batch of a loader as images (B, C, H, W) and labels (B,).

    Raises:
        SecateurError: naming `where`, for something else.
    """
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
