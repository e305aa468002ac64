from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from backbones.errors import SecateurError
from scoring.hybrid import hybrid, hybrid_mask, hybrid_widths
from scoring.limits import Limits
from scoring.tables import FilterTables, filter_tables
from tests.scoring.hand_graphs import linear_network

FREE = Limits(max_rate=1.0)
Matrix = NDArray[np.float64]
Kept = dict[str, tuple[int, ...]]


def random_tables(seed: int, sizes: tuple[int, ...] = (1, 2, 5, 9, 16), columns: int = 3) -> FilterTables:
    rng = np.random.default_rng(seed)
    weights = {f"g{i}": rng.normal(size=(n, columns)) * rng.uniform(0.1, 3, (n, 1)) for i, n in enumerate(sizes)}
    if seed % 2:
        weights["g3"][1] = weights["g3"][0]
        weights["g3"][2] = -weights["g3"][0]
        weights["g4"][:2] = 0
    return filter_tables(*linear_network(weights))


def naive_partitions(distances: Matrix) -> list[tuple[float, list[list[int]]]]:
    """Average linkage by its definition: (height, clusters) after each join of the two nearest clusters."""
    clusters = [[i] for i in range(len(distances))]
    partitions = [(-1.0, clusters)]
    while len(clusters) > 1:
        pairs = list(itertools.combinations(clusters, 2))
        gaps = [float(distances[np.ix_(a, b)].mean()) for a, b in pairs]
        a, b = pairs[int(np.argmin(gaps))]
        clusters = [cluster for cluster in clusters if cluster not in (a, b)] + [a + b]
        partitions.append((min(gaps), clusters))
    return partitions


def naive_hybrid(weights: Matrix, t_norm: float, t_dist: float, limits: Limits) -> tuple[int, ...]:
    """The rule as its three sentences say, for one group and no divisor."""
    n = len(weights)
    norms = np.linalg.norm(weights, axis=1)
    norms = norms / norms.mean()
    scale = pdist(weights).mean() if n > 1 else 1.0
    partitions = naive_partitions(squareform(pdist(weights)) / scale if n > 1 else np.zeros((1, 1)))
    leaders = [{max(cluster, key=lambda i: norms[i]) for cluster in clusters} for _, clusters in partitions]
    last = max(i for i, (height, _) in enumerate(partitions) if height < t_dist)

    kept = {i for i in leaders[last] if norms[i] >= t_norm}
    back = sorted(leaders[last] - kept, key=lambda i: -norms[i])
    for earlier in reversed(leaders[:last]):
        back += earlier - leaders[last] - set(back)
    least = min(n, max(limits.min_channels, math.ceil(n * (1 - limits.max_rate) - 1e-9)))
    return tuple(sorted({*kept, *back[: max(0, least - len(kept))]}))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("t_norm", "t_dist"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7), (0.9, 0.8), (1.3, 1.2), (9.0, 9.0)])
@pytest.mark.parametrize("limits", [FREE, Limits(max_rate=0.5), Limits(max_rate=1.0, min_channels=4)])
def test_equals_a_naive_version(seed: int, t_norm: float, t_dist: float, limits: Limits) -> None:
    rng = np.random.default_rng(seed)
    weights = {f"g{n}": rng.normal(size=(n, 4)).astype(np.float32).astype(np.float64) for n in (1, 2, 7, 10)}
    kept = hybrid(filter_tables(*linear_network(weights)), t_norm, t_dist, limits)
    assert kept == {name: naive_hybrid(matrix, t_norm, t_dist, limits) for name, matrix in weights.items()}


def test_by_hand() -> None:
    # Norms 4, 3, 1, 0 (mean 2). Distances: 0-1 is 1, 1-2 is 2, 2-3 is 1, 0-2 is 3, 1-3 is 3, 0-3 is 4; mean 14 / 6.
    tables = filter_tables(*linear_network({"g": [[4.0], [3.0], [1.0], [0.0]]}))
    assert hybrid(tables, 0, 0, FREE) == {"g": (0, 1, 2, 3)}
    assert hybrid(tables, 0.1, 0, FREE) == {"g": (0, 1, 2)}
    assert hybrid(tables, 0, 0.5, FREE) == {"g": (0, 2)}  # {0, 1} and {2, 3} join at 1 / (14 / 6) = 0.43
    assert hybrid(tables, 0.6, 0.5, FREE) == {"g": (0,)}
    assert hybrid(tables, 0, 1.2, FREE) == {"g": (0, 2)}
    assert hybrid(tables, 0, 1.3, FREE) == {"g": (0,)}  # the mean over the four pairs is 3 / (14 / 6) = 1.29
    assert hybrid(tables, 0.6, 0.5, Limits(max_rate=0.5)) == {"g": (0, 2)}  # 2 is back before 1: it was no duplicate
    assert hybrid(tables, 0.6, 0.5, Limits(max_rate=0.25)) == {"g": (0, 1, 2)}


def test_no_rule_nests_in_both_thresholds() -> None:
    # The module's example: what either threshold leaves alone has only A in common, so widths fall and sets need not.
    tables = filter_tables(*linear_network({"g": [[3.0, 0.0], [2.0, 0.0], [0.0, 1.0]]}))
    assert hybrid(tables, 0.7, 0, Limits(max_rate=1, min_channels=2)) == {"g": (0, 1)}
    assert hybrid(tables, 0, 0.5, Limits(max_rate=1, min_channels=2)) == {"g": (0, 2)}
    assert hybrid(tables, 0.7, 0.5, FREE) == {"g": (0,)}
    assert hybrid(tables, 0.7, 0.5, Limits(max_rate=1, min_channels=2)) == {"g": (0, 2)}


thresholds = st.floats(0, 2.5)
all_limits = st.builds(Limits, st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.9, 1.0]), st.integers(1, 6), st.just(1))


def nested(less: Kept, more: Kept) -> bool:
    return all(set(less[name]) <= set(more[name]) for name in more)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 7), thresholds, thresholds, thresholds, thresholds, all_limits)
def test_a_higher_threshold_never_keeps_more(
    seed: int, n1: float, n2: float, d1: float, d2: float, limits: Limits
) -> None:
    tables = random_tables(seed)
    (n1, n2), (d1, d2) = sorted((n1, n2)), sorted((d1, d2))
    low = hybrid(tables, n1, d1, limits)
    assert nested(hybrid(tables, n2, d1, limits), low)
    assert nested(hybrid(tables, 0, d2, limits), hybrid(tables, 0, d1, limits))
    assert nested(hybrid(tables, n2, d2, FREE), hybrid(tables, n1, d1, FREE))
    high = hybrid(tables, n2, d2, limits)
    assert all(len(high[name]) <= len(low[name]) for name in low)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 7), thresholds, thresholds, st.floats(0, 1), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_limits_hold(seed: int, t_norm: float, t_dist: float, rate: float, least: int, divisor: int) -> None:
    tables = random_tables(seed, sizes=(4, 8, 12, 9, 16))
    limits = Limits(rate, least, divisor)
    free = hybrid_mask(tables, t_norm, t_dist, FREE)
    mask = hybrid_mask(tables, t_norm, t_dist, limits)
    for start, size in zip(tables.starts, tables.sizes, strict=True):
        kept = int(mask[start : start + size].sum())
        assert size - kept <= rate * size + 1e-6
        assert kept >= min(least, size)
        assert kept % divisor == 0 or kept == size
        wanted = max(int(free[start : start + size].sum()), min(least, size), int(np.ceil((1 - rate) * size - 1e-9)))
        assert kept < wanted + divisor, "no more comes back than the limits ask for"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 7), st.lists(st.tuples(thresholds, thresholds), min_size=1, max_size=5), all_limits)
def test_widths_are_those_of_the_kept_sets(seed: int, pairs: list[tuple[float, float]], limits: Limits) -> None:
    tables = random_tables(seed)
    norms, distances = np.asarray(pairs).T
    widths = hybrid_widths(tables, norms, distances, limits)
    for row, (t_norm, t_dist) in zip(widths, pairs, strict=True):
        kept = hybrid(tables, t_norm, t_dist, limits)
        assert [len(channels) for channels in kept.values()] == row.tolist()
        assert row.tolist() == hybrid_widths(tables, t_norm, t_dist, limits).tolist()
        units = [start + i for start, channels in zip(tables.starts, kept.values(), strict=True) for i in channels]
        assert np.flatnonzero(hybrid_mask(tables, t_norm, t_dist, limits)).tolist() == units


def test_rates_of_single_groups() -> None:
    tables = random_tables(0)
    kept = hybrid(tables, 99, 99, Limits(max_rate=0.75), rates={"g4": 0.25, "g3": 1.0})
    assert {name: len(channels) for name, channels in kept.items()} == {"g0": 1, "g1": 1, "g2": 2, "g3": 1, "g4": 12}


def test_a_tenth_of_ten_is_one() -> None:
    tables = random_tables(0, sizes=(10, 10, 10, 10, 10))
    assert hybrid_widths(tables, 99, 0, Limits(max_rate=0.9)).tolist() == [1] * 5


def test_a_whole_network_is_cut_within_a_millisecond() -> None:
    tables = random_tables(0, sizes=(16,) * 20 + (32,) * 20 + (64,) * 20)
    limits = Limits(max_rate=0.5, divisor=4)
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        hybrid(tables, 0.9, 0.9, limits)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["t_norm", "t_dist"])
def test_thresholds_out_of_range(bad: float, name: str) -> None:
    both = {"t_norm": 0.5, "t_dist": 0.5, name: bad}
    with pytest.raises(SecateurError, match=rf"0 <= {name} < inf must hold, but got {name}={bad}"):
        hybrid(random_tables(0), both["t_norm"], both["t_dist"])
    with pytest.raises(SecateurError, match=rf"0 <= {name} < inf must hold"):
        hybrid_widths(random_tables(0), np.asarray([both["t_norm"]]), np.asarray([both["t_dist"]]))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"max_rate": 1.1}, r"0 <= max_rate <= 1 must hold, but got max_rate=1\.1"),
        ({"max_rate": float("nan")}, r"0 <= max_rate <= 1 must hold, but got max_rate=nan"),
        ({"min_channels": 0}, r"min_channels >= 1 must hold, but got min_channels=0"),
        ({"divisor": 0}, r"divisor >= 1 must hold, but got divisor=0"),
    ],
)
def test_limits_out_of_range(settings_: dict[str, float], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        Limits(**settings_)  # type: ignore[arg-type]


def test_groups_thinner_than_the_divisor_stay_whole() -> None:
    tables = random_tables(0, sizes=(16, 4, 9, 9, 7))
    assert Limits(1.0, divisor=8).floors(tables).tolist() == [8, 4, 8, 8, 7]
    kept = hybrid(tables, 0.5, 0.5, Limits(divisor=8))
    assert (len(kept["g1"]), len(kept["g4"])) == (4, 7)
    with pytest.raises(SecateurError, match=r"divisor=17 and group 'g0' has 16 channels"):
        hybrid(tables, 0.5, 0.5, Limits(divisor=17))


@pytest.mark.parametrize(("rates", "message"), [({"g9": 0.5}, "unknown group 'g9'"), ({"g1": 2.0}, "rate=2.0 for")])
def test_wrong_rates(rates: dict[str, float], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        hybrid(random_tables(0), 0.5, 0.5, rates=rates)
