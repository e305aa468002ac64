"""Label tensors: compact forms of the same labels."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.labels import NONE, along, compact, compress, constant_labels, varying


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_compress_changes_the_storage_not_the_labels(shape: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-2, 3, shape, generator=generator)
    still = [size if seed >> dim & 1 else 1 for dim, size in enumerate(shape)]
    labels = labels[tuple(slice(0, size) for size in still)].expand(shape)
    small = compress(labels.contiguous())
    assert torch.equal(small, labels)
    moving = varying(labels)
    assert list(compact(small).shape) == [size if dim in moving else 1 for dim, size in enumerate(shape)]
    assert all(not bool((labels == labels.narrow(dim, 0, 1)).all()) for dim in moving)


def test_along_and_constant_cost_their_vector_only() -> None:
    labels = along(1, torch.arange(5), (2, 5, 100, 100))
    assert compact(labels).numel() == 5
    assert labels[1, 3, 7, 9] == 3
    assert varying(labels) == [1]
    assert compact(constant_labels((4, 4), NONE)).numel() == 1
