"""Label tensors: compact forms of the same labels, and unions with exact index maps."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.constraints import ConstraintSet
from backbones.labels import NONE, along, compact, compress, constant_labels, varying
from backbones.program import Step

STEP = Step("call", "aten.add", None, (), {}, None, ("layer",), "model.py:1: x + y")


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


def test_ties_join_components_and_freeze_what_meets_a_constant() -> None:
    constraints = ConstraintSet()
    left, right = constraints.new_labels(4), constraints.new_labels(4)
    constraints.tie(left, right, STEP)
    constraints.tie(left[:1], torch.tensor([NONE]), STEP)
    roots = constraints.components()
    assert roots.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [freeze.labels.tolist() for freeze in constraints.freezes] == [[0]]


def test_channels_unite_labels_that_share_a_position() -> None:
    constraints = ConstraintSet()
    labels = constraints.new_labels(6)
    vector = constraints.channels(torch.stack([labels[:3], labels[3:]]), 1, STEP)
    assert vector.tolist() == [0, 1, 2]
    assert constraints.components().tolist() == [0, 1, 2, 0, 1, 2]


def test_a_dimension_bound_twice_unites_both() -> None:
    constraints = ConstraintSet()
    first, second = constraints.new_labels(3), constraints.new_labels(3)
    assert constraints.bind("weight", 0, "input", first, STEP).tolist() == [0, 1, 2]
    assert constraints.bind("weight", 0, "filter", second, STEP).tolist() == [0, 1, 2]
    assert np.array_equal(constraints.components(), [0, 1, 2, 0, 1, 2])
    assert constraints.bindings["weight", 0].role == "both"
