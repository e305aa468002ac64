"""The kernel of codes against counting by hand, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scoring import codes
from scoring.codes import CodeAgreement, hamming
from scoring.naswot import RELATIVE_FLOOR, log_det


def kernel(*layers: Tensor) -> np.ndarray:
    """Counted by products of 8-bit integers and by bits alike."""
    ways = []
    for products in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codes, "int8_products", lambda products=products: products)
            agreement = CodeAgreement()
            for layer in layers:
                agreement.add(layer)
            ways.append(agreement.kernel().numpy())
    assert (ways[0] == ways[1]).all()
    return ways[0]


def by_hand(*layers: Tensor) -> np.ndarray:
    above = [(layer.flatten(1) > 0).tolist() for layer in layers]
    batch = len(layers[0])
    count = [[sum(a == b for c in above for a, b in zip(c[i], c[j], strict=True)) for j in range(batch)]
             for i in range(batch)]  # fmt: skip
    return np.array(count, dtype=np.float64)


@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_layers_of_any_size_add_up(batch: int, first: int, second: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    one = torch.randn(batch, first, generator=random)
    other = torch.randn(batch, second, 3, 2, generator=random, dtype=torch.float64)
    assert (kernel(one, other) == by_hand(one, other)).all()


@given(st.permutations(range(7)), st.permutations(range(5)), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_order_of_samples_and_channels(samples: list[int], channels: list[int], seed: int) -> None:
    layer = torch.randn(7, 5, 2, 3, generator=torch.Generator().manual_seed(seed))
    found = kernel(layer)
    assert (kernel(layer[:, channels]) == found).all()
    assert (kernel(layer[samples]) == found[np.ix_(samples, samples)]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_memory_order_and_type_do_not_matter(dtype: torch.dtype) -> None:
    layer = torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    layer[0, 0, 0] = 0.0
    assert (kernel(layer.contiguous(memory_format=torch.channels_last)) == by_hand(layer)).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_wide_codes_are_counted_in_parts(threads: int) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (5, 70_001), dtype=np.uint8)
    bits = np.unpackbits(packed, axis=1).astype(np.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = hamming(packed)
    finally:
        torch.set_num_threads(before)
    assert (found == [[int((a != b).sum()) for b in bits] for a in bits]).all()


def test_duplicates_make_the_kernel_singular_and_lift_one_eigenvalue_to_the_floor() -> None:
    layer = torch.randn(6, 64, generator=torch.Generator().manual_seed(2))
    matrix = torch.from_numpy(kernel(torch.cat([layer, layer[2:3]])))
    assert torch.linalg.matrix_rank(matrix) == 6
    largest = torch.linalg.eigvalsh(matrix)
    expected = largest[1:].log().sum() + (RELATIVE_FLOOR * largest[-1]).log()
    assert log_det(matrix) == pytest.approx(float(expected), rel=1e-9)


def test_a_dead_layer_adds_the_same_to_all_pairs() -> None:
    layer, dead = torch.randn(4, 9, generator=torch.Generator().manual_seed(3)), torch.full((4, 7), -1.0)
    assert (kernel(layer, dead) == kernel(layer) + 7).all()
