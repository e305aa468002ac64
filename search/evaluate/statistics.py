"""Rank agreement between scores and accuracies, with bootstrap intervals, and what choosing by a score costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bootstrap percentile interval (Efron, 1979), 95 %.

    Attributes:
        value: on the whole sample; NaN where it is not defined.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "-" if np.isnan(self.value) else f"{self.value:+.2f} [{self.low:+.2f} {self.high:+.2f}]"


def tau(one: Floats, other: Floats) -> float:
    """Kendall's tau-b (Kendall, 1945): ties count for neither side; NaN when all values of one are equal."""
    return _agreement(_signs(one), _signs(other))


def spearman(one: Floats, other: Floats) -> float:
    """Spearman's rho: Pearson's correlation of mid-ranks; NaN when all values of one are equal."""
    from scipy.stats import rankdata  # takes a tenth of all that secateur imports

    ranks = np.stack([rankdata(one), rankdata(other)])
    ranks -= ranks.mean(1, keepdims=True)
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / scale if scale > 0 else float("nan")


def bootstrap_tau(scores: Floats, accuracies: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Tau with its interval over resampled structures.

    Args:
        scores: (n,) scores of n structures.
        accuracies: (n,) accuracies of the same structures.
        resamples: how many times n structures are drawn with replacement.
        seed: equal seeds resample equal structures, so that intervals of several scores can be compared.
    """
    draws = resampled_tau({"": scores}, accuracies, resamples, seed)[""]
    return interval_of(tau(scores, accuracies), draws)


def resampled_tau(
    scores: Mapping[str, Floats], accuracies: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Floats]:
    """(resamples,) taus of each score, all over the same resampled structures: their differences are paired."""
    signs = {name: _signs(values) for name, values in scores.items()}
    truth = _signs(accuracies)
    rng = np.random.default_rng(seed)
    found = {name: np.empty(resamples) for name in scores}
    for number in range(resamples):
        chosen = rng.integers(len(accuracies), size=len(accuracies))
        block = np.ix_(chosen, chosen)
        truth_here = truth[block]
        for name, sign in signs.items():
            found[name][number] = _agreement(sign[block], truth_here)
    return found


def share_above(draws: Floats, others: Floats) -> float:
    """Share of paired resamples in which the first is above the second."""
    valid = ~(np.isnan(draws) | np.isnan(others))
    return float((draws[valid] > others[valid]).mean()) if valid.any() else float("nan")


def top(accuracies: Floats, share: float = 1 / 3) -> NDArray[np.int64]:
    """Indices of the best `share` of structures by accuracy, at least two, best first."""
    count = max(2, round(share * len(accuracies)))
    return np.asarray(np.argsort(-accuracies, kind="stable")[:count], dtype=np.int64)


def regret(scores: Floats, accuracies: Floats, share: float | None = None) -> float:
    """What is lost by choosing with a score: the best accuracy minus the best among the chosen.

    Args:
        scores: (n,) scores of n structures.
        accuracies: (n,) accuracies of the same structures.
        share: of structures with the highest scores that are all retrained; by default only the one on top. Among
            equal scores the mean accuracy counts.
    """
    order = np.argsort(-scores, kind="stable")
    if share is None:
        chosen = float(accuracies[scores == scores[order[0]]].mean())
    else:
        chosen = float(accuracies[order[: max(1, round(share * len(scores)))]].max())
    return float(accuracies.max()) - chosen


def ceiling(accuracies: Floats) -> tuple[float, float]:
    """Tau between retrainings of the same structures with different seeds.

    No score can be expected to exceed it by much when it is measured against one seed.

    Args:
        accuracies: (structures, seeds) accuracies after retraining.

    Returns:
        over all structures, and inside the top third: each seed against the mean of the others, the top third chosen
        by those others (a choice by all would count the same noise twice); means over the seeds. NaN for one seed.
    """
    seeds = accuracies.shape[1]
    if seeds < 2:
        return float("nan"), float("nan")
    whole, inside = [], []
    for seed in range(seeds):
        others = np.delete(accuracies, seed, axis=1).mean(1)
        best = top(others)
        whole.append(tau(accuracies[:, seed], others))
        inside.append(tau(accuracies[best, seed], others[best]))
    return float(np.mean(whole)), float(np.nanmean(inside)) if not np.isnan(inside).all() else float("nan")


def seed_deviation(accuracies: Floats) -> float:
    """Standard deviation of one retraining around its structure's mean, pooled; NaN for one seed."""
    return float(np.sqrt(accuracies.var(1, ddof=1).mean())) if accuracies.shape[1] > 1 else float("nan")


def rank_sum(columns: list[Floats]) -> Floats:
    """(n,) mean over scores of the share of structures ranked below, in [0, 1]; ties share a rank."""
    from scipy.stats import rankdata

    count = max(1, len(columns[0]) - 1)
    return np.asarray(np.mean([(rankdata(column) - 1) / count for column in columns], axis=0))


def _signs(values: Floats) -> Floats:
    return np.sign(values[:, None] - values[None, :])


def _agreement(one: Floats, other: Floats) -> float:
    scale = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / scale if scale > 0 else float("nan")


def interval_of(value: float, draws: Floats) -> Interval:
    """An estimate with the percentile interval of its resamples."""
    valid = draws[~np.isnan(draws)]
    if len(valid) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(valid, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
