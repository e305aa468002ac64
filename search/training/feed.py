"""From stored images to augmented, normalised batches on the device, the same for the same seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from backbones.inputs import map_tensors, move_tensors
from backbones.memory_order import in_order
from search.data.data import Data
from search.data.items import SampleBatch
from search.data.sources import Split, Stream
from search.training.parallel import ProcessGroup
from search.training.recipe import Recipe


def steps_per_epoch(data: Data, recipe: Recipe) -> int:
    """Batches an epoch."""
    return len(data.train.loader) if isinstance(data.train, Stream) else len(data.train) // recipe.batch_size


def training_batches(data: Data, recipe: Recipe, processes: ProcessGroup, epoch: int) -> Iterator[SampleBatch]:
    """One process's share of one epoch: shuffled; images augmented and normalised, other inputs as they are.

    Args:
        data: the task.
        recipe: batch size, seed, augmentation and memory order.
        processes: each of them gets other images.
        epoch: number of epochs done before; other epochs have another order and other augmentations.

    Yields:
        float32 images (B, C, H, W) and labels (B,), or inputs and targets of the task, on the device of this process;
            B the batch size over the number of processes.

    Raises:
        SecateurError: when a stream yields a label out of range.
    """
    draws = torch.Generator().manual_seed(seed_of(recipe.seed, epoch, processes.rank + 1))
    augment = data.augment if recipe.augment is None else recipe.augment
    for batch in _raw(data, recipe, processes, epoch):
        inputs, targets = move_tensors(batch, processes.device)
        if data.images:
            unit = 255.0 if inputs.dtype == torch.uint8 else 1.0
            inputs = data.normalise(augment(inputs, draws, torch.tensor(data.mean) * unit))
        yield in_memory_order(inputs, recipe), targets


def in_memory_order(inputs: Any, recipe: Recipe) -> Any:
    """The inputs of a batch, those of four dimensions in the memory order that the recipe trains in."""
    if not recipe.channels_last:
        return inputs
    return map_tensors(lambda tensor: in_order(tensor, torch.channels_last), inputs)


def _raw(data: Data, recipe: Recipe, processes: ProcessGroup, epoch: int) -> Iterator[SampleBatch]:
    source, size = data.train, recipe.batch_size
    if not isinstance(source, Stream):
        shuffle = torch.Generator().manual_seed(seed_of(recipe.seed, epoch, 0))
        order = torch.randperm(len(source), generator=shuffle)
        for step in range(steps_per_epoch(data, recipe)):
            chosen = order[step * size : (step + 1) * size][processes.rank :: processes.size]
            if isinstance(source, Split):
                yield source.take(chosen)
            else:
                batch = source.take(chosen, seed_of(recipe.seed, epoch, processes.rank + 1, step))
                data.check_targets(*batch, "train")
                yield batch
        return
    for batch in source.epoch(seed_of(recipe.seed, epoch, 0)):
        data.check_targets(*batch, "train")
        yield batch


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
