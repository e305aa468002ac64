"""Samples of any form: tensors in memory, or a dataset that is read sample by sample; and batches of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_structure
from torch.utils.data import default_collate

from backbones.errors import SecateurError, one_line
from backbones.fingerprint import tensor_bytes
from backbones.inputs import NamedInputs, as_arguments, named, sample_count, tensors_in
from backbones.modes import seed_all
from search.checks import check_range

Collate = Callable[[list[Any]], Any]
SampleBatch = tuple[Any, Any]
DIGESTED = 64
"""Samples of a dataset that tell it from another one: to read all of them could take hours."""


@dataclass(frozen=True, eq=False)
class Items:
    """Samples that are drawn by number.

    Attributes:
        fetch: makes the batch (inputs, targets) of the samples with these numbers.
        rows: (N,) int64 numbers of the samples, in order.
        where: what these are, for messages.
        whole: all samples are tensors in memory: the fingerprint is over all of them.
    """

    fetch: Callable[[Tensor], SampleBatch]
    rows: Tensor
    where: str
    whole: bool = False

    @staticmethod
    def of_tensors(pair: Any, where: str) -> Items:
        """Samples from (inputs, targets), tensors or arrays inside tuples, lists and dictionaries, all (N, …).

        Raises:
            SecateurError: naming `where`, for another form, or tensors that differ in length.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise SecateurError(f"{where} must be a pair (inputs, targets), but got {type(pair).__name__}")
        held = tree_map(lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, tuple(pair))
        strange = [leaf for leaf in tree_leaves(held) if not isinstance(leaf, Tensor) or leaf.ndim == 0]
        if strange:
            raise SecateurError(
                f"{where} must hold tensors of one entry a sample, but got {type(strange[0]).__name__}; give samples "
                "of other forms to `from_datasets`, as a torch Dataset"
            )
        sizes = sorted({len(leaf) for leaf in tree_leaves(held)})
        if len(sizes) != 1:
            raise SecateurError(f"{where} needs as many targets as inputs, but got tensors of lengths {sizes}")

        def fetch(chosen: Tensor) -> SampleBatch:
            inputs, targets = tree_map(lambda leaf: leaf[chosen], held)
            return inputs, targets

        return Items(fetch, torch.arange(sizes[0]), where, whole=True)

    @staticmethod
    def of_dataset(dataset: Any, collate: Collate | None, where: str) -> Items:
        """Samples of a map-style dataset, each (inputs, targets); read anew whenever they are drawn.

        Raises:
            SecateurError: naming `where`, for something else.
        """
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise SecateurError(
                f"{where} must be a Dataset with a length, or a DataLoader, but got {type(dataset).__name__}"
            )
        return Items(_Reader(dataset, collate or default_collate, where), torch.arange(len(dataset)), where)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first tensor of a sample's inputs."""
        return tuple(tensors_in(self.take(torch.arange(1))[0])[0].shape[1:])

    def take(self, chosen: Tensor, seed: int = 0) -> SampleBatch:
        """The batch of the samples at these positions; what is drawn at random for them follows from `seed`.

        Raises:
            SecateurError: for samples that are no pairs, or cannot be put into one batch.
        """
        with seeded(seed):
            return as_batch(self.fetch(self.rows[chosen.cpu()]), self.where)

    def pieces(self, size: int) -> Iterator[SampleBatch]:
        """The samples from beginning to end, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def split_off(self, fraction: float, seed: int) -> tuple[Items, Items]:
        """The rest, and a share of the samples drawn by `seed`, at least one; both in the original order.

        Raises:
            SecateurError: for a share out of range, or fewer than two samples.
        """
        check_range("validation", fraction, 0, 1, above=True, below=True, where=self.where)
        if len(self) < 2:
            raise SecateurError(f"{self.where} has {len(self)} samples; at least 2 are needed, one of them to validate")
        count = min(len(self) - 1, max(1, round(fraction * len(self))))
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        held, rest = order[:count].sort().values, order[count:].sort().values
        return self.pick(rest), self.pick(held)

    def pick(self, chosen: Tensor) -> Items:
        """The samples at these positions."""
        return Items(self.fetch, self.rows[chosen], self.where, self.whole)

    def digest(self, digest: hashlib._Hash) -> None:
        """Feeds number and content of the samples into `digest`; of a dataset the content of the first `DIGESTED`."""
        digest.update(repr((len(self), self.rows.sum().item())).encode())
        for batch in self.pieces(DIGESTED):
            digest_tree(batch, digest)
            if not self.whole:
                break


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads samples of a dataset and puts them into a batch."""

    dataset: Any
    collate: Collate
    where: str

    def __call__(self, chosen: Tensor) -> Any:
        samples = [self.dataset[number] for number in chosen.tolist()]
        for number, sample in zip(chosen.tolist(), samples, strict=True):
            if not isinstance(sample, tuple | list) or len(sample) != 2:
                raise SecateurError(
                    f"{self.where}: sample {number} must be a pair (inputs, targets), but got {type(sample).__name__}"
                )
        try:
            return self.collate(samples)
        except Exception as error:
            raise SecateurError(
                f"{self.where}: samples {chosen[0]} to {chosen[-1]} cannot be put into one batch ({one_line(error)}); "
                "make them equal, or give `collate`"
            ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block torch, numpy and random draw from `seed`; afterwards they go on as if nothing had happened."""
    others = random.getstate(), np.random.get_state()  # noqa: NPY002 - what the user's own code draws from
    with torch.random.fork_rng(devices=[]):
        seed_all(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


def batches_of(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader.

    Raises:
        SecateurError: where its samples cannot be put into one.
    """
    try:
        yield from loader
    except (RuntimeError, TypeError) as error:
        raise SecateurError(
            f"the loader cannot make a batch ({one_line(error)}); make its samples equal, or give it a collate_fn"
        ) from error


def as_batch(batch: Any, where: str) -> SampleBatch:
    """A batch as inputs, by which a network can be called (`as_arguments`), and targets.

    Raises:
        SecateurError: when it is no pair, or its inputs hold no tensor.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise SecateurError(f"{where}: a batch must be a pair (inputs, targets), but got {type(batch).__name__}")
    inputs, targets = batch
    if not isinstance(inputs, Tensor):
        inputs = as_arguments(inputs)
    if not sample_count(inputs):
        raise SecateurError(
            f"{where}: the inputs of a batch must be a tensor, or a tuple, list or dictionary with tensors, of at "
            f"least one sample, but got {type(batch[0]).__name__}"
        )
    return inputs, targets


def form_of(inputs: Any) -> str:
    """Containers and types of the inputs of a batch, sizes left out: equal for what one network can take."""
    kinds = [f"{str(one.dtype).removeprefix('torch.')} of {one.ndim} dimensions" for one in tensors_in(inputs)]
    if isinstance(inputs, Tensor):
        return kinds[0]
    names = list(getattr(inputs, "named", {}))
    return ", ".join(kinds) + (f", by name {', '.join(names)}" if names else f" in a {type(inputs).__name__}")


def digest_tree(tree: Any, digest: hashlib._Hash) -> None:
    """Feeds the tensors of a tree, and what else prints the same in every process, into `digest`."""
    digest.update(str(tree_structure(tree)).encode())
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            digest.update(repr((tuple(leaf.shape), str(leaf.dtype))).encode())
            digest.update(tensor_bytes(leaf))
        elif isinstance(leaf, int | float | str | bool):
            digest.update(repr(leaf).encode())


def joined(parts: Sequence[Any], counts: Sequence[int]) -> Any:
    """Batches one behind the other: tensors along their first dimension, lists of an entry a sample as lists.

    Args:
        parts: inputs or targets of the batches, of one form.
        counts: samples of each.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts)) if first.ndim else first
    if isinstance(first, list) and all(len(part) == count for part, count in zip(parts, counts, strict=True)):
        return [entry for part in parts for entry in part]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts], counts) for key in first}
    if isinstance(first, tuple | list):
        columns = [joined(column, counts) for column in zip(*parts, strict=True)]
        names = {key: joined([named(part)[key] for part in parts], counts) for key in named(first)}
        return NamedInputs(columns, names) if names else tuple(columns)
    return first
