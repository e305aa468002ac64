"""The cost table against products written out by hand."""

from __future__ import annotations

import numpy as np

from backbones.cost_table import Cost, CountedOperation, build_cost_table

SIZES = (4, 2)
"""Channels 0 to 3 are one group, 4 and 5 another."""
UNITS = {
    "conv.weight": {0: np.arange(4)},
    "linear.weight": {1: np.repeat(np.arange(4), 9), 0: np.array([4, 5, -1])},
}
SHAPES = {"conv.weight": (4, 3, 3, 3), "linear.weight": (3, 36), "linear.bias": (3,)}
TABLE = build_cost_table(
    SIZES,
    UNITS,
    SHAPES,
    ("conv.weight", "linear.weight"),
    (
        CountedOperation(9 * 25, (("conv.weight", 0), ("conv.weight", 1)), "conv"),
        CountedOperation(1, (("linear.weight", 0), ("linear.weight", 1)), "linear"),
        CountedOperation(7, (np.array([0, 1, 2, 3, -1]), np.array([4, 5])), "attention"),
    ),
)


def test_the_dense_cost_is_that_of_the_whole_shapes() -> None:
    assert TABLE.dense == Cost(9 * 25 * 4 * 3 + 3 * 36 + 7 * 5 * 2, 4 * 27 + 3 * 36)


def test_positions_of_a_channel_go_together_and_others_stay() -> None:
    kept = np.array([3, 1])
    macs = [9 * 25 * 3 * 3, (1 + 1) * (3 * 9), 7 * (3 + 1) * 1]
    assert TABLE.op_macs(kept).tolist() == macs
    assert TABLE.evaluate(kept) == Cost(sum(macs), 3 * 27 + (1 + 1) * 27)
    assert TABLE.op_layers == ("conv", "linear", "attention")


def test_many_structures_at_once_cost_what_each_costs() -> None:
    rows = np.array([[1, 1], [4, 2], [2, 1]])
    assert TABLE.evaluate_many(rows).tolist() == [
        [cost.macs, cost.params] for cost in (TABLE.evaluate(row) for row in rows)
    ]


def test_sizes_that_repeat_are_kept_once() -> None:
    assert len(TABLE.fixed) == 1 + 5  # the constant; conv out, linear out and in, attention rows and columns
