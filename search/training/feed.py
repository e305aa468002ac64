"""From stored images to augmented, normalised batches on the device, the same for the same seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from search.data.data import Batch, Data, check_labels
from search.data.sources import Split
from search.training.parallel import ProcessGroup
from search.training.recipe import Recipe


def steps_per_epoch(data: Data, recipe: Recipe) -> int:
    """Batches an epoch."""
    return len(data.train) // recipe.batch_size if isinstance(data.train, Split) else len(data.train.loader)


def training_batches(data: Data, recipe: Recipe, processes: ProcessGroup, epoch: int) -> Iterator[Batch]:
    """One process's share of one epoch: shuffled, augmented, normalised.

    Args:
        data: the task.
        recipe: batch size, seed, augmentation and memory order.
        processes: each of them gets other images.
        epoch: number of epochs done before; other epochs have another order and other augmentations.

    Yields:
        float32 images (B, C, H, W) and labels (B,) on the device of this process, B the batch size over the number of
            processes.

    Raises:
        SecateurError: when a stream yields a label out of range.
    """
    draws = torch.Generator().manual_seed(seed_of(recipe.seed, epoch, processes.rank + 1))
    augment = data.augment if recipe.augment is None else recipe.augment
    for images, labels in _raw(data, recipe, processes, epoch):
        images = images.to(processes.device, non_blocking=True)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        images = data.normalise(augment(images, draws, torch.tensor(data.mean) * unit))
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        yield images, labels.to(processes.device, non_blocking=True)


def _raw(data: Data, recipe: Recipe, processes: ProcessGroup, epoch: int) -> Iterator[Batch]:
    source, size = data.train, recipe.batch_size
    if isinstance(source, Split):
        shuffle = torch.Generator().manual_seed(seed_of(recipe.seed, epoch, 0))
        order = torch.randperm(len(source), generator=shuffle)
        for step in range(steps_per_epoch(data, recipe)):
            chosen = order[step * size : (step + 1) * size][processes.rank :: processes.size]
            yield source.take(chosen)
        return
    for images, labels in source.epoch(seed_of(recipe.seed, epoch, 0)):
        check_labels(labels, data.num_classes, f"data {data.name!r}: train")
        yield images, labels


def resident(data: Data, device: torch.device) -> Data:
    """The same data, its training images on a CUDA device if they take less than half of the free memory there."""
    if device.type != "cuda" or not isinstance(data.train, Split):
        return data
    free, _ = torch.cuda.mem_get_info(device)
    if data.train.nbytes > free // 2:
        return data
    moved = copy.copy(data)  # not dataclasses.replace: all images would be checked again
    object.__setattr__(moved, "train", data.train.to(device))
    return moved


def seed_of(*numbers: int) -> int:
    """One well-mixed seed from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
