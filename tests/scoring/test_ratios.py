from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster

from backbones.errors import SecateurError
from scoring.clusters import CLUSTERINGS, LINKAGES
from scoring.limits import Limits
from scoring.ratios import Pick, clusterings, ratio_widths, ratios, widths_mask
from scoring.tables import filter_tables
from tests.scoring.hand_graphs import linear_network

FREE = Limits(max_rate=1.0)


def network(seed: int = 0, sizes: tuple[int, ...] = (1, 4, 9, 16)) -> Any:
    rng = np.random.default_rng(seed)
    return linear_network({f"g{i}": rng.normal(size=(n, 5)) for i, n in enumerate(sizes)})


def test_keeps_the_largest() -> None:
    model, graph = linear_network({"a": [[1.0], [-3.0], [2.0], [0.5]], "b": [[1.0], [1.0], [1.0], [1.0]]})
    tables = filter_tables(model, graph)
    assert ratios(tables, 0.5) == {"a": (1, 2), "b": (0, 1)}
    assert ratios(tables, {"a": 0.25}) == {"a": (1,), "b": (0, 1, 2, 3)}
    assert ratios(tables, np.asarray([0.75, 0.25])) == {"a": (0, 1, 2), "b": (0,)}
    assert ratios(tables, 0.01) == {"a": (1,), "b": (0,)}
    assert ratios(tables, 1) == {"a": (0, 1, 2, 3), "b": (0, 1, 2, 3)}


@pytest.mark.parametrize("linkage", LINKAGES)
def test_linkage_picks_the_representatives_of_as_many_clusters(linkage: str) -> None:
    model, graph = network(sizes=(9,))
    table = filter_tables(model, graph, linkage=linkage).groups["g0"]
    for width in range(1, 10):
        labels = fcluster(table.tree, width, "maxclust")
        wanted = [max(np.flatnonzero(labels == label), key=lambda i: table.norms[i]) for label in np.unique(labels)]
        kept = ratios(filter_tables(model, graph, linkage=linkage), width / 9, FREE, "linkage")
        assert kept == {"g0": tuple(sorted(int(i) for i in wanted))}


@pytest.mark.parametrize("linkage", LINKAGES)
def test_agglomerative_equals_the_tables_own_linkage(linkage: str) -> None:
    model, graph = network()
    tables = filter_tables(model, graph, linkage=linkage)
    other = clusterings(model, graph, "agglomerative", linkage=linkage)
    for keep in (0.2, 0.5, 0.7, 1.0):
        assert ratios(tables, keep, FREE, other) == ratios(tables, keep, FREE, "linkage")


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_representatives_are_the_largest_of_their_clusters(method: str) -> None:
    rng = np.random.default_rng(0)
    weights = np.eye(4, 12)[np.repeat(np.arange(4), 5)] * 10 + rng.normal(size=(20, 12)) * 0.1
    model, graph = linear_network({"g": weights})
    tables = filter_tables(model, graph)
    kept = ratios(tables, 0.2, FREE, clusterings(model, graph, method))["g"]
    wanted = [5 * blob + int(np.argmax(np.linalg.norm(weights[5 * blob : 5 * blob + 5], axis=1))) for blob in range(4)]
    assert kept == tuple(wanted)


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_widths_hold_even_among_equal_filters(method: str) -> None:
    model, graph = linear_network({"g": np.repeat([[1.0, 0.0], [0.0, 2.0]], 4, axis=0), "zero": np.zeros((6, 3))})
    kept = ratios(filter_tables(model, graph), 0.5, FREE, clusterings(model, graph, method))
    assert {name: len(channels) for name, channels in kept.items()} == {"g": 4, "zero": 3}
    assert {0, 4} <= set(kept["g"])
    assert kept["zero"][0] == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.4, 0.9, 1.0]),
    st.integers(1, 5),
    st.sampled_from(["norm", "linkage"]),
)
def test_more_is_more_and_limits_hold(low: list[float], high: list[float], rate: float, least: int, pick: Pick) -> None:
    tables = filter_tables(*network())
    limits = Limits(rate, least)
    less = np.minimum(low, high)
    more = np.maximum(low, high)
    small, large = ratios(tables, less, limits, pick), ratios(tables, more, limits, pick)
    assert all(set(small[name]) <= set(large[name]) for name in small)
    widths = ratio_widths(tables, np.stack([less, more]), limits)
    assert widths.tolist() == [[len(c) for c in small.values()], [len(c) for c in large.values()]]
    assert (widths[0] >= np.minimum(least, tables.sizes)).all()
    assert (tables.sizes - widths[0] <= rate * tables.sizes + 1e-6).all()


def test_divisor() -> None:
    tables = filter_tables(*network(sizes=(8, 12, 16)))
    assert ratio_widths(tables, 0.3, Limits(1.0, 1, 4)).tolist() == [4, 4, 8]
    assert ratio_widths(tables, 0.9, Limits(1.0, 1, 8)).tolist() == [8, 12, 16]


def widths(*values: int) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


@pytest.mark.parametrize(("keep", "shown"), [(0.0, "0"), (1.5, "1.5"), (float("nan"), "nan"), ({"g1": -1.0}, "-1")])
def test_ratios_out_of_range(keep: Any, shown: str) -> None:
    with pytest.raises(SecateurError, match=rf"0 < keep <= 1 must hold, but got keep={shown}"):
        ratios(filter_tables(*network()), keep)


def test_wrong_names_and_widths() -> None:
    model, graph = network()
    tables = filter_tables(model, graph)
    with pytest.raises(SecateurError, match="unknown group 'g7'"):
        ratios(tables, {"g7": 0.5})
    with pytest.raises(SecateurError, match="unknown pick 'largest'; known are norm, linkage"):
        ratios(tables, 0.5, pick="largest")  # type: ignore[arg-type]
    with pytest.raises(SecateurError, match=r"1 <= width <= 4 must hold for group 'g1', but got width=5"):
        widths_mask(tables, widths(1, 5, 1, 1))
    with pytest.raises(SecateurError, match=r"unknown clustering 'spectrl'; did you mean 'spectral'\?"):
        clusterings(model, graph, "spectrl")
    with pytest.raises(SecateurError, match="unknown features 'fan'"):
        clusterings(model, graph, features="fan")
