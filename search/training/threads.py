"""How many cores one network is worth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1_000_000_000
"""MACs of a batch below which a second thread costs more than it brings.

A ResNet-20 on 8 x 8 images has 0.16 G in a batch of 64; with two threads on two cores that others use as well, one
step took up to ten times as long as with one thread, waiting at the barriers of each small layer.
"""


@contextmanager
def fitting_threads(macs: int, batch: int) -> Iterator[None]:
    """Within the block torch computes small networks on one core; `OMP_NUM_THREADS`, where set, is left alone.

    The choice follows from the sizes alone, so that a run that was stopped goes on with the same sums.

    Args:
        macs: of one sample.
        batch: samples at a time.
    """
    before = torch.get_num_threads()
    if macs * batch < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
