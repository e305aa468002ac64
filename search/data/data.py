"""What a network learns from and is judged by: its task, with samples for training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones.arguments import explains
from backbones.errors import SecateurError
from backbones.inputs import first_samples, sample_count
from search.checks import check_range
from search.data.augment import Augment
from search.data.items import Collate, Items, SampleBatch, form_of
from search.data.materialise import materialise
from search.data.sources import Split, Stream, check_images, check_scale, counts, split_off
from search.data.task import CLASSIFICATION, Task

SplitName = Literal["train", "validation", "test"]
Source = Split | Stream | Items
AT_ONCE = 64
"""Samples of any form that are looked at together; of images `IMAGES_AT_ONCE`."""
IMAGES_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
@explains("__post_init__", "from_tensors", "from_datasets", "batch")
class Data:
    """A task with its samples. Make one with `secateur.load_data`, `Data.from_tensors` or `Data.from_datasets`.

    Attributes:
        name: short name, printed and stored.
        train: what is learned from.
        validation: taken from the training samples; ranks structures and recipes.
        test: looked at once, after the last epoch of a training.
        num_classes: labels are 0 to num_classes - 1; 0 for a task without classes.
        mean: mean per channel, of pixels scaled to [0, 1]; empty for inputs that the network takes as they are.
        std: standard deviation per channel, of pixels scaled to [0, 1]; likewise.
        augment: random changes that training draws anew for every image.
        classes: names of the classes, empty when unknown.
        task: loss and metric; classification unless another one is given.
    """

    name: str
    train: Source
    validation: Source
    test: Source
    num_classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augment: Augment = field(default_factory=Augment)
    classes: tuple[str, ...] = ()
    task: Task = CLASSIFICATION

    def __post_init__(self) -> None:
        if self.task.classes and self.num_classes < 2:
            raise SecateurError(f"data {self.name!r}: num_classes >= 2 must hold, but got {self.num_classes}")
        if self.images:
            check_images(self.train, self.mean, self.std, f"data {self.name!r}")
        elif self.mean or self.std or self.augment != Augment():
            raise SecateurError(
                f"data {self.name!r}: mean, std and augment are of images with classes; let the dataset see to it"
            )
        if not self.task.classes and (self.num_classes or self.classes):
            raise SecateurError(
                f"data {self.name!r}: num_classes and classes are of tasks with classes, not of one with metric "
                f"{self.task.name!r}; leave them out, or give Task(..., classes=True)"
            )
        for split in ("train", "validation", "test"):
            self._check(split)

    @property
    def images(self) -> bool:
        """Whether samples are images that are normalised and augmented here, not inputs of any form."""
        return isinstance(self.train, Split) or (isinstance(self.train, Stream) and self.train.images)

    def _check(self, split: SplitName) -> None:
        source = self.source(split)
        if not len(source):
            raise SecateurError(f"data {self.name!r}: the {split} split is empty; it needs at least one sample")
        if not self.images:
            found, wanted = (form_of(self._first(one)[0]) for one in (source, self.train))
            if found != wanted:
                raise SecateurError(f"data {self.name!r}: {split} inputs are {found}, training inputs {wanted}")
            return
        if source.shape != self.train.shape:
            raise SecateurError(
                f"data {self.name!r}: {split} images are {source.shape}, training images {self.train.shape}"
            )
        check_scale(source, self.train, f"data {self.name!r}: {split}")
        if not isinstance(source, Split):
            return
        check_labels(source.labels, self.num_classes, f"data {self.name!r}: {split}")
        empty = np.flatnonzero(counts(source.labels, self.num_classes) == 0)
        if len(empty) and split != "test":
            raise SecateurError(
                f"data {self.name!r}: class {int(empty[0])} has no image in the {split} split; every one of the "
                f"{self.num_classes} classes needs at least one there"
            )

    def source(self, split: SplitName) -> Source:
        """The samples of one split.

        Raises:
            SecateurError: for an unknown name.
        """
        if split not in ("train", "validation", "test"):
            raise SecateurError(f"split must be 'train', 'validation' or 'test', but got {split!r}")
        source: Source = getattr(self, split)
        return source

    def normalise(self, images: Any) -> Any:
        """(N, C, H, W) pixels, uint8 0..255 or float 0..1, to float32 with mean 0 and deviation 1 a channel.

        Inputs of another form stay as they are.
        """
        if not self.mean:
            return images
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        mean = torch.tensor(self.mean, device=images.device)[:, None, None] * unit
        scale = 1.0 / (torch.tensor(self.std, device=images.device)[:, None, None] * unit)
        return (images.to(torch.float32) - mean) * scale

    def batch(self, size: int, seed: int = 0) -> SampleBatch:
        """`size` training samples drawn without replacement and without augmentation: the scoring batch.

        Returns:
            normalised images (size, C, H, W) and labels (size,); of another task the inputs as the network takes them,
            and the targets.

        Raises:
            SecateurError: when there are fewer than `size` training samples.
        """
        if not 1 <= size <= len(self.train):
            raise SecateurError(
                f"data {self.name!r}: 1 <= batch size <= {len(self.train)} training images must hold, but got {size}"
            )
        check_range("seed", seed, 0, 2**63 - 1)
        if isinstance(self.train, Stream):
            return self._ready(self.train.first(size, seed), "train")
        generator = torch.Generator().manual_seed(seed)
        return self._ready(self.train.take(torch.randperm(len(self.train), generator=generator)[:size]), "train")

    def batches(self, split: SplitName, size: int | None = None) -> Iterator[SampleBatch]:
        """One split from beginning to end, normalised, not augmented.

        Args:
            split: which.
            size: samples at a time at most, where no loader decides; by default `IMAGES_AT_ONCE` or `AT_ONCE`.
        """
        source = self.source(split)
        size = size or (IMAGES_AT_ONCE if self.images else AT_ONCE)
        for batch in source.epoch(0) if isinstance(source, Stream) else source.pieces(size):
            yield self._ready(batch, split)

    def _ready(self, batch: SampleBatch, split: SplitName) -> SampleBatch:
        """The batch normalised, its labels checked where that was not done before."""
        inputs, targets = batch
        if not isinstance(self.source(split), Split):
            self.check_targets(inputs, targets, split)
        return self.normalise(inputs), targets

    def check_targets(self, inputs: Any, targets: Any, split: SplitName) -> None:
        """Raises SecateurError for classes that are no whole numbers (B,) in 0 .. num_classes - 1."""
        if not self.task.classes:
            return
        where, count = f"data {self.name!r}: {split}", sample_count(inputs)
        if not isinstance(targets, Tensor) or targets.shape != (count,) or targets.is_floating_point():
            found = (
                f"{tuple(targets.shape)}, {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
            )
            raise SecateurError(f"{where} labels must be ({count},) whole numbers of classes, but got {found}")
        check_labels(targets, self.num_classes, where)

    @cached_property
    def example(self) -> Any:
        """(1, C, H, W) the first training image, normalised: what `trace` runs on; of another task one sample's inputs.

        Inputs by name are a tuple that holds them beside it (`backbones.inputs.NamedInputs`).
        """
        return self.normalise(first_samples(self._first(self.train)[0], 1))

    @staticmethod
    def _first(source: Source) -> SampleBatch:
        """The first sample of a source, as a batch."""
        return source.first(1, 0) if isinstance(source, Stream) else next(source.pieces(1))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all images, labels and the normalisation; of a stream over its length and first samples.

        Of another task than classification also its name and parts.
        """
        digest = hashlib.sha256(repr((self.num_classes, self.mean, self.std)).encode())
        for source in (self.train, self.validation, self.test):
            source.digest(digest)
        return f"{digest.hexdigest()[:16]} {self.task.key}".rstrip()

    @staticmethod
    def from_tensors(  # noqa: PLR0913 - keywords, of which most tasks give two or three
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
        task: Task | None = None,
        seed: int = 0,
    ) -> Data:
        """Data from tensors or arrays.

        Args:
            name: short name.
            train: (images (N, C, H, W) uint8 or float in 0..1, labels (N,) whole numbers); with a `task` (inputs,
                targets), each a tensor (N, …) or tensors in a tuple, list or dictionary, as the network and the loss
                take them.
            test: images and labels in the same form.
            validation: the fraction of `train` that is set aside, the same share of every class, or a split of its own.
            num_classes: highest training label + 1 when not given.
            mean: mean per channel of pixels scaled to [0, 1]; measured on the training images when not given.
            std: standard deviation per channel, measured likewise. Give mean 0 and std 1 for images that are already
                normalised.
            augment: none when not given.
            classes: class names.
            task: another task than classification of images. The inputs are used as they are: `mean`, `std` and
                `augment` are refused.
            seed: draws the validation images where `validation` is a fraction.

        Raises:
            SecateurError: for wrong shapes or types, labels out of range, or a class without images.
        """
        if task is not None:
            sources = [
                part
                if isinstance(part, float | int) and split == "validation"
                else Items.of_tensors(part, f"data {name!r}: {split}")
                for split, part in (("train", train), ("validation", validation), ("test", test))
            ]
            options = _given(num_classes=num_classes, mean=mean, std=std, augment=augment, classes=classes)
            return _of_task(name, sources, task, options, seed)
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
            mean=measured[0] if mean is None else tuple(mean),
            std=measured[1] if std is None else tuple(std),
            augment=augment or Augment(),
            classes=tuple(classes),
        )

    @staticmethod
    def from_datasets(  # noqa: PLR0913 - likewise
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
        task: Task | None = None,
        collate: Collate | None = None,
        seed: int = 0,
    ) -> Data:
        """Data from any torch Dataset or DataLoader of (image, label) pairs, or, with a `task`, (inputs, targets).

        Images may be tensors (C, H, W), arrays (H, W, C) or (H, W), or PIL images. By default everything is read once
        into memory: a random transform is then drawn only once, so leave it out and give `augment` instead.

        With a `task` nothing is kept in memory: a Dataset is read sample by sample whenever a batch is drawn (what it
        draws at random from torch, numpy or `random` follows from the seed of the training), a DataLoader as it is.
        Inputs are a tensor, a tuple (the network's arguments) or a dictionary (arguments by name), targets anything.

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
            task: another task than classification of images. Inputs are used as they are: `mean`, `std` and `augment`
                are refused. A task with classes needs `num_classes`.
            collate: with a `task`, makes a batch of a list of samples of a Dataset, by default torch's.
            seed: draws the validation images where `validation` is a fraction.

        Raises:
            SecateurError: for samples that are not such pairs, or differ in shape; a stream without loaders.
        """
        if task is not None:
            parts = (("train", train), ("validation", validation), ("test", test))
            sources = [_source(part, collate, f"data {name!r}: {split}") for split, part in parts]
            return _of_task(
                name, sources, task, _given(num_classes=num_classes, mean=mean, std=std, augment=augment), seed
            )
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


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None and value != ()}


def _source(part: Any, collate: Collate | None, where: str) -> Source | float:
    """A loader or dataset as it is read with a task; the fraction for validation as it is."""
    if isinstance(part, float | int) and where.endswith("validation"):
        return part
    return (
        Stream.of(part, where, images=False) if isinstance(part, DataLoader) else Items.of_dataset(part, collate, where)
    )


def _of_task(name: str, sources: Sequence[Source | float], task: Task, options: Mapping[str, Any], seed: int) -> Data:
    """Data of any task from its training, validation and test samples; a fraction is set aside of the first."""
    train, held, test = sources
    if isinstance(held, float | int):
        if not isinstance(train, Items):
            raise SecateurError(f"data {name!r}: training samples from a loader need validation=<DataLoader>")
        train, held = train.split_off(held, seed)
    assert not isinstance(train, float)
    assert not isinstance(test, float)
    return Data(name, train, held, test, task=task, **options)


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Raises SecateurError unless all `labels` are in 0 .. num_classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise SecateurError(f"{where} has label {wrong}; labels must be 0 to {num_classes - 1}")


def subset(data: Data, images: int | None, seed: int) -> Data:
    """The task with at most `images` training samples, classes in proportion where it has some, drawn once.

    Raises:
        SecateurError: for a stream, or more samples than there are.
    """
    if images is None or images == len(data.train):
        return data
    if isinstance(data.train, Stream):
        raise SecateurError("images needs training images in memory; leave it out for a loader")
    if images > len(data.train):
        raise SecateurError(f"images <= {len(data.train)} training images must hold, but got images={images}")
    share = images / len(data.train)
    if isinstance(data.train, Items):
        return replace(data, train=data.train.split_off(share, seed)[1])
    _, chosen = split_off(data.train, share, data.num_classes, seed, f"data {data.name!r}, images={images}")
    return replace(data, train=chosen)
