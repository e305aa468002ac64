"""What is noted of channels: ties with exact index maps, bindings, and what must stay."""

from __future__ import annotations

import numpy as np
import torch

from backbones.constraints import ConstraintSet
from backbones.labels import NONE
from backbones.program import Step

STEP = Step("call", "aten.add", None, (), {}, None, ("layer",), "model.py:1: x + y")


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
