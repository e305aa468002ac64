"""Images and labels, split into training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.sources import Split, Stream, counts, materialise, split_off

SplitName = Literal["train", "validation", "test"]
Batch = tuple[Tensor, Tensor]
Source = Split | Stream


@dataclass(frozen=True, eq=False)
class Data:
    """A classification task. Make one with `secateur.load_data`, `Data.from_tensors` or `Data.from_datasets`.

    Attributes:
        name: short name, printed and stored.
        train: what is learned from.
        validation: taken from the training images; ranks structures and recipes.
        test: looked at once, after the last epoch of a training.
        num_classes: labels are 0 to num_classes - 1.
        mean: mean per channel, of pixels scaled to [0, 1].
        std: standard deviation per channel, of pixels scaled to [0, 1].
        augment: random changes that training draws anew for every image.
        classes: names of the classes, empty when unknown.
    """

    name: str
    train: Source
    validation: Source
    test: Source
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment = field(default_factory=Augment)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise SecateurError(f"data {self.name!r}: num_classes >= 2 must hold, but got {self.num_classes}")
        channels = self.train.shape[0]
        if len(self.mean) != channels or len(self.std) != channels or not all(s > 0 for s in self.std):
            raise SecateurError(
                f"data {self.name!r}: mean and std need {channels} numbers, one a channel, and std > 0, "
                f"but got mean={self.mean}, std={self.std}"
            )
        for split in ("train", "validation", "test"):
            self._check(split)

    def _check(self, split: SplitName) -> None:
        source = self.source(split)
        if source.shape != self.train.shape:
            raise SecateurError(
                f"data {self.name!r}: {split} images are {source.shape}, training images {self.train.shape}"
            )
        if isinstance(source, Stream):
            return
        check_labels(source.labels, self.num_classes, f"data {self.name!r}: {split}")
        empty = np.flatnonzero(counts(source.labels, self.num_classes) == 0)
        if len(empty) and split != "test":
            raise SecateurError(
                f"data {self.name!r}: class {int(empty[0])} has no image in the {split} split; every one of the "
                f"{self.num_classes} classes needs at least one there"
            )

    def source(self, split: SplitName) -> Source:
        """The images of one split.

        Raises:
            SecateurError: for an unknown name.
        """
        if split not in ("train", "validation", "test"):
            raise SecateurError(f"split must be 'train', 'validation' or 'test', but got {split!r}")
        source: Source = getattr(self, split)
        return source

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) pixels, uint8 0..255 or float 0..1, to float32 with mean 0 and deviation 1 a channel."""
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        mean = torch.tensor(self.mean, device=images.device)[:, None, None] * unit
        scale = 1.0 / (torch.tensor(self.std, device=images.device)[:, None, None] * unit)
        return (images.to(torch.float32) - mean) * scale

    def batch(self, size: int, seed: int = 0) -> Batch:
        """`size` training images drawn without replacement and without augmentation: the scoring batch.

        Returns:
            normalised images (size, C, H, W) and labels (size,).

        Raises:
            SecateurError: when there are fewer than `size` training images.
        """
        if not 1 <= size <= len(self.train):
            raise SecateurError(
                f"data {self.name!r}: 1 <= batch size <= {len(self.train)} training images must hold, but got {size}"
            )
        generator = torch.Generator().manual_seed(seed)
        if isinstance(self.train, Split):
            chosen = torch.randperm(len(self.train), generator=generator)[:size]
            images, labels = self.train.take(chosen)
            return self.normalise(images), labels
        images, labels = self.train.first(size, seed)
        check_labels(labels, self.num_classes, f"data {self.name!r}: train")
        return self.normalise(images), labels

    def batches(self, split: SplitName, size: int) -> Iterator[Batch]:
        """One split from beginning to end, normalised, not augmented, at most `size` images at a time."""
        source = self.source(split)
        if isinstance(source, Split):
            for images, labels in source.pieces(size):
                yield self.normalise(images), labels
        else:
            for images, labels in source.epoch(0):
                check_labels(labels, self.num_classes, f"data {self.name!r}: {split}")
                yield self.normalise(images), labels

    @cached_property
    def example(self) -> Tensor:
        """(1, C, H, W) the first training image, normalised: what `trace` runs on."""
        first = next(self.train.pieces(1)) if isinstance(self.train, Split) else self.train.first(1, 0)
        return self.normalise(first[0])

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all images, labels and the normalisation; of a stream over its length and first images."""
        digest = hashlib.sha256(repr((self.num_classes, self.mean, self.std)).encode())
        for source in (self.train, self.validation, self.test):
            source.digest(digest)
        return digest.hexdigest()[:16]

    @staticmethod
    def from_tensors(
        name: str,
        train: Split | tuple[Any, Any],
        test: Split | tuple[Any, Any],
        *,
        validation: float | Split | tuple[Any, Any] = 0.1,
        num_classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        classes: Sequence[str] = (),
        seed: int = 0,
    ) -> Data:
        """A task from tensors or arrays.

        Args:
            name: short name.
            train: (images (N, C, H, W) uint8 or float in 0..1, labels (N,) whole numbers).
            test: images and labels in the same form.
            validation: the fraction of `train` that is set aside, the same share of every class, or a split of its own.
            num_classes: highest training label + 1 when not given.
            mean: mean per channel of pixels scaled to [0, 1]; measured on the training images when not given.
            std: standard deviation per channel, measured likewise. Give mean 0 and std 1 for images that are already
                normalised.
            augment: none when not given.
            classes: class names.
            seed: draws the validation images where `validation` is a fraction.

        Raises:
            SecateurError: for wrong shapes or types, labels out of range, or a class without images.
        """
        training, testing = Split.of(train, f"data {name!r}: train"), Split.of(test, f"data {name!r}: test")
        number = int(training.labels.max()) + 1 if num_classes is None else num_classes
        check_labels(training.labels, number, f"data {name!r}: train")
        if isinstance(validation, float | int):
            training, held = split_off(training, validation, number, seed, f"data {name!r}")
        else:
            held = Split.of(validation, f"data {name!r}: validation")
        measured = training.moments() if mean is None or std is None else ((), ())
        return Data(
            name=name,
            train=training,
            validation=held,
            test=testing,
            num_classes=number,
            mean=measured[0] if mean is None else tuple(float(m) for m in mean),
            std=measured[1] if std is None else tuple(float(s) for s in std),
            augment=augment or Augment(),
            classes=tuple(classes),
        )

    @staticmethod
    def from_datasets(
        name: str,
        train: Dataset[Any] | DataLoader[Any],
        test: Dataset[Any] | DataLoader[Any],
        *,
        validation: float | Dataset[Any] | DataLoader[Any] = 0.1,
        num_classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        stream: bool = False,
        seed: int = 0,
    ) -> Data:
        """A task from any torch Dataset or DataLoader of (image, label) pairs.

        Images may be tensors (C, H, W), arrays (H, W, C) or (H, W), or PIL images. By default everything is read once
        into memory: a random transform is then drawn only once, so leave it out and give `augment` instead.

        Args:
            name: short name.
            train: dataset or loader of the training images.
            test: dataset or loader of the test images.
            validation: fraction of `train` to set aside, or a dataset or loader.
            num_classes: highest training label + 1 when not given; needed with `stream`.
            mean: mean per channel of pixels scaled to [0, 1]; measured when not given (with `stream`: 0).
            std: standard deviation per channel; measured when not given (with `stream`: 1).
            augment: none when not given.
            stream: read anew in every epoch instead, for data that does not fit in memory. `train`, `validation` and
                `test` must then be DataLoaders of image tensors; their own batch sizes and transforms hold.
            seed: draws the validation images where `validation` is a fraction.

        Raises:
            SecateurError: for samples that are not such pairs, or differ in shape; a stream without loaders.
        """
        if not stream:
            held = validation if isinstance(validation, float | int) else materialise(validation, f"data {name!r}")
            return Data.from_tensors(
                name,
                materialise(train, f"data {name!r}: train"),
                materialise(test, f"data {name!r}: test"),
                validation=held,
                num_classes=num_classes,
                mean=mean,
                std=std,
                augment=augment,
                seed=seed,
            )
        if isinstance(validation, float | int) or num_classes is None:
            raise SecateurError(f"data {name!r}: stream=True needs validation=<DataLoader> and num_classes=<number>")
        streams = [Stream.of(loader, f"data {name!r}") for loader in (train, validation, test)]
        channels = streams[0].shape[0]
        return Data(
            name=name,
            train=streams[0],
            validation=streams[1],
            test=streams[2],
            num_classes=num_classes,
            mean=tuple(mean) if mean is not None else (0.0,) * channels,
            std=tuple(std) if std is not None else (1.0,) * channels,
            augment=augment or Augment(),
        )


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Raises SecateurError unless all `labels` are in 0 .. num_classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise SecateurError(f"{where} has label {wrong}; labels must be 0 to {num_classes - 1}")


def subset(data: Data, images: int | None, seed: int) -> Data:
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
