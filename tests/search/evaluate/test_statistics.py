"""Rank agreement, intervals, regret and ceiling, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from search.evaluate import statistics
from search.evaluate.statistics import (
    Interval,
    ceiling,
    rank_sum,
    regret,
    resampled_tau,
    share_above,
    spearman,
    tau,
    top,
)

PAIRS = st.integers(3, 12).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.integers(0, 5).map(float)) for _ in range(2)])
)


@given(PAIRS)
def test_tau_and_spearman_are_those_of_scipy_ties_included(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert math.isnan(tau(one, other))
        assert math.isnan(spearman(one, other))
        return
    assert tau(one, other) == pytest.approx(stats.kendalltau(one, other).statistic, abs=1e-12)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


@given(PAIRS)
def test_tau_looks_at_orders_alone(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    assert tau(np.exp(one), other) == pytest.approx(tau(one, other), nan_ok=True)
    assert tau(-one, other) == pytest.approx(-tau(one, other), nan_ok=True)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = 2 / math.pi * math.asin(0.6)  # tau of a bivariate normal with correlation 0.6 (Kruskal, 1958)
    hits = 0
    for _ in range(60):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        found = statistics.bootstrap_tau(x, y, resamples=200)
        hits += found.low <= truth <= found.high
    assert hits >= 50


def test_scores_are_compared_on_the_same_resamples() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=30)
    draws = resampled_tau({"good": truth + 0.1 * rng.normal(size=30), "twin": truth, "bad": -truth}, truth, 200)
    assert share_above(draws["good"], draws["bad"]) == 1.0
    assert share_above(draws["twin"], draws["twin"]) == 0.0
    assert np.allclose(draws["twin"], 1.0)


def test_regret_by_hand() -> None:
    accuracies = np.array([0.5, 0.9, 0.7, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0])
    scores = np.array([9.0, 3.0, 8.0, 7.0, 6.0, 5.0, 4.0, 2.0, 1.0, 0.0])
    assert regret(scores, accuracies) == pytest.approx(0.4)
    assert regret(scores, accuracies, 0.2) == pytest.approx(0.2)
    assert regret(accuracies, accuracies) == 0.0
    tied = np.array([1.0, 1.0, *np.zeros(8)])
    assert regret(tied, accuracies) == pytest.approx(0.2)


def test_the_top_third_has_the_best_and_never_less_than_two() -> None:
    assert top(np.array([0.1, 0.9, 0.5, 0.7, 0.3, 0.2])).tolist() == [1, 3]
    assert top(np.array([0.1, 0.9, 0.5])).tolist() == [1, 2]


def test_the_ceiling_is_one_for_equal_seeds_and_near_nothing_for_noise() -> None:
    column = np.linspace(0, 1, 12)
    assert ceiling(np.stack([column, column], 1)) == (1.0, 1.0)
    noise = np.random.default_rng(0).normal(size=(400, 2))
    whole, inside = ceiling(noise)
    assert abs(whole) < 0.1
    assert abs(inside) < 0.15  # choosing the third by both seeds would give a negative one
    assert math.isnan(ceiling(noise[:, :1])[0])
    assert statistics.seed_deviation(noise) == pytest.approx(1.0, abs=0.1)


def test_rank_sums() -> None:
    assert rank_sum([np.array([1.0, 5.0, 3.0]), np.array([10.0, 30.0, 20.0])]).tolist() == [0.0, 1.0, 0.5]
    assert rank_sum([np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 0.0])]).tolist() == [0.5, 0.5, 0.5]


def test_intervals_print() -> None:
    assert str(Interval(0.5, 0.25, 0.75)) == "+0.50 [+0.25 +0.75]"
    assert str(Interval(float("nan"), 0.0, 0.0)) == "-"
