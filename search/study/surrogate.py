"""What a structure would score, guessed from those that were scored: so that of many neighbours the best is tried."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]
LENGTHS = (0.2, 0.4)
"""Length scales that are tried, over the root of the number of parameters."""
NOISE = 1e-2
"""Variance of the scores about the process, over its own: what the parameters do not tell."""
SLOPES = 0.1
"""Prior variance of the linear part's slopes, over that of the rest."""
LEARNED = 128
"""The best so many are learned from, so that a guess costs the same in a long search."""


def guess_from(points: Floats, scores: Floats) -> Callable[[Floats], Floats]:
    """Learns what other points may score at best: mean plus standard deviation of a Gaussian process.

    A linear trend and a squared-exponential kernel of the length with the higher marginal likelihood (Rasmussen and
    Williams, 2006, algorithm 2.1). Scores are replaced by the normal quantiles of their ranks (Salinas et al., "A
    quantile-based approach for hyperparameter transfer learning", ICML 2020), so that their scale and a few very bad
    ones do not matter.

    Args:
        points: (n, parameters) what was scored.
        scores: (n,) their scores, higher is better.

    Returns:
        from (m, parameters) to (m,) in standard deviations of the ranks' quantiles.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

    best = np.argsort(-scores, kind="stable")[:LEARNED]
    points, scores = points[best], scores[best]
    values = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    scale = np.sqrt(points.shape[1])
    with threadpool_limits(1):  # sums in one order: the same guess each time
        fits = [
            GaussianProcessRegressor(
                RBF(length * scale, "fixed") + ConstantKernel(SLOPES, "fixed") * DotProduct(1.0, "fixed"),
                alpha=NOISE,
                optimizer=None,
            ).fit(points, values)
            for length in LENGTHS
        ]
    likeliest = max(fits, key=lambda fit: float(fit.log_marginal_likelihood_value_))

    def guess(others: Floats) -> Floats:
        with threadpool_limits(1):
            mean, deviation = likeliest.predict(others, return_std=True)
        return np.asarray(mean + deviation, dtype=np.float64)

    return guess
